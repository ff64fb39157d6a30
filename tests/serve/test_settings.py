"""What may be set: as JSON, or as the strings of `serve run serve.app:build_app key=value`."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError
from serve.app import KEYS_VARIABLE, api_keys
from serve.auth import new_key
from serve.settings import ServeArgs


def test_strings_of_a_command_line_are_understood() -> None:
    args = ServeArgs.model_validate(
        {"max_replicas": "4", "strict_model": "true", "max_length": "256", "num_gpus": "0.5"}
    )
    assert (args.max_replicas, args.strict_model, args.max_length, args.num_gpus) == (4, True, 256, 0.5)


def test_the_defaults_are_those_of_the_reranker() -> None:
    config, defaults = ServeArgs().reranker(), RerankerConfig()
    for name in ("model", "dtype", "max_length", "max_query_length", "overlap_tokens", "max_chunks_per_doc"):
        assert getattr(config, name) == getattr(defaults, name)


def test_threads_follow_the_cpus_and_the_device_the_gpus() -> None:
    assert ServeArgs(num_cpus=4).reranker().num_threads == 4
    assert ServeArgs(num_cpus=0).reranker().num_threads == 1
    assert ServeArgs(num_cpus=1, num_threads=3).reranker().num_threads == 3
    assert (ServeArgs().reranker().device, ServeArgs(num_gpus=1).reranker().device) == ("cpu", "cuda")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_replicas": 1, "min_replicas": 2}, "less than min_replicas"),
        ({"max_length": 3}, "a pair needs at least"),
        ({"dtype": "float8"}, "it is one of"),
        ({"replicas": 2}, "Extra inputs"),
        ({"deadline_seconds": 0}, "greater than 0"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ServeArgs.model_validate(settings)


def test_keys_come_from_the_file_else_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    assert api_keys(ServeArgs()) is None
    first, second = new_key("a"), new_key()
    monkeypatch.setenv(KEYS_VARIABLE, first.line)
    (tmp_path / "keys").write_text(second.line)
    from_environment = api_keys(ServeArgs())
    from_file = api_keys(ServeArgs(api_keys_file=str(tmp_path / "keys")))
    assert from_environment is not None
    assert from_environment.accepts(f"Bearer {first.key}")
    assert from_file is not None
    assert from_file.accepts(f"Bearer {second.key}")
    assert not from_file.accepts(f"Bearer {first.key}")


def test_an_empty_file_of_keys_does_not_open_the_server(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="holds no API key"):
        api_keys(ServeArgs(api_keys_file=str(tmp_path / "keys")))
