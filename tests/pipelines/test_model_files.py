"""Directories, hub names and damaged files: what is found, what is refused, and that nothing foreign ever runs."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from pipelines.errors import ConfigError, ModelNotFoundError, ModelRefusedError
from pipelines.model_files import EMBEDDED, find_model
from pipelines.reranker import Reranker
from tests.checkpoints import (
    copy_model,
    edit_config,
    read_weights,
    shard_weights,
    unigram_tokenizer,
    write_weights,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(bert_directory: Path, tmp_path: Path) -> Path:
    """A BERT model to damage."""
    return copy_model(bert_directory, tmp_path / "model")


def load(directory: Path) -> Reranker:
    return Reranker.load(str(directory), device="cpu")


def test_embedded_is_the_directory_in_the_package() -> None:
    assert find_model("embedded").directory == EMBEDDED


def test_a_directory_is_found_relative_to_home(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))

    assert find_model("~/model").directory == model.resolve()


@pytest.mark.parametrize("name", ["/no/such/directory", "./missing", "~/missing", "missing", "a/b/c"])
def test_what_is_neither_a_directory_nor_a_hub_name_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"there is no directory '{name}'"):
        find_model(name)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(missing: str, model: Path) -> None:
    (model / missing).unlink()

    with pytest.raises(ModelRefusedError, match=f"has no {missing}"):
        load(model)


def test_a_missing_tokenizer_config_is_no_error(model: Path) -> None:
    (model / "tokenizer_config.json").unlink()

    assert load(model).model_limit == 512


def test_pickled_weights_are_refused_with_the_way_out(model: Path) -> None:
    torch.save(read_weights(model), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()

    with pytest.raises(ModelRefusedError, match=r"pickled weights \(pytorch_model.bin\) are not read, convert them"):
        load(model)


@pytest.mark.parametrize("broken", [b"{", b"\xff\xfe", b"", b"[1, 2]"], ids=["cut", "not UTF-8", "empty", "a list"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_broken_json_is_refused_by_name(name: str, broken: bytes, model: Path) -> None:
    (model / name).write_bytes(broken)

    with pytest.raises(ModelRefusedError, match=name):
        load(model)


def test_a_broken_tokenizer_is_refused(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")

    with pytest.raises(ModelRefusedError, match=r"tokenizer\.json is not a tokenizer"):
        load(model)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def write_garbage(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, write_garbage, write_nothing])
def test_broken_weights_are_refused_by_name(damage: Callable[[Path], None], model: Path) -> None:
    damage(model / "model.safetensors")

    with pytest.raises(ModelRefusedError, match=r"model\.safetensors is not a readable safetensors file"):
        load(model)


def test_a_missing_shard_is_refused_by_name(model: Path) -> None:
    shard_weights(model)
    (model / "model-00002-of-00002.safetensors").unlink()

    with pytest.raises(ModelRefusedError, match=r"model-00002-of-00002\.safetensors"):
        load(model)


def test_an_index_without_a_weight_map_is_refused(model: Path) -> None:
    shard_weights(model)
    (model / "model.safetensors.index.json").write_text('{"metadata": {}}')

    with pytest.raises(ModelRefusedError, match=r"model\.safetensors\.index\.json"):
        load(model)


def test_a_tensor_of_another_size_is_refused_by_name(model: Path) -> None:
    tensors = read_weights(model)
    tensors["classifier.weight"] = torch.zeros(2, tensors["classifier.weight"].shape[1])
    write_weights(model, tensors)

    with pytest.raises(ModelRefusedError, match=r"(?s)sizes of its config\.json.*head_out\.weight"):
        load(model)


def test_a_query_matrix_of_another_size_is_refused(model: Path) -> None:
    """It is joined with keys and values before sizes are compared."""
    name = "bert.encoder.layer.0.attention.self.query.weight"
    tensors = read_weights(model)
    tensors[name] = tensors[name][:, :-1].contiguous()
    write_weights(model, tensors)

    with pytest.raises(ModelRefusedError, match=r"sizes"):
        load(model)


def test_heads_that_do_not_divide_the_width_are_refused(model: Path) -> None:
    edit_config(model, num_attention_heads=5)

    with pytest.raises(ModelRefusedError, match="num_attention_heads"):
        load(model)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(model: Path) -> None:
    """Its highest ids would lie beyond the embedding table: on a GPU that kills the process."""
    tokenizer = load(model).tokenizer.tokenizer
    tokenizer.add_tokens(["beyond"])
    tokenizer.save(str(model / "tokenizer.json"))

    with pytest.raises(ModelRefusedError, match=r"tokenizer\.json has \d+ tokens, the model \d+"):
        load(model)


def test_the_tokenizer_of_another_family_is_refused(model: Path) -> None:
    unigram_tokenizer().save(str(model / "tokenizer.json"))

    with pytest.raises(ModelRefusedError, match=r"tokenizer\.json"):
        load(model)


def test_the_tokenizers_limit_holds_where_it_is_below_the_models(model: Path) -> None:
    (model / "tokenizer_config.json").write_text('{"model_max_length": 128}')

    assert load(model).lengths.max_length == 128


def test_transformers_no_limit_is_no_limit(model: Path) -> None:
    (model / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')

    assert load(model).lengths.max_length == 512


def test_a_model_that_reads_too_little_is_refused(model: Path) -> None:
    (model / "tokenizer_config.json").write_text('{"model_max_length": 8}')

    with pytest.raises((ConfigError, ModelRefusedError), match="reads 8 tokens at most"):
        load(model)


def test_a_gpu_that_is_not_there_is_refused(model: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")

    with pytest.raises(ConfigError, match="torch sees no GPU"):
        Reranker.load(str(model), device="cuda")


def test_code_that_comes_with_a_model_never_runs(jina_v2_directory: Path, tmp_path: Path) -> None:
    """The config's auto_map names these files; transformers would import them if it were asked to."""
    directory = copy_model(jina_v2_directory, tmp_path / "model")
    marker = tmp_path / "ran"
    for module in ("configuration_xlm_roberta", "modeling_xlm_roberta"):
        (directory / f"{module}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")

    load(directory).rerank("apple", ["bread"])

    assert not marker.exists()


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of huggingface_hub, and no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def put_into_cache(cache: Path, directory: Path, name: str, revision: str = "main") -> Path:
    """What a download leaves: a snapshot of a commit, and a reference to it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(directory, snapshot)
    return snapshot


def test_a_hub_name_is_found_in_the_cache(hub_cache: Path, bert: Reranker, bert_directory: Path) -> None:
    put_into_cache(hub_cache, bert_directory, "owner/reranker")

    reranker = Reranker.load("owner/reranker", device="cpu")

    assert reranker.files.commit == COMMIT
    assert reranker.fingerprint == bert.fingerprint


def test_a_revision_is_found_in_the_cache(hub_cache: Path, bert_directory: Path) -> None:
    put_into_cache(hub_cache, bert_directory, "owner/reranker", revision="v2")

    assert find_model("owner/reranker", revision="v2").commit == COMMIT
    with pytest.raises(ModelNotFoundError):
        find_model("owner/reranker")


def test_a_hub_name_that_is_not_cached_says_what_to_try(hub_cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'owner/missing' is not in the local cache .*give a local directory"):
        find_model("owner/missing")


@pytest.mark.parametrize("name", ["owner/re ranker", "owner/-reranker", "owner/a--b"])
def test_a_name_that_no_hub_has_is_not_found(name: str, hub_cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="neither a directory nor a hub name"):
        find_model(name)


def test_a_hub_model_without_config_is_refused(hub_cache: Path, model: Path) -> None:
    (model / "config.json").unlink()
    put_into_cache(hub_cache, model, "owner/reranker")

    with pytest.raises(ModelRefusedError, match=r"'owner/reranker' has no config\.json"):
        find_model("owner/reranker")


class RefusingHub(BaseHTTPRequestHandler):
    """A hub that has no such repository, or does not give it out."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo" if "gated" in self.path else "RepoNotFound")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def refusing_hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), RefusingHub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["owner/missing", "owner/gated"])
def test_a_hub_that_refuses_a_model_says_what_to_check(name: str, refusing_hub: None) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"(?s)does not give out '{name}'.*token for a gated model"):
        find_model(name)


def test_sizes_of_config_and_weights_must_agree(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    edit_config(model, vocab_size=config["vocab_size"] + 1)

    with pytest.raises(ModelRefusedError, match=r"(?s)sizes of its config\.json.*word_embeddings"):
        load(model)
