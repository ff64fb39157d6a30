"""RerankerConfig refuses what cannot work, naming the knob and its value."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError


def test_defaults_are_those_of_the_announcement() -> None:
    config = RerankerConfig()

    assert (config.max_length, config.max_query_length, config.overlap_tokens) == (1024, 512, 80)
    assert (config.model, config.max_chunks_per_doc) == ("embedded", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "int8"),
        ("max_length", 15),
        ("max_length", 0),
        ("max_query_length", 7),
        ("overlap_tokens", -1),
        ("num_threads", 0),
        ("max_batch_tokens", 0),
        ("max_chunks_per_doc", 0),
        ("max_chunks_per_doc", -3),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is '?{value}"):
        RerankerConfig(**{name: value})


def test_an_empty_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="model is empty"):
        RerankerConfig(model="")


def test_the_smallest_lengths_are_taken() -> None:
    config = RerankerConfig(max_length=16, max_query_length=8, overlap_tokens=0)

    assert (config.max_length, config.max_query_length, config.overlap_tokens) == (16, 8, 0)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(RerankerConfig(token="secret"))
