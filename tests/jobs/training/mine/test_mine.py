"""`crossray mine`: training lists whose negatives a reranker takes for good, and no positive among them."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

import jobs.training.mine.run
from jobs.cli import app
from jobs.errors import DONE, DONE_WITH_ERRORS, REFUSED, USAGE, RefusedError, StoppedError
from jobs.settings import RerankSettings
from jobs.training.encoders import EncoderSettings
from jobs.training.mine.candidates import CandidateStage, Mining, read_report
from jobs.training.mine.negatives import Chosen, choose
from jobs.training.mine.passages import PassageTable, digest_of
from jobs.training.mine.pool import SHARED, Known, group_key, query_key, write_known, write_shared
from jobs.training.mine.rows import SourceRow, why_no_source
from jobs.training.mine.run import mine
from jobs.training.mine.settings import MineSettings, MiningColumns, Rule, parse_ranks
from jobs.training.ranked import ScoredDocument
from pipelines.errors import ConfigError
from pipelines.evaluation.bm25 import WordIndex
from pipelines.reranker import Reranker
from pipelines.training.dense import DenseEncoder
from tests.jobs.tables import parts
from tests.jobs.training.here import stay_here

EVERYTHING = Rule(ranks=(1, 100), margin=0.0, negatives=100)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_here(monkeypatch)


def python_source() -> pa.Table:
    """Rows 0 and 1 have the same query; 2 and 3 are of one page; 4 and 5 are bad; 6 has nothing in common with any."""
    return pa.table(
        {
            "query": pa.array(
                ["sort a list", "sort a list", "list methods", "append to a list", None, "list", "zebra"],
                pa.large_string(),
            ),
            "positive": [
                "sorted() returns a new sorted list",
                "list.sort sorts a list in place",
                "a list has methods such as append and sort",
                "list.append adds an item to the end of a list",
                "nobody asks for this list",
                " ",
                "quagga",
            ],
            "negatives": [
                ["bananas are yellow", None, "list.sort sorts a list in place"],
                None,
                [],
                None,
                [],
                [],
                None,
            ],
            "group": pa.array(["", None, "page", "page", "", "", ""]).dictionary_encode(),
            "licence": ["any"] * 7,
        }
    )


def shell_source() -> pa.Table:
    return pa.table(
        {
            "query": ["list files", "remove files"],
            "positive": ["ls lists files of a directory", "rm removes files"],
        }
    )


def write(directory: Path, **tables: pa.Table) -> Path:
    directory.mkdir()
    for name, table in tables.items():
        pq.write_table(table, directory / f"{name}.parquet")
    return directory


def mined(source: Path, output: Path, rule: Rule = EVERYTHING, **options: Any) -> dict[str, Any]:
    job = {"replicas": (1, 1)} | {name: options.pop(name) for name in ("scores", "overwrite") if name in options}
    said = options.pop("said", io.StringIO())
    settings = MineSettings(RerankSettings(str(source), str(output), **job), rule=rule, **options)
    return mine(settings, Console(file=said, width=200))


def lists_of(output: Path) -> list[dict[str, Any]]:
    return [row for part in parts(output) for row in pq.read_table(part).to_pylist()]


def by_positive(output: Path) -> dict[str, dict[str, Any]]:
    return {row["documents"][0]: row for row in lists_of(output)}


def test_lists_have_the_positive_first_and_the_scores_of_the_engine(cluster: str, tmp_path: Path) -> None:
    """On Ray; no positive of the query, no passage of its page, none of another source, no bad row."""
    source, output = write(tmp_path / "in", python=python_source(), shell=shell_source()), tmp_path / "out"
    said = io.StringIO()
    summary = mined(source, output, scores=str(tmp_path / "scores"), said=said)
    assert "files left out" not in said.getvalue()
    assert summary["rows"] == 9
    assert summary["errors"] == {"no_positive": 1, "null_query": 1}
    python = summary["sources"][str(source / "python.parquet")]
    assert python["rows"] == 7
    assert python["lists"] + python["without_negatives"] == 5
    found = by_positive(output)
    engine = Reranker.load("embedded")
    pages = {row["documents"][0] for row in found.values() if row["source"] == "python.parquet"}
    for row in found.values():
        assert row["labels"] == [1.0] + [0.0] * (len(row["documents"]) - 1)
        assert row["scores"] == pytest.approx(
            engine.compute_score([(row["query"], text) for text in row["documents"]]), abs=1e-4
        )
        assert max(row["scores"][1:]) <= row["scores"][0]
        if row["source"] == "shell.parquet":
            assert not set(row["documents"]) & pages
    first = found["sorted() returns a new sorted list"]["documents"]
    assert first[1] == "bananas are yellow"
    assert "list.sort sorts a list in place" not in first
    of_page = {"a list has methods such as append and sort", "list.append adds an item to the end of a list"}
    for positive in of_page & found.keys():
        assert not (of_page - {positive}) & set(found[positive]["documents"])
    assert "quagga" not in found
    assert [field.type for field in pq.read_schema(parts(output)[0])] == [
        pa.string(),
        pa.list_(pa.string()),
        pa.list_(pa.float32()),
        pa.list_(pa.float32()),
        pa.string(),
        pa.string(),
    ]
    assert {row["group"] for row in found.values() if row["documents"][0] in of_page} == {"page"}

    said = io.StringIO()
    assert mined(source, output, scores=str(tmp_path / "scores"), said=said) == summary
    assert "is complete" in said.getvalue()
    with pytest.raises(RefusedError, match=r"margin was 0.0, is 0.5"):
        mined(source, output, Rule((1, 100), 0.5, 100))


def test_a_dense_encoder_finds_what_shares_no_word(tmp_path: Path, here: None, bert_directory: Path) -> None:
    source = write(tmp_path / "in", python=python_source())
    mined(source, tmp_path / "words", Rule((1, 100), 0.0, 100, keep_empty=True))
    mined(source, tmp_path / "both", Rule((1, 100), 0.0, 100, True), encoder=EncoderSettings(str(bert_directory)))
    candidates = {
        name: pq.read_table(next((tmp_path / name / "_candidates").glob("*.parquet"))).to_pylist()
        for name in ("words", "both")
    }
    words, both = ({row["documents"][0]: row["documents"] for row in candidates[name]} for name in ("words", "both"))
    assert words["quagga"] == ["quagga"]
    assert set(both["quagga"][1:]) == {
        *(text for text in python_source()["positive"].to_pylist()[:4]),
        "bananas are yellow",
    }
    assert by_positive(tmp_path / "words")["quagga"]["labels"] == [1.0]


def test_a_part_that_was_removed_is_made_again(tmp_path: Path, here: None) -> None:
    source, output = write(tmp_path / "in", shell=shell_source()), tmp_path / "out"
    summary = mined(source, output)
    [part] = parts(output)
    content = Path(part).read_bytes()
    Path(part).unlink()
    assert mined(source, output)["lists"] == summary["lists"]
    assert Path(part).read_bytes() == content


def test_a_corpus_takes_the_place_of_a_sources_passages(tmp_path: Path, here: None) -> None:
    source = write(tmp_path / "in", shell=shell_source())
    texts = ["ls prints names of files", "rm removes files", None, "", "unzip files"]
    corpus = write(tmp_path / "corpus", all=pa.table({"passage": pa.array(texts, pa.large_string())}))
    mined(source, tmp_path / "out", corpus=str(corpus), corpus_text="passage")
    [candidates] = (tmp_path / "out" / "_candidates").glob("*.parquet")
    found = {row["query"]: set(row["documents"][1:]) for row in pq.read_table(candidates).to_pylist()}
    assert found["remove files"] == {"ls prints names of files", "unzip files"}
    assert found["list files"] == {"ls prints names of files", "rm removes files", "unzip files"}
    with pytest.raises(ConfigError, match="--corpus-text is 'text'"):
        mined(source, tmp_path / "other", corpus=str(corpus))


def test_a_worker_reads_and_indexes_the_corpus_once_for_all_of_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bert_directory: Path
) -> None:
    source = write(tmp_path / "in", python=python_source(), shell=shell_source(), more=shell_source())
    corpus = write(tmp_path / "corpus", all=pa.table({"text": ["ls prints names of files", "list.copy copies a list"]}))
    done: list[str] = []

    def noted(owner: Any, name: str) -> None:
        was = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            done.append(name)
            return was(*given, **named)

        monkeypatch.setattr(owner, name, call)

    noted(WordIndex, "__init__")
    noted(PassageTable, "texts")
    noted(DenseEncoder, "encode_passages")
    table = PassageTable((str(corpus / "all.parquet"),), "text")
    stage = CandidateStage(Mining(str(tmp_path), MiningColumns(), 5, EncoderSettings(str(bert_directory)), table))
    for file in sorted(source.iterdir()):
        stage({"path": str(file)})
    assert sorted(done) == ["__init__", "encode_passages", "texts"]
    reports = [read_report(stage.mining.report(str(file))) for file in sorted(source.iterdir())]
    assert [report.passages for report in reports] == [2, 2, 2]


@pytest.mark.parametrize("with_corpus", [True, False])
def test_what_a_row_of_another_file_calls_right_is_no_negative(tmp_path: Path, here: None, with_corpus: bool) -> None:
    """Two days of one log, the same query in both: neither day's positive is wrong for it, nor what is of its page."""
    day1 = {
        "query": ["sort a list", "copy a list"],
        "positive": ["sorted() returns a list", "list.copy copies a list"],
        "negatives": [["a list of bananas"], ["list.sort sorts a list", "a list.sort of note"]],
        "group": ["", "page"],
    }
    day2 = {
        "query": ["sort a list", "append to a list"],
        "positive": ["list.sort sorts a list", "list.append grows a list"],
        "negatives": [
            ["sorted() returns a list", "a list of plums"],
            ["list.copy copies a list", "sorted() returns a list"],
        ],
        "group": ["", "page"],
    }
    source = write(tmp_path / "in", day1=pa.table(day1), day2=pa.table(day2))
    (source / "day3.parquet").write_bytes(b"PAR1 no parquet PAR1")
    texts = {text for day in (day1, day2) for several in (day["positive"], *day["negatives"]) for text in several}
    options = {"corpus": str(write(tmp_path / "corpus", all=pa.table({"text": sorted(texts)})))} if with_corpus else {}
    summary = mined(source, tmp_path / "out", **options)
    assert list(summary["unreadable"]) == [str(source / "day3.parquet")]
    found = {
        row["documents"][0]: set(row["documents"][1:])
        for file in (tmp_path / "out" / "_candidates").glob("*.parquet")
        for row in pq.read_table(file).to_pylist()
    }
    right = {"sorted() returns a list", "list.sort sorts a list"}
    assert all("a list of" in " ".join(found[one]) and not found[one] & right for one in right)
    # Own negatives stay, also those that another row of the page has; what is only of the page is no candidate.
    assert "list.append grows a list" not in found["list.copy copies a list"]
    assert {"list.copy copies a list", "sorted() returns a list"} <= found["list.append grows a list"]
    assert "a list.sort of note" not in found["list.append grows a list"]
    assert not (tmp_path / "out" / "_known").exists()


