"""What tells languages apart in the vectors of a bi-encoder can be left out of a cross-encoder's similarity."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.errors import ModelRefusedError
from pipelines.reranker import Reranker
from pipelines.training import from_bi_encoder
from pipelines.training.dense import load_backbone
from pipelines.training.from_bi_encoder import convert
from pipelines.training.languages import EACH, FEWEST, language_directions, texts_by_language
from pipelines.training.similarity import measure
from tests.checkpoints import words
from tests.pipelines.training.exact_matches import SAMPLE, WIDTH, tokenizer_of, write_bi_encoder

LANGUAGES = {"aa": "zebra falcon marble", "bb": "candle bread river", "cc": "bridge carbon alpine"}
"""Words that stand in each text of a language, and say nothing of what it is about."""
TOPICS = [words(4, seed=seed) for seed in range(200, 240)]
OTHERS = [topic for topic in TOPICS if not {*topic.split()} & {*" ".join(LANGUAGES.values()).split()}]


def said(topic: str, language: str) -> str:
    return f"{topic} {' '.join([LANGUAGES[language]] * 4)}"


FILE = {language: [said(topic, language) for topic in TOPICS] for language in LANGUAGES}


@pytest.fixture(scope="module")
def bi_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bi_encoder(tmp_path_factory.mktemp("bi") / "encoder")


def write_pairs(path: Path, rows: list[tuple[str | None, ...]], names: tuple[str, ...] = ()) -> Path:
    """A file of training pairs."""
    names = names or ("query", "query_lang", "positive", "doc_lang")
    pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    return path


def wins_of_the_topic(directory: Path) -> float:
    """How often a passage on the topic of the query, in another language, beats those on others in its own."""
    reranker = Reranker.load(str(directory), device="cpu")
    wins = []
    for topic in OTHERS[:8]:
        passages = [said(topic, "bb"), *(said(other, "aa") for other in OTHERS if other != topic)]
        order = [ranked.index for ranked in reranker.rerank(said(topic, "aa"), passages)]
        wins.append(1 - order.index(0) / (len(order) - 1))
    return float(np.mean(wins))


def test_with_the_directions_of_languages_left_out_the_topic_counts(bi_encoder: Path, tmp_path: Path) -> None:
    found = {}
    for count in (0, 2):
        output = tmp_path / str(count)
        texts = SAMPLE + [text for some in FILE.values() for text in some]
        convert(bi_encoder, output, texts, exact_matches=False, languages=[FILE], directions=count)
        found[count] = wins_of_the_topic(output)
    assert found[0] < 0.5
    assert found[2] > 0.9


def test_directions_are_those_in_which_languages_of_a_file_differ(bi_encoder: Path) -> None:
    """That texts of another file are about other things is no difference of languages."""
    model, tokenizer = load_backbone(bi_encoder).eval(), tokenizer_of(bi_encoder)
    other = {language: [f"{text} table table table table" for text in some] for language, some in FILE.items()}
    directions = language_directions(model, tokenizer, [FILE, other], 2)
    assert directions.shape == (WIDTH, 2)
    torch.testing.assert_close(directions.T @ directions, torch.eye(2))
    means = [
        measure(model, [one.ids for one in tokenizer.encode_batch(some)]).means.mean(0)
        for some in (FILE["aa"], FILE["bb"], other["aa"])
    ]
    languages, files = means[1] - means[0], means[2] - means[0]
    assert (languages @ directions).norm() > 0.95 * languages.norm()
    assert (files @ directions).norm() < 0.5 * files.norm()


def test_more_directions_than_the_texts_tell_are_refused(bi_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"3 directions of languages are wanted, and the texts tell 2: give"):
        convert(bi_encoder, tmp_path / "cross", SAMPLE, languages=[FILE], directions=3)
    with pytest.raises(ModelRefusedError, match=r"1 directions .* tell 0"):
        convert(bi_encoder, tmp_path / "cross", SAMPLE, directions=1)
    assert not (tmp_path / "cross").exists()


def test_texts_are_read_by_file_and_language(tmp_path: Path) -> None:
    many = [(f"frage {i}", "de", f"answer {i % 60}", "en") for i in range(100)]
    few = [(f"question {i}", "fr", None, "en") for i in range(FEWEST - 1)]
    write_pairs(tmp_path / "a.parquet", [*many, *few, ("without", None, "language", "")])
    write_pairs(tmp_path / "b.parquet", [(f"one {i}", "en", f"two {i}", "en") for i in range(50)])
    write_pairs(tmp_path / "c.parquet", [("a", "b")] * 50, ("query", "positive"))
    [texts] = texts_by_language([str(tmp_path / "*.parquet")])
    assert {language: len(some) for language, some in texts.items()} == {"de": EACH, "en": EACH}
    assert set(texts["de"]) < {query for query, *_ in many}
    assert len(set(texts["en"])) == EACH
    assert texts_by_language([str(tmp_path / "*.parquet")]) == [texts]  # the same ones each time


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"broken\.parquet cannot be read"):
        texts_by_language([str(tmp_path / "*.parquet")])


def test_the_command_leaves_them_out(bi_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(a, "aa", b, "bb") for a, b in zip(FILE["aa"], FILE["bb"], strict=True)]
    file = write_pairs(tmp_path / "pairs.parquet", rows)
    outputs = [tmp_path / name for name in ("with", "without")]
    for output, flags in zip(outputs, (["--language-directions", "1"], []), strict=True):
        command = ["from_bi_encoder", str(bi_encoder), str(output), "--no-exact-matches", *flags]
        monkeypatch.setattr(sys, "argv", [*command, "--texts", str(file)])
        from_bi_encoder.main()
    assert wins_of_the_topic(outputs[0]) > wins_of_the_topic(outputs[1]) + 0.2


def test_a_number_below_0_is_refused(
    bi_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["from_bi_encoder", str(bi_encoder), str(tmp_path / "cross"), "--language-directions", "-1"]
    monkeypatch.setattr(sys, "argv", [*command, "--texts", "*.parquet"])
    with pytest.raises(SystemExit):
        from_bi_encoder.main()
    assert "--language-directions is a number from 0 on" in capsys.readouterr().err
