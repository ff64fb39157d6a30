"""One app, one model: processes with other files than it was deployed with do not start, or are not listened to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import ModelNotFoundError, ModelRefusedError
from pipelines.model_sources import find_model
from serve.endpoint import Endpoint
from serve.pinning import pinned
from serve.scorer import Scorer
from serve.settings import ServeArgs
from tests.checkpoints import write_bert
from tests.serve.conftest import LocalHandle, StartServer

BODY = {"query": "apple", "documents": ["bread", "candle"]}


@pytest.fixture
def other_directory(tmp_path: Path) -> Path:
    """A model with the tokenizer of `bert_directory` and other weights."""
    return write_bert(tmp_path / "other", seed=99)


def test_a_directory_that_was_replaced_is_noticed_when_a_process_starts(
    bert_directory: Path, other_directory: Path
) -> None:
    """By replicas and endpoints; the message has both digests."""
    expected = pinned(ServeArgs(model=str(bert_directory))).files
    args, found, _ = pinned(ServeArgs(model=str(other_directory)))
    assert expected == find_model(str(bert_directory)).digest() != found
    message = rf"SHA-256 {found}\) are not those that the app was deployed with \({expected}\)"
    with pytest.raises(ModelRefusedError, match=message):
        Scorer(args.reranker(), expected)
    with pytest.raises(ModelRefusedError, match=message):
        Endpoint(args, None, LocalHandle(None), expected)  # type: ignore[arg-type]


def test_an_endpoint_and_a_replica_with_different_models_do_not_work_together(
    start_server: StartServer, other_directory: Path
) -> None:
    """Neither is wrong by itself: one is left over from an earlier deployment."""
    server = start_server()
    ours = server.endpoint.files
    server.handle.target = other = Scorer(ServeArgs(model=str(other_directory)).reranker())

    for response in (server.post("/v1/rerank", BODY), server.get("/ready")):
        assert (response.status_code, response.json()["detail"]["code"]) == (503, "OTHER_MODEL")
        assert ours in response.json()["detail"]["message"]
        assert other.served.fingerprint.files in response.json()["detail"]["message"]
        assert int(response.headers["Retry-After"]) >= 1


def test_a_hub_name_is_resolved_once(bert_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the branch stands for later does not matter to the processes of the app."""
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = hub / "models--owner--name"
    for commit in ("a" * 40, "b" * 40):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for file in bert_directory.iterdir():
            (snapshot / file.name).symlink_to(file)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)

    args, _, _ = pinned(ServeArgs(model="owner/name"))
    (repository / "refs" / "main").write_text("b" * 40)

    assert (args.revision, args.name) == ("a" * 40, "owner/name")
    config = args.reranker()
    assert find_model(config.model, config.revision).commit == "a" * 40
    with pytest.raises(ModelNotFoundError):
        pinned(ServeArgs(model="owner/nothing"))
