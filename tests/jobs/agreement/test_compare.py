"""`crossray compare` over outputs that jobs wrote: figures against a computation of the test's own."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from jobs.agreement.findings import Findings
from jobs.agreement.lists import ListPair, Ranked
from jobs.agreement.run import compare
from jobs.agreement.settings import CompareSettings
from jobs.cli import app
from jobs.errors import RefusedError, UnreadableFileError
from jobs.input.conditions import parse_condition
from jobs.table.columns import ColumnMapping
from pipelines.errors import ConfigError
from pipelines.evaluation.agreement import rank_biased_overlap
from pipelines.records import CandidateList, RankedDocument, Ranking
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import StubScorer
from tests.jobs.tables import parts, write_input

pytestmark = pytest.mark.usefixtures("without_ray")
QUERIES = 40


class OtherScorer(StubScorer):
    """The square of the stub's score for queries with an even number; else as the stub, but with the ends swapped."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        ranking = super().rerank_list(candidates)
        scored = ranking.documents
        if int(candidates.query.split()[-1]) % 2 == 0:
            documents = [replace(one, relevance_score=one.relevance_score**2) for one in scored]
        else:
            scores = [one.relevance_score for one in scored]
            order = [scored[-1], *scored[1:-1], scored[0]]
            documents = [replace(one, relevance_score=score) for one, score in zip(order, scores, strict=True)]
        return replace(ranking, documents=documents)


def log(count: int = QUERIES, first: int = 0) -> pa.Table:
    """Lists of six documents with ids."""
    numbers = range(first, first + count)
    documents = [[{"id": f"d{i}-{j}", "text": f"<b>text {i} {j}</b>"} for j in range(6)] for i in numbers]
    return pa.table({"query_id": list(numbers), "query": [f"query {i}" for i in numbers], "documents": documents})


def compared(tmp_path: Path, **settings: Any) -> tuple[dict[str, Any], str]:
    """Results and what was printed, of the runs in `a` and `b`."""
    said = StringIO()
    found = compare(
        CompareSettings(str(tmp_path / "a"), str(tmp_path / "b"), **settings), Console(file=said, width=200)
    )
    return found, said.getvalue()


def rankings(output: Path) -> dict[int, list[dict[str, Any]]]:
    """By query id."""
    rows = [row for part in sorted(output.glob("part-*")) for row in pq.read_table(part).to_pylist()]
    return {row["query_id"]: row["ranking"] for row in rows}


@pytest.fixture
def runs(tmp_path: Path, run_job: RunJob) -> Path:
    """Two runs over the same two files."""
    source = write_input(tmp_path / "in", one=log(), two=log(10, first=QUERIES))
    run_job(source, tmp_path / "a")
    run_job(source, tmp_path / "b", scorer_class=OtherScorer)
    return tmp_path


def test_figures_are_those_of_all_lists(runs: Path) -> None:
    found, printed = compared(runs, output=str(runs / "c"))
    a, b = rankings(runs / "a"), rankings(runs / "b")
    assert found["lists"] == len(a) == QUERIES + 10
    assert found["rows"] == {"both": 50, "only_a": 0, "only_b": 0}

    orders = {one: tuple([hit["index"] for hit in run[one]] for run in (a, b)) for one in a}
    rbo = [rank_biased_overlap(*order) for order in orders.values()]
    assert found["measures"]["rbo"]["mean"] == pytest.approx(np.mean(rbo))
    assert found["measures"]["overlap@1"]["mean"] == 0.5, "lists with an even number keep their order"
    assert found["measures"]["kendall_tau"]["q95"] == pytest.approx(1)

    score_of = [{(one, hit["index"]): hit["relevance_score"] for one in run for hit in run[one]} for run in (a, b)]
    shifts = np.array([score_of[1][place] - score_of[0][place] for place in score_of[0]])
    scores = found["scores"]
    assert scores["documents"] == 300
    assert scores["mean_b"] - scores["mean_a"] == pytest.approx(shifts.mean(), abs=1e-6)
    assert scores["mean_absolute_shift"] == pytest.approx(np.abs(shifts).mean(), abs=1e-6)
    for name, share in (("0.05", 0.05), ("0.5", 0.5), ("0.95", 0.95)):
        assert scores["shift_quantiles"][name] == pytest.approx(
            np.quantile(shifts, share, method="inverted_cdf"), abs=0.002
        )
    half = scores["thresholds"][4]
    values = [np.array([one[place] for place in score_of[0]]) for one in score_of]
    assert half["share_a"] == pytest.approx((values[0] >= 0.5).mean())
    assert half["only_a"] == pytest.approx(((values[0] >= 0.5) & (values[1] < 0.5)).mean())
    assert (values[1] >= half["same_share_in_b"]).mean() == pytest.approx(half["share_a"], abs=0.01)

    assert json.loads((runs / "c" / "results.json").read_text())["measures"] == found["measures"]
    lists = pq.read_table(runs / "c" / "lists.parquet")
    assert sorted(lists["rbo"].to_pylist()) == pytest.approx(sorted(rbo))
    report = (runs / "c" / "report.html").read_text()
    assert "<b>text" not in report
    assert "&lt;b&gt;text 1 0&lt;/b&gt;" in report, "the texts of a list that changed, as text"
    assert "50 lists" in printed


