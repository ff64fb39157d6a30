"""What errors mean to those who may try again."""

from __future__ import annotations

import pytest
import torch

from pipelines.errors import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_mean_that_fewer_tokens_may_help(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_error_of_torch_on_a_full_cpu_means_that_fewer_tokens_may_help() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
