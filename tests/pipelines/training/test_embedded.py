"""The training script's arithmetic: gradients, schedule, calibration, lists and checkpoints that load everywhere."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pipelines import Reranker
from pipelines.encoder import PackedEncoder
from pipelines.packing import TokenPair, pack
from pipelines.training import embedded


@pytest.fixture
def backbone(bert_directory: Path, tmp_path: Path) -> Path:
    """The tiny BERT as a bi-encoder is published: no classifier, no `bert.` before the names."""
    folder = tmp_path / "backbone"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((bert_directory / name).read_bytes())
    tensors = load_file(bert_directory / "model.safetensors")
    kept = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    save_file(kept, folder / "model.safetensors")
    return folder


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Forty lists whose positive repeats the query's word."""
    words = ["read", "write", "file", "list", "sort", "open"]
    rows = [
        {
            "source": "s",
            "query": words[i % 6],
            "positive": f"{words[i % 6]} {i}",
            "bm25": [f"{words[(i + k) % 6]} x" for k in range(1, 4)],
            "dense": [f"{words[(i + k) % 6]} y" for k in range(1, 4)],
            "given": [],
        }
        for i in range(embedded.HELD_BACK + 40)
    ]
    path = tmp_path / "groups.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_micro_batches_give_the_gradient_of_the_whole_step(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = embedded.load_backbone(backbone).double()
    lengths = [5, 9, 7, 4, 12, 6, 8, 3, 11]
    pairs = [TokenPair([1 + (i + j) % 5 for j in range(n)], [0] * n) for i, n in enumerate(lengths)]
    monkeypatch.setattr(embedded, "MICRO_BATCH_TOKENS", 20)

    loss, right = embedded.backward_on_lists(encoder, pairs, width=3)
    actual = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    encoder.zero_grad()
    logits = encoder(pack(pairs)).view(3, 3)
    expected_loss = F.cross_entropy(logits, torch.zeros(3, dtype=torch.long))
    expected_loss.backward()

    assert loss == pytest.approx(expected_loss.item(), abs=1e-6)
    assert right == pytest.approx((logits.argmax(-1) == 0).double().mean().item())
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(actual[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    assert embedded.learning_rate(0) == 0
    assert embedded.learning_rate(embedded.WARM_UP) == pytest.approx(embedded.PEAK_LEARNING_RATE)
    assert embedded.learning_rate(0.52) == pytest.approx(embedded.PEAK_LEARNING_RATE / 2)
    assert embedded.learning_rate(1) == 0


def test_platt_recovers_scale_and_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, generator=generator) * 2
    labels = (torch.rand(20_000, generator=generator) < torch.sigmoid(0.5 * logits)).float()

    scale, bias = embedded.platt(logits, labels)

    assert scale == pytest.approx(0.5, abs=0.05)
    assert bias == pytest.approx(0.0, abs=0.05)


def test_a_list_has_its_positive_first_and_no_document_twice() -> None:
    group = {"positive": "p", "bm25": ["a", "b", "p"], "dense": ["b", "c", "d"], "given": ["e"]}
    pool = [f"random {i}" for i in range(20)]
    for seed in range(50):
        drawn = embedded.draw_list(group, pool, random.Random(seed))
        assert drawn[0] == "p"
        assert len(drawn) == len(set(drawn)) == 1 + embedded.NEGATIVES


def test_the_pair_tokenizer_never_exceeds_the_length(backbone: Path) -> None:
    tokenizer = embedded.PairTokenizer(backbone / "tokenizer.json")
    pair = tokenizer.pair("read " * 300, "file " * 300, 120)
    assert len(pair.input_ids) == 120
    assert list(pair.token_type_ids or []) == sorted(pair.token_type_ids or [])


@pytest.mark.slow
def test_training_resumes_and_exports_a_model_that_loads(backbone: Path, groups: Path, tmp_path: Path) -> None:
    """Two interrupted runs and an export: the checkpoint goes on, the directory is a model of ours."""
    work, output = tmp_path / "work", tmp_path / "model"
    common = {"groups": groups, "backbone": backbone, "work": work, "threads": 1, "seed": 0}
    for minutes in (0.01, 0.02):
        embedded.train(argparse.Namespace(**common, minutes=minutes, dev=None))
    saved = torch.load(work / "checkpoint.pt", weights_only=True)
    assert saved["seconds"] >= 1.2

    embedded.export(argparse.Namespace(**common, output=output))

    assert json.loads((output / "config.json").read_text())["num_labels"] == 1
    [score] = Reranker.load(str(output)).compute_score([("read", "read file")])
    assert 0 < score < 1
    assert isinstance(embedded.load_backbone(backbone), PackedEncoder)
