"""When a replica gives up, and when it looks for the list that is at fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from jobs.errors import DeadlyError, StoppedError
from jobs.scoring.scorer import ends_scoring


def raised(fail: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each has a class of its own
        fail()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        StoppedError("the app is gone"),
        DeadlyError("3 replicas died"),
    ],
)
def test_what_befalls_all_lists_ends_scoring(error: Exception) -> None:
    assert ends_scoring(error)


def test_a_full_cpu_ends_scoring_as_a_full_gpu_does() -> None:
    assert ends_scoring(raised(lambda: torch.empty(2**55)))


def test_what_one_list_may_be_the_cause_of_does_not_end_scoring() -> None:
    assert not ends_scoring(raised(lambda: torch.empty(2) @ torch.empty(3)))
    assert not ends_scoring(ValueError("no score for this one"))
