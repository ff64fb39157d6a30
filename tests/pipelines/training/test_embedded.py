"""The training script's arithmetic: gradients, schedule, calibration, lists and checkpoints that load everywhere."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines import Reranker
from pipelines.attention import sdpa_attention
from pipelines.encoder import PackedEncoder
from pipelines.packing import TokenPair, pack
from pipelines.training import embedded
from pipelines.training.attention import padded_attention

KINDS = ("bm25", "dense", "given", "random")


def make_group(held_back: bool = False, **texts: list[str]) -> dict[str, Any]:
    """A mined group whose cosines fall from one text to the next."""
    group: dict[str, Any] = {
        "source": "s",
        "held_back": held_back,
        "query": "q",
        "positive": "p",
        "positive_cosine": 0.9,
    }
    for kind in KINDS:
        listed = texts.get(kind, [])
        group |= {kind: listed, f"{kind}_cosines": [0.8 - i / 10 for i in range(len(listed))]}
    return group


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Sixty lists whose positive repeats the query's word; every third is held back."""
    words = ["read", "write", "file", "list", "sort", "open"]
    rows = []
    for i in range(60):
        others = [words[(i + k) % 6] for k in range(1, 6)]
        texts = {kind: [f"{word} {kind}" for word in others] for kind in KINDS}
        rows.append(make_group(i % 3 == 0, **texts) | {"query": words[i % 6], "positive": f"{words[i % 6]} {i}"})
    path = tmp_path / "groups.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_micro_batches_give_the_gradient_of_the_whole_step(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of different widths, the teacher's share in the target."""
    torch.manual_seed(0)
    encoder = embedded.load_backbone(backbone).double()
    lists = [
        [TokenPair([1 + (i + j) % 5 for j in range(n)], [0] * n) for i, n in enumerate(lengths)]
        for lengths in ([5, 9, 7], [4, 12], [6, 8, 3, 11])
    ]
    cosines = [[0.9, 0.8, 0.1], [0.5, 0.6], [0.7, 0.7, 0.2, 0.1]]
    monkeypatch.setattr(embedded, "MICRO_BATCH_TOKENS", 20)
    monkeypatch.setattr(embedded, "fastest_dtype", lambda: torch.float32)

    loss, right = embedded.backward_on_lists(encoder, lists, cosines, teacher_share=0.4)
    actual = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    encoder.zero_grad()
    logits = encoder(pack([pair for one in lists for pair in one])).split([3, 2, 4])
    targets = [0.4 * torch.softmax(20 * torch.tensor(one), 0) + 0.6 * torch.eye(len(one))[0] for one in cosines]
    expected_loss = torch.stack([-(t * x.log_softmax(0)).sum() for t, x in zip(targets, logits, strict=True)]).mean()
    expected_loss.backward()

    assert loss == pytest.approx(expected_loss.item(), abs=1e-6)
    assert right == pytest.approx(sum(int(one.argmax()) == 0 for one in logits) / 3)
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(actual[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_attention_by_padding_is_the_packed_one() -> None:
    """In the last layer too, where one query of each pair asks all its keys."""
    lengths = [5, 9, 1, 7]
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    q_TNH, k_TNH, v_TNH = torch.randn(3, sum(lengths), 2, 4).unbind()
    for queries, bounds, longest in ((q_TNH, ends, 9), (q_TNH[:4], torch.arange(5, dtype=torch.int32), 1)):
        arguments = (queries, k_TNH, v_TNH, bounds, ends, longest, 9)
        torch.testing.assert_close(padded_attention(*arguments), sdpa_attention(*arguments))


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


def test_a_list_has_its_positive_first_some_of_each_kind_and_no_document_twice() -> None:
    group = make_group(
        bm25=["a", "b", "p"], dense=["b", "c", "d"], given=["e", "f"], random=[f"r{i}" for i in range(9)]
    )
    for seed in range(50):
        drawn = [text for text, _ in embedded.draw_list(group, random.Random(seed))]
        assert drawn[0] == "p"
        assert len(drawn) == len(set(drawn)) == 1 + embedded.NEGATIVES
        assert {"e", "f"} < set(drawn)
        assert len({"a", "b"} & set(drawn)) >= 1
        assert len({"b", "c", "d"} & set(drawn)) >= 2
        assert any(text.startswith("r") for text in drawn)


def test_each_drawn_document_has_its_own_cosine() -> None:
    group = make_group(bm25=["a"], dense=["b", "c"])
    assert dict(embedded.draw_list(group, random.Random(0))) == {"p": 0.9, "a": 0.8, "b": 0.8, "c": 0.8 - 1 / 10}


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
