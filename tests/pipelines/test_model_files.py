"""Directories, hub names and damaged files: what is found, what is refused, and that nothing foreign ever runs."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError, ModelNotFoundError, ModelRefusedError
from pipelines.fingerprint import planned_fingerprint, resolved
from pipelines.model_files import EMBEDDED_DIRECTORIES
from pipelines.model_sources import find_model
from pipelines.reranker import Reranker
from pipelines.training.base import load_base
from tests.checkpoints import (
    copy_model,
    edit_config,
    read_weights,
    shard_weights,
    wordpiece_tokenizer,
    write_weights,
)
from tests.stores import Bucket, upload

PAIRS = [("zebra river", "river salmon"), ("apple", "bread candle")]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(bert_directory: Path, tmp_path: Path) -> Path:
    """A BERT model to damage."""
    return copy_model(bert_directory, tmp_path / "model")


def load(directory: Path) -> Reranker:
    return Reranker.load(str(directory), device="cpu")


def test_embedded_is_the_directory_in_the_package() -> None:
    assert find_model("embedded").directory == EMBEDDED_DIRECTORIES["embedded"]


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
    with pytest.raises(ModelRefusedError, match=f"has no {missing}"):
        planned_fingerprint(RerankerConfig(model=str(model)))


def test_a_missing_tokenizer_config_is_no_error(model: Path) -> None:
    (model / "tokenizer_config.json").unlink()

    assert load(model).model_limit == 512


def test_pickled_weights_are_refused_with_the_way_out(model: Path) -> None:
    torch.save(read_weights(model), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()

    with pytest.raises(ModelRefusedError, match=r"pickled weights \(pytorch_model.bin\) are not read, convert them"):
        load(model)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("adapter_config.json", "it holds an adapter: merge it into its base model"),
        ("model.Q8_0.gguf", "it holds GGUF, which is not read"),
        ("model-00001-of-00002.safetensors", r"without model\.safetensors\.index\.json"),
    ],
)
def test_what_is_there_in_place_of_a_model_is_named(name: str, told: str, missing: str, model: Path) -> None:
    (model / name).touch()
    (model / missing).unlink()

    with pytest.raises(ModelRefusedError, match=f"has no {missing}; .*{told}"):
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


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_says_how_to_get_the_file(name: str, model: Path) -> None:
    write_garbage(model / name)

    with pytest.raises(ModelRefusedError, match=f"{name} is not a .*`git lfs pull` in its directory fetches the file"):
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


def test_whole_weights_count_where_parts_are_left_of_an_earlier_save(model: Path, bert: Reranker) -> None:
    """As in transformers, whose save_pretrained leaves an index whose parts it removed."""
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1-of-2.safetensors"}}))
    assert load(model).compute_score(PAIRS) == bert.compute_score(PAIRS)


def test_norms_with_the_names_of_tensorflow_are_read(model: Path, bert: Reranker, bert_directory: Path) -> None:
    """As bert-base-uncased has them, and transformers takes them."""
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {
        next((name.replace(new, old) for new, old in names.items() if name.endswith(new)), name): tensor
        for name, tensor in read_weights(model).items()
    }
    assert sum(name.endswith("gamma") for name in renamed) >= 5
    write_weights(model, renamed)
    assert load(model).compute_score(PAIRS) == bert.compute_score(PAIRS)
    expected, trained = (load_base(str(one)).encoder.state_dict() for one in (bert_directory, model))
    assert all(torch.equal(tensor, trained[name]) for name, tensor in expected.items())


def test_an_index_without_a_weight_map_is_refused(model: Path) -> None:
    shard_weights(model)
    (model / "model.safetensors.index.json").write_text('{"metadata": {}}')

    with pytest.raises(ModelRefusedError, match=r"model\.safetensors\.index\.json"):
        load(model)


def test_a_tensor_of_another_size_is_refused_by_name(model: Path) -> None:
    tensors = read_weights(model)
    tensors["classifier.weight"] = torch.zeros(2, tensors["classifier.weight"].shape[1])
    write_weights(model, tensors)

    with pytest.raises(
        ModelRefusedError, match=r"sizes of its config\.json: classifier\.weight is \[2, 32\] instead of \[1, 32\]"
    ):
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

    with pytest.raises(
        ModelRefusedError, match=r"tokenizer\.json gives 'beyond' the id \d+, and vocab_size of config\.json is"
    ):
        load(model)


def test_the_tokenizer_of_another_family_is_refused(xlm_roberta_directory: Path, tmp_path: Path) -> None:
    """The other way round it is multilingual-e5: tests/pipelines/families/test_recognition.py."""
    model = copy_model(xlm_roberta_directory, tmp_path / "model")
    wordpiece_tokenizer().save(str(model / "tokenizer.json"))

    with pytest.raises(ModelRefusedError, match=r"tokenizer\.json has no <s> or </s>"):
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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models of object stores are kept for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "crossray" / "models"


def test_a_uri_is_fetched_once_and_is_the_same_model(bucket: Bucket, cache: Path, bert_directory: Path) -> None:
    uri = upload(bert_directory, bucket, "models/bert")
    first = find_model(uri)
    assert first.directory.parent == cache
    assert first.digest() == find_model(str(bert_directory)).digest()
    before = {path: path.stat().st_ino for path in first.directory.iterdir()}
    assert find_model(f"{uri}/").directory == first.directory
    assert {path: path.stat().st_ino for path in first.directory.iterdir()} == before


def test_the_modules_behind_a_model_are_fetched_with_it(bucket: Bucket, cache: Path, ettin_directory: Path) -> None:
    fetched = find_model(upload(ettin_directory, bucket, "models/ettin"))
    assert fetched.digest() == find_model(str(ettin_directory)).digest()
    assert len(fetched.tensor_files()) == 4


def test_a_model_is_resolved_to_its_uri_for_other_nodes(s3_bucket: Bucket, cache: Path, bert_directory: Path) -> None:
    config = RerankerConfig(model=upload(bert_directory, s3_bucket, "bert"))
    assert resolved(config, find_model(config.model)) == config


def test_of_a_uri_only_json_and_safetensors_are_fetched(s3_bucket: Bucket, cache: Path, model: Path) -> None:
    for name in ("pytorch_model.bin", "modeling.py", "deep/config.json", "README.md"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("no part of it")
    directory = find_model(upload(model, s3_bucket, "bert")).directory
    assert {path.suffix for path in directory.iterdir()} == {".json", ".safetensors"}


def test_a_changed_object_is_another_model(s3_bucket: Bucket, cache: Path, model: Path) -> None:
    before = find_model(upload(model, s3_bucket, "bert"))
    edit_config(model, layer_norm_eps=1e-6)
    after = find_model(upload(model, s3_bucket, "bert"))
    assert after.directory != before.directory
    assert after.digest() != before.digest()


def test_a_node_fetches_a_model_once_for_all_its_replicas(s3_bucket: Bucket, cache: Path, bert_directory: Path) -> None:
    uri = upload(bert_directory, s3_bucket, "bert")
    with s3_bucket.proxy.failing(1.0, kinds=["slow"], methods="HEAD") as opened, ThreadPoolExecutor(8) as replicas:
        found = list(replicas.map(find_model, [uri] * 8))
    assert len({files.directory for files in found}) == 1
    assert len(opened) == len(list(found[0].directory.iterdir()))


def test_what_a_killed_process_fetched_by_half_is_fetched_again(
    s3_bucket: Bucket, cache: Path, bert_directory: Path
) -> None:
    uri = upload(bert_directory, s3_bucket, "bert")
    directory = find_model(uri).directory
    directory.rename(f"{directory}.unfinished")
    truncate(Path(f"{directory}.unfinished") / "model.safetensors")
    assert find_model(uri).digest() == find_model(str(bert_directory)).digest()


def test_a_fetch_goes_through_faults(s3_bucket: Bucket, cache: Path, bert_directory: Path) -> None:
    uri = upload(bert_directory, s3_bucket, "bert")
    with s3_bucket.proxy.failing(0.4, seed=1) as injected:
        files = find_model(uri)
    assert len(injected) > 2
    assert files.digest() == find_model(str(bert_directory)).digest()


@pytest.mark.parametrize("name", ["none", "empty"])
def test_a_uri_without_a_model_is_not_found(bucket: Bucket, cache: Path, name: str) -> None:
    bucket.put("empty/notes.txt", b"")
    with pytest.raises(ModelNotFoundError, match=f"model '{bucket.uri}/{name}' .*check"):
        find_model(f"{bucket.uri}/{name}")


def test_another_scheme_is_refused(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"hdfs://\.\.\. is no place that can be read"):
        find_model("hdfs://host/model")