def test_files_share_what_they_know_of_the_queries_and_groups_that_several_have(tmp_path: Path) -> None:
    rows = {
        "a": [
            SourceRow("q", "one"),
            SourceRow("q", "two"),
            SourceRow("other", "three"),
            SourceRow("x", "y", ("n",), "g"),
        ],
        "b": [SourceRow("q", "four"), SourceRow("g", "five")],
        "c": [SourceRow("z", "six", (), "g")],
        "d": [],
    }
    for name, some in rows.items():
        write_known(str(tmp_path / name), some)
    write_shared(str(tmp_path), list(rows))
    shared = Known.read(str(tmp_path / SHARED))
    assert sorted(shared.of(query_key("q"))) == sorted(map(digest_of, ["one", "two", "four"]))
    assert sorted(shared.of(group_key("g"))) == sorted(map(digest_of, ["y", "n", "six"]))
    assert len(shared.keys) == 6
    write_shared(str(tmp_path), [])  # no file could be read
    assert Known.read(str(tmp_path / SHARED)).of(query_key("q")) == []


def test_what_was_stopped_goes_on(tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = write(tmp_path / "in", python=python_source(), shell=shell_source()), tmp_path / "out"
    mined(source, tmp_path / "whole")
    choose_all = jobs.training.mine.run.run_stage
    monkeypatch.setattr(
        jobs.training.mine.run,
        "run_stage",
        lambda stage, argument, items: choose_all(stage, argument, items[:1]),
    )
    with pytest.raises(StoppedError, match=r"1 part\(s\) are missing"):
        mined(source, output)
    [first] = parts(output)
    before = first.stat().st_mtime_ns
    monkeypatch.setattr(jobs.training.mine.run, "run_stage", choose_all)
    said = io.StringIO()
    mined(source, output, said=said)
    assert "2 source(s), 0 to be searched" in said.getvalue()
    assert first.stat().st_mtime_ns == before
    assert lists_of(output) == lists_of(tmp_path / "whole")


def test_exit_codes(tmp_path: Path, here: None) -> None:
    source = write(tmp_path / "in", python=python_source())

    def exit_code(output: str, *flags: str) -> int:
        arguments = ["mine", str(source), str(tmp_path / output), "--model", "embedded", *flags]
        return CliRunner().invoke(app, arguments).exit_code

    assert exit_code("a", "--max-errors", "2") == DONE
    assert exit_code("a", "--depth", "3") == REFUSED
    assert exit_code("a", "--depth", "3", "--overwrite") == DONE
    assert exit_code("b", "--max-errors", "1") == DONE_WITH_ERRORS
    assert exit_code("c", "--ranks", "30:2") == USAGE
    assert exit_code("c", "--positive-column", "right") == USAGE
    assert exit_code("c", "--negatives-column", "wrong") == USAGE
    twice = python_source().append_column("positive", pa.nulls(7, pa.string()))
    assert exit_code("c", "--corpus", str(write(tmp_path / "corpus", a=twice)), "--corpus-text", "positive") == USAGE
    pq.write_table(twice, source / "other.parquet")
    assert exit_code("d") == DONE_WITH_ERRORS


@pytest.mark.parametrize(("flag", "columns"), [("negatives", {"negatives": "hard"}), ("group", {"group": "page"})])
def test_an_optional_column_that_was_named_is_there_or_the_file_is_no_source(flag: str, columns: Any) -> None:
    """A misspelt name would have cost all negatives, or all groups, in silence."""
    schema = pa.schema({"query": pa.string(), "positive": pa.string()})
    assert why_no_source(schema, MiningColumns()) is None
    name = columns[flag]
    why = f"column `{name}` is missing; there are `query`, `positive`; name another with --{flag}-column"
    assert why_no_source(schema, MiningColumns(**columns)) == why


def test_negatives_are_chosen_by_rank_and_margin() -> None:
    """The positive (0) is third; 1 and 2 came with the row; 4 scores above 0.95 times the positive, as does 1."""
    scores = {3: 0.9, 1: 0.85, 0: 0.8, 4: 0.77, 5: 0.76, 6: 0.5, 7: 0.4, 2: 0.1}
    ranking = [ScoredDocument(place, score) for place, score in scores.items()]

    def chosen(rule: Rule) -> tuple[list[int], int]:
        found: Chosen = choose(ranking, 2, rule)
        return [one.place for one in found.negatives], found.false_negatives

    assert chosen(Rule(ranks=(2, 6))) == ([2, 5, 6], 2)
    assert chosen(Rule(ranks=(1, 100))) == ([2, 5, 6, 7], 3)
    assert chosen(Rule(ranks=(1, 100), negatives=2)) == ([2, 5], 3)
    assert chosen(Rule(ranks=(7, 7), margin=0.5)) == ([2, 7], 1)


@pytest.mark.parametrize("text", ["2", "a:b", "2:"])
def test_no_ranks(text: str) -> None:
    with pytest.raises(ConfigError, match="--ranks is"):
        parse_ranks(text)


@pytest.mark.parametrize("package", ["bm25s", "Stemmer"])
def test_without_what_bm25_needs_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"^BM25 needs .*: pip install bm25s PyStemmer \(the extra train"):
        mine(MineSettings(RerankSettings(str(tmp_path), str(tmp_path / "out"))))