def test_overlaps_end_where_top_n_cut_a_run_off(runs: Path, run_job: RunJob) -> None:
    run_job(str(runs / "in"), runs / "cut", top_n=3)
    found = compare(CompareSettings(str(runs / "a"), str(runs / "cut")), Console(quiet=True))
    assert list(found["measures"]) == ["kendall_tau", "rbo", "overlap@1", "overlap@3"]
    assert found["measures"]["overlap@3"]["mean"] == 1.0
    assert "down to place 3" in found["careful"][0]


def test_a_run_agrees_with_itself(runs: Path) -> None:
    found = compare(CompareSettings(str(runs / "a"), str(runs / "a")), Console(quiet=True))
    assert found["measures"]["rbo"]["mean"] == pytest.approx(1)
    assert found["scores"]["mean_absolute_shift"] == 0
    assert found["scores"]["correlation"] == pytest.approx(1)
    assert found["changed_settings"] == found["careful"] == []
    assert all(one["same_share_in_b"] == one["threshold"] for one in found["scores"]["thresholds"])


def test_a_list_whose_order_stayed_is_none_that_changed() -> None:
    """Of identical lists of some lengths, rank-biased overlap is rounded to below 1; one may end before the other."""
    findings = Findings(movers=20)
    for length in range(1, 60):
        documents, scores = np.arange(length), np.linspace(0.9, 0.1, length)
        whole, cut = (Ranked(documents[:end], documents[:end], scores[:end]) for end in (length, length - 1))
        for second in (whole, cut):
            findings.add(ListPair(np.zeros((1, 4), np.int64), whole, second))
    assert findings.movers == []
    turned = Ranked(documents[::-1], documents[::-1], scores)
    findings.add(ListPair(np.zeros((1, 4), np.int64), whole, turned))
    assert [mover.pair.second for mover in findings.movers] == [turned]


