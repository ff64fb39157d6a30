"""The benchmark's parts; its figures are for idle machines, by hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.benchmark.__main__ import app
from jobs.benchmark.engine import EQUAL
from jobs.benchmark.lists import MAX_WORDS, MEDIAN_WORDS, long_document, make_lists, short_document, vocabulary
from jobs.benchmark.report import CORES, interleave
from jobs.benchmark.reuse import share_of_distinct_pairs, zipfian_log
from pipelines.evaluation.analysis import ANALYZER
from pipelines.model_files import ModelFiles
from pipelines.records import CandidateList


@pytest.fixture(autouse=True)
def words_of_a_tiny_model(bert_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.benchmark.lists.find_model", lambda name: ModelFiles(name, bert_directory))


def test_work_is_the_same_each_time_and_of_the_lengths_it_says() -> None:
    work = make_lists(3, 50, long_document)
    lengths = sorted(len(document.split()) for one in work for document in one.documents)
    assert work == make_lists(3, 50, long_document)
    assert [len(one.documents) for one in work] == [50, 50, 50]
    assert lengths[0] >= 4
    assert lengths[-1] <= MAX_WORDS
    assert MEDIAN_WORDS * 0.7 < lengths[75] < MEDIAN_WORDS * 1.3


def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    seconds = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_a_zipfian_log_is_the_same_each_time_and_repeats_what_is_popular() -> None:
    def log() -> list[CandidateList]:
        words, rng = vocabulary(), random.Random(1)
        text = partial(short_document, rng, words)
        return zipfian_log(400, text, text)

    once = log()
    assert once == log()
    assert {len(set(one.documents)) for one in once} == {10}
    counts = [count for _, count in Counter(one.query for one in once).most_common()]
    assert 3 * counts[5] < counts[0] < 20 * counts[5]
    assert 0.2 < share_of_distinct_pairs(once) < 0.8


def test_reuse_measures_what_a_memory_and_a_store_gain(bert_directory: Path, tmp_path: Path) -> None:
    output = tmp_path / "reuse.json"
    arguments = ["reuse", "--model", str(bert_directory), "--rounds", "1", "--pairs", "600", "--output", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    figures = json.loads(output.read_text())
    assert figures["rows"].keys() == {"nothing remembered", "memory", "full store"}
    assert figures["largest_score_difference"] < EQUAL
    assert 0 < figures["share_of_distinct_pairs"] < 1


def test_load_measures_fresh_processes_and_writes_its_figures(bert_directory: Path, tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    arguments = ["load", "--model", str(bert_directory), "--rounds", "1", "--output", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    figures = json.loads(output.read_text())
    assert figures["rows"]["together"]["seconds"] > figures["rows"]["load"]["seconds"] > 0
    assert figures["machine"]["cpus"] == CORES


def test_words_measures_what_each_way_of_cutting_finds(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    texts = {"1": "singer_id concertName", "2": "an airport", "3": "東京都の本"}
    asked = {"a": ("names of concerts", "en", "1"), "b": ("の本", "ja", "3")}
    write_lines(folder / "corpus.jsonl", [{"id": one, "text": text} for one, text in texts.items()])
    write_lines(
        folder / "queries.jsonl", [{"id": one, "text": text, "lang": lang} for one, (text, lang, _) in asked.items()]
    )
    (folder / "qrels.tsv").write_text("".join(f"{query}\t{document}\t1\n" for query, (*_, document) in asked.items()))
    output = tmp_path / "words.json"
    result = CliRunner().invoke(app, ["words", str(folder), "--output", str(output)])
    assert result.exit_code == 0, result.output
    rows = json.loads(output.read_text())["rows"]
    assert rows["tables"] == {"bm25s": 0.0, "bm25s with a stemmer": 0.0, ANALYZER: 1.0}
    assert [rows[f"tables, {language}"][ANALYZER] for language in ("en", "ja")] == [1.0, 1.0]


def write_lines(path: Path, objects: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))