def test_units_of_other_sizes_have_the_same_rows(
    tmp_path: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_input(tmp_path / "in", one=log())
    run_job(source, tmp_path / "a")
    monkeypatch.setattr("jobs.input.cutting.MIN_UNIT_BYTES", 1)
    monkeypatch.setattr("jobs.input.cutting.UNIT_BYTES", 1000)
    run_job(source, tmp_path / "b", limit=20)
    assert len(parts(tmp_path / "b")) > len(parts(tmp_path / "a"))
    found, printed = compared(tmp_path)
    assert found["rows"] == {"both": 20, "only_a": 20, "only_b": 0}
    assert found["measures"]["rbo"]["mean"] == pytest.approx(1)
    assert "20 row(s) are in A alone" in printed
    assert "--limit was None, is 20" in printed


def test_rows_that_conditions_took_are_matched_if_they_took_the_same(tmp_path: Path, run_job: RunJob) -> None:
    source = write_input(tmp_path / "in", one=log())
    odd = (parse_condition("query_id >= 7"),)
    run_job(source, tmp_path / "a", where=odd)
    run_job(source, tmp_path / "b", where=odd)
    found, _ = compared(tmp_path)
    assert found["rows"] == {"both": QUERIES - 7, "only_a": 0, "only_b": 0}
    assert found["measures"]["rbo"]["mean"] == pytest.approx(1)
    run_job(source, tmp_path / "all")
    with pytest.raises(ConfigError, match="RUN_A has --where 'query_id >= 7', RUN_B nothing: their rows cannot"):
        compare(CompareSettings(str(tmp_path / "a"), str(tmp_path / "all")))


def test_rows_that_conditions_took_of_other_units_need_a_key(
    tmp_path: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that ends within a unit moves no start."""
    source = write_input(tmp_path / "in", one=log())
    odd = (parse_condition("query_id >= 7"),)
    run_job(source, tmp_path / "a", where=odd)
    run_job(source, tmp_path / "cut", where=odd, limit=20)
    found = compare(CompareSettings(str(tmp_path / "a"), str(tmp_path / "cut")), Console(quiet=True))
    assert found["rows"] == {"both": 13, "only_a": 20, "only_b": 0}
    assert found["measures"]["rbo"]["mean"] == pytest.approx(1)
    monkeypatch.setattr("jobs.input.cutting.MIN_UNIT_BYTES", 1)
    monkeypatch.setattr("jobs.input.cutting.UNIT_BYTES", 1000)
    run_job(source, tmp_path / "b", where=odd)
    assert len(parts(tmp_path / "b")) > len(parts(tmp_path / "a"))
    for first, second in ("ab", "ba"):
        with pytest.raises(ConfigError, match=r"into units that begin at different rows.* give --key COLUMN"):
            compare(CompareSettings(str(tmp_path / first), str(tmp_path / second)), Console(quiet=True))
    found, _ = compared(tmp_path, key="query_id")
    assert found["rows"] == {"both": QUERIES - 7, "only_a": 0, "only_b": 0}


def test_a_key_matches_rows_and_ids_match_documents(tmp_path: Path, run_job: RunJob) -> None:
    table = log()
    turned = [documents[::-1] for documents in table["documents"].to_pylist()]
    other = table.set_column(2, "documents", pa.array(turned)).slice(5).take(np.arange(35)[::-1])
    run_job(write_input(tmp_path / "in-a", one=table), tmp_path / "a")
    run_job(write_input(tmp_path / "in-b", other=other), tmp_path / "b")
    with pytest.raises(ConfigError, match=r"no input file in common .* give --key COLUMN"):
        compared(tmp_path)
    found, _ = compared(tmp_path, key="query_id")
    assert found["rows"] == {"both": 35, "only_a": 5, "only_b": 0}
    assert found["measures"]["rbo"]["mean"] == pytest.approx(1), "the same texts, in another order of the input"


def test_values_that_no_one_row_has_are_counted(tmp_path: Path, run_job: RunJob) -> None:
    ids = pa.array([0, 0, None, *range(3, QUERIES)])
    run_job(write_input(tmp_path / "in", one=log().set_column(0, "query_id", ids)), tmp_path / "a")
    run_job(write_input(tmp_path / "in-b", one=log()), tmp_path / "b")
    found, printed = compared(tmp_path, key="query_id")
    assert found["rows"]["both"] == QUERIES - 3
    assert "2 row(s) share a value of query_id" in printed
    assert "1 row(s) have no value of query_id" in printed
    with pytest.raises(ConfigError, match="--key is 'nothing', which is no column of"):
        compared(tmp_path, key="nothing")
    run_job(
        write_input(tmp_path / "same", one=log().set_column(0, "query_id", pa.array([7] * QUERIES))), tmp_path / "c"
    )
    with pytest.raises(ConfigError, match=r"no row in common \(of query_id: .*42 row\(s\) share a value"):
        compare(CompareSettings(str(tmp_path / "a"), str(tmp_path / "c"), key="query_id"), Console(quiet=True))


def test_pairs_are_lists_of_their_queries(tmp_path: Path, run_job: RunJob) -> None:
    rows = [(row["query_id"], row["query"], hit["text"]) for row in log(8).to_pylist() for hit in row["documents"]]
    random = np.random.default_rng(0)
    rows = [rows[i] for i in random.permutation(len(rows))]
    table = pa.table(dict(zip(("query_id", "query", "document"), map(list, zip(*rows, strict=True)), strict=True)))
    source = write_input(tmp_path / "in", one=table)
    run_job(source, tmp_path / "a")
    run_job(source, tmp_path / "b", scorer_class=SquaringScorer)
    found, _ = compared(tmp_path, output=str(tmp_path / "c"))
    assert found["lists"] == 8
    assert found["measures"]["rbo"]["mean"] == pytest.approx(1), "a square keeps the order"
    assert found["scores"]["documents"] == 48
    scores = [pq.read_table(tmp_path / run)["relevance_score"].to_numpy() for run in "ab"]
    assert found["scores"]["mean_absolute_shift"] == pytest.approx(np.abs(scores[1] - scores[0]).mean(), abs=1e-6)


def test_pairs_without_an_id_are_lists_of_their_queries(tmp_path: Path, run_job: RunJob) -> None:
    rows = [(row["query"], hit["text"]) for row in log(8).to_pylist() for hit in row["documents"]]
    queries, documents = map(list, zip(*rows, strict=True))
    some_ids = ["one list" if place < 12 else None for place in range(len(rows))]
    for name, ids, lists in (("none", [None] * len(rows), 8), ("some", some_ids, 7)):
        table = pa.table({"query_id": pa.array(ids, pa.string()), "query": queries, "document": documents})
        run_job(write_input(tmp_path / f"in-{name}", one=table), tmp_path / name)
        found = compare(CompareSettings(*[str(tmp_path / name)] * 2), Console(quiet=True))
        assert found["lists"] == lists


class SquaringScorer(StubScorer):
    """The square of the stub's score."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        ranking = super().rerank_list(candidates)
        squared = [RankedDocument(one.index, one.relevance_score**2, one.document) for one in ranking.documents]
        return replace(ranking, documents=squared)


def test_rows_without_a_ranking_are_counted_by_reason(tmp_path: Path, run_job: RunJob) -> None:
    table = log(4)
    with_null = table.set_column(1, "query", pa.array(["query 0", None, "query 2", "query 3"]))
    nulls = [[None, *row[1:]] for row in table["documents"].to_pylist()]
    source = write_input(tmp_path / "in", one=with_null.set_column(2, "documents", pa.array(nulls)))
    run_job(source, tmp_path / "a")
    run_job(source, tmp_path / "b", mapping=ColumnMapping(strict_documents=True))
    found, printed = compared(tmp_path)
    assert found["lists"] == 0
    assert found["unranked"] == {"only_a": {}, "only_b": {"null_document": 3}, "both": {"null_query": 1}}
    assert "3 row(s) have no ranking in B: null_document 3" in printed


def test_results_replace_nothing_that_no_comparison_wrote(runs: Path) -> None:
    """Such as the results of an evaluation, which --gate-against reads."""
    for name, content in (
        ("report.html", "mine"),
        ("results.json", '{"sets": {"scifact": {}}}'),
        ("results.json", "no JSON"),
        ("lists.parquet", "mine"),
    ):
        output = runs / "other"
        output.mkdir(exist_ok=True)
        (output / name).write_text(content)
        with pytest.raises(RefusedError, match=f"holds a {name} that no comparison wrote; give another directory"):
            compared(runs, output=str(output))
        assert [path.read_text() for path in output.iterdir()] == [content]
        (output / name).unlink()
    for movers in (1, 2):
        compared(runs, output=str(runs / "c"), movers=movers)
        assert (runs / "c" / "report.html").exists()


def test_what_cannot_be_compared_is_a_usage_error(runs: Path, run_job: RunJob) -> None:
    pq.write_table(log(3), runs / "in" / "one.parquet")
    run_job(runs / "in", runs / "changed")
    for second, message in (("nothing", "where no job has written"), ("changed", "changed between the runs")):
        ended = CliRunner().invoke(app, ["compare", str(runs / "a"), str(runs / second)])
        assert ended.exit_code == 2, ended.output
        assert message in " ".join(ended.output.split())
    for output in ("a", "b"):
        ended = CliRunner().invoke(app, ["compare", *(str(runs / run) for run in "ab"), "--output", str(runs / output)])
        assert ended.exit_code == 3, ended.output
        assert "holds the output of a job" in " ".join(ended.output.split())
    (runs / "other").mkdir()
    (runs / "other" / "_manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"RUN_B is .*/other', whose _manifest.json is damaged or of another command"):
        compare(CompareSettings(str(runs / "a"), str(runs / "other")), Console(quiet=True))
    stranger = parts(runs / "changed")[0]
    pq.write_table(pa.table({"query": [f"query {i}" for i in range(3)]}), stranger)
    with pytest.raises(UnreadableFileError, match="has no column `ranking`, and is no part of a job"):
        compare(CompareSettings(str(runs / "changed"), str(runs / "changed")), Console(quiet=True))
    part = parts(runs / "b")[0]
    part.write_bytes(part.read_bytes()[:-100])
    ended = CliRunner().invoke(app, ["compare", str(runs / "a"), str(runs / "b")])
    assert ended.exit_code == 4
    assert part.name in ended.output
