"""Evaluations of small sets by the real command: its rows, its files, and what it does when it is given again."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.errors import ConfigError
from pipelines.evaluation.measures import values_by_query
from pipelines.reranker import Reranker
from tests.checkpoints import words
from tests.pipelines.evaluation.test_sets import write_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of twelve queries in two languages with eight candidates each, of which the last is the right one."""
    folder = tmp_path_factory.mktemp("sets") / "small"
    documents = [{"id": f"d{i}", "text": words(8, seed=i)} for i in range(96)]
    queries = [{"id": f"q{i}", "text": words(3, seed=100 + i), "lang": "de" if i % 3 else "en"} for i in range(12)]
    candidates = [{"query_id": f"q{i}", "documents": documents[8 * i : 8 * i + 8]} for i in range(12)]
    qrels = "".join(f"q{i}\td{8 * i + 7}\t1\n" for i in range(12)) + "q99\td1\t1\n"
    write_set(folder, queries=queries, corpus=documents, candidates=candidates, qrels=qrels)
    (folder / "meta.json").write_text('{"measure": "MRR@10", "queries": 12}')
    return folder


def evaluate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "140", "TERM": "dumb"})


def test_models_and_baselines_are_measured_over_the_same_queries(
    folder: Path, tmp_path: Path, cluster: str, bert_directory: Path
) -> None:
    output = tmp_path / "out"
    arguments = (folder, "--model", bert_directory, "--baseline", "bm25", "--output", output)
    done = evaluate(*arguments, "--address", cluster)
    assert done.exit_code == 0, done.output
    results = json.loads((output / "results.json").read_text())["sets"]["small"]
    assert list(results["rows"]) == ["first stage", "bm25", str(bert_directory), "best possible"]
    assert (results["queries"], results["problems"], results["unanswered"][str(bert_directory)]) == (12, 1, 0)
    assert results["measures"] == ["MRR@10", "nDCG@10", "recall@10", "recall@3"]  # its own measure is the first one
    assert results["judged_by"] == "qrels"
    header = next(line for line in done.output.splitlines() if "95% interval" in line)
    assert header.index("MRR@10") < header.index("nDCG@10")
    assert results["first_problems"] == [f"{folder}/qrels.tsv, line 13: there is no query 'q99'"]
    assert results["rows"]["first stage"]["MRR@10"]["mean"] == pytest.approx(1 / 8)
    assert results["rows"]["best possible"]["nDCG@10"]["mean"] == 1.0

    reranker = Reranker.load(str(bert_directory), device="cpu")
    rows = pq.read_table(folder / "candidates.parquet").to_pylist()
    order = {}
    for row, query in zip(rows, map(json.loads, (folder / "queries.jsonl").read_text().splitlines()), strict=True):
        ranked = reranker.rerank(query["text"], [document["text"] for document in row["documents"]])
        order[row["query_id"]] = [row["documents"][one.index]["id"] for one in ranked]
    expected = values_by_query("nDCG@10", {f"q{i}": {f"d{8 * i + 7}": 1} for i in range(12)}, order)
    values = pq.read_table(output / "values.parquet").to_pylist()
    ours = {
        one["query_id"]: one["value"]
        for one in values
        if (one["row"], one["measure"]) == (str(bert_directory), "nDCG@10")
    }
    assert ours == pytest.approx(expected)

    assert {language: one["queries"] for language, one in results["languages"].items()} == {"de": 8, "en": 4}
    pairs = {(one["from"], one["to"]) for one in results["differences"] if one["measure"] == "nDCG@10"}
    assert len(pairs) == 3
    assert all(one["p"] <= one["p_holm"] <= 1 for one in results["differences"])
    speed = results["systems"][str(bert_directory)]["speed"]
    assert (speed["sets"], speed["pairs"], speed["why_not"]) == (1, 96, None)
    assert speed["pairs_per_second"] == pytest.approx(96 / speed["seconds"], rel=0.1)  # of seconds in milliseconds
    assert 50_000_000 < speed["peak_memory"] < 50_000_000_000
    assert results["systems"]["bm25"]["speed"] is None
    report = (output / "report.html").read_text()
    assert f"{results['rows']['first stage']['nDCG@10']['mean']:.3f}" in report
    assert speed["started"].partition("T")[0] in report
    assert f"To read and to send: {output}/report.html" in " ".join(done.output.split())
    assert "small: 12 queries" in done.output
    assert "careful: 1 line(s) of small are left out" in done.output

    gate = tmp_path / "gate.toml"
    gate.write_text('[small]\n"P@1" = 0.0\n"nDCG@10" = 0.99\n')
    gated = evaluate(*arguments, "--gate", gate, "--address", cluster)
    assert gated.exit_code == 5, gated.output
    value = results["rows"][str(bert_directory)]["nDCG@10"]["mean"]
    told = f"missed: {bert_directory}: nDCG@10 of small is {value:.4f}, and has to be 0.99\n"
    assert told in gated.output
    assert gated.output.count("missed: ") == 1
    gate.write_text('[small]\n"nDCG@10" = 0.0\n')
    assert evaluate(*arguments, "--gate", gate, "--address", cluster).exit_code == 0

    before = tmp_path / "before" / "results.json"
    write_earlier_values(before, values, raised_by=0.2)
    against = evaluate(*arguments, "--gate-against", before, "--address", cluster)
    assert against.exit_code == 5, against.output
    assert re.search(
        r"nDCG@10 of small fell from [\d.]+ to [\d.]+ over the same 12 queries \(p < 0.001\)", against.output
    )
    assert evaluate(*arguments, "--gate-against", output / "results.json", "--address", cluster).exit_code == 0

    parts = {path: path.stat().st_mtime_ns for path in output.rglob("part-*.parquet")}
    assert parts
    again = evaluate(*arguments, "--address", cluster)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in output.rglob("part-*.parquet")} == parts
    resumed = json.loads((output / "results.json").read_text())["sets"]["small"]
    assert (resumed["rows"], resumed["systems"]) == (results["rows"], results["systems"])

    refused = evaluate(*arguments, "--top-k", 5, "--address", cluster)
    assert refused.exit_code == 3
    assert "lists.parquet holds other candidates, such as of another --queries or --top-k" in refused.output
    assert {path: path.stat().st_mtime_ns for path in output.rglob("part-*.parquet")} == parts
    assert evaluate(*arguments, "--address", cluster).exit_code == 0


def write_earlier_values(results: Path, values: list[dict[str, Any]], raised_by: float) -> None:
    """Those of an evaluation in which every query was better."""
    results.parent.mkdir()
    raised = [one | {"value": one["value"] + raised_by} for one in values]
    pq.write_table(pa.Table.from_pylist(raised), results.parent / "values.parquet")


def test_an_earlier_evaluation_of_something_else_is_a_usage_error(folder: Path, tmp_path: Path) -> None:
    values = [
        {"set": "small", "row": "other", "measure": "nDCG@10", "query_id": f"q{i}", "asked": "a", "value": 1.0}
        for i in (0, 1)
    ]
    write_earlier_values(tmp_path / "before" / "results.json", values, raised_by=0)
    arguments = (folder, "--model", "embedded", "--output", tmp_path / "out", "--gate-against")
    for place, message in (
        (tmp_path / "before", "has no row embedded; it has other"),
        (tmp_path / "nothing", "give the results.json that an evaluation wrote"),
        (folder, "give the results.json that an evaluation wrote"),
    ):
        done = evaluate(*arguments, place)
        assert done.exit_code == 2, done.output
        assert message in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "told"),
    [("high", "cannot be read: .*'high'"), (None, "values that are null, and is no values of an eval")],
)
def test_an_earlier_evaluation_with_values_of_another_kind_is_a_usage_error(
    tmp_path: Path, value: str | None, told: str
) -> None:
    from jobs.evaluation.falls import read_before

    row = {"set": "small", "row": "embedded", "measure": "nDCG@10", "query_id": "q1", "asked": "a", "value": value}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "values.parquet")
    with pytest.raises(ConfigError, match=told):
        read_before(str(tmp_path / "results.json"))


def test_an_earlier_evaluation_of_other_queries_is_no_pass() -> None:
    """Other queries are also those of the same id and other texts, as of logs whose files are called alike."""
    from jobs.evaluation.falls import Before, falls

    place = ("small", "embedded", "nDCG@10")
    before = Before("before/results.json", {place: {("q1", "a"): 1.0, ("q2", "a"): 1.0, ("q3", "a"): 1.0}})
    told, not_compared = falls(before, {place: {("q3", "b"): 1.0, ("q4", "a"): 1.0}}, ["embedded"])
    assert told == [
        "embedded: before/results.json has no query that is measured now over the same texts, candidates and grades, "
        "so nothing can be compared"
    ]
    assert not_compared == []
    now = {("q1", "a"): 1.0, ("q2", "a"): 1.0, ("q4", "a"): 1.0}
    assert falls(before, {place: now, ("new", *place[1:]): now}, ["embedded"]).not_compared == [
        "embedded: 1 of 3 queries of small are not compared by nDCG@10: before/results.json does not have them, or "
        "over other texts, candidates or grades",
        "embedded: 3 of 3 queries of new are not compared by nDCG@10: before/results.json does not have them, or "
        "over other texts, candidates or grades",
    ]


def test_every_figure_of_every_set_is_asked_of_every_model() -> None:
    from jobs.evaluation.gate import missed

    figures = {"rows": {name: {measure: {"mean": 0.4} for measure in ("nDCG@10", "P@1")} for name in ("a", "b")}}
    gate = {"first": {"nDCG@10": 0.5, "P@1": 0.5}, "second": {"nDCG@10": 0.3, "P@1": 0.6}}
    told = missed(gate, {"sets": dict.fromkeys(gate, figures)}, ["a", "b"])
    assert [line.partition(" is ")[0] for line in told] == [
        "a: nDCG@10 of first",
        "b: nDCG@10 of first",
        "a: P@1 of first",
        "b: P@1 of first",
        "a: P@1 of second",
        "b: P@1 of second",
    ]


def test_bm25_counts_the_words_of_queries_in_the_corpus_if_it_has_texts(tmp_path: Path) -> None:
    """Else those of the lists, where the texts are then."""
    from rich.console import Console

    from jobs.evaluation.counted import counted_words
    from jobs.training.label.frequencies import read_frequencies
    from pipelines.evaluation.sets import read_set

    texts = ["first second other", "first", "other third"]
    corpus = [{"id": f"d{i}", "text": text} for i, text in enumerate([*texts, ""])]
    one, room = read_set(write_set(tmp_path / "mine", corpus=corpus)), str(tmp_path / "room")
    counted = counted_words(one, room, Console())
    assert counted is not None
    found = read_frequencies(counted)
    assert (found.documents, found.words, dict(found.containing)) == (4, 6, {"first": 2, "second": 1})
    asked = {**one.queries, "q1": replace(one.queries["q1"], text="other")}
    assert counted_words(replace(one, queries=asked), room, Console()) != counted == counted_words(one, room, Console())
    bare = read_set(write_set(tmp_path / "bare", corpus=[{"id": f"d{i}"} for i in range(4)]))
    assert counted_words(bare, room, Console()) is None


def of_all_queries(value: float, sets: int, models: int, queries: int) -> dict[Any, Any]:
    """The same value of every query, by four measures."""
    places = product(range(sets), range(models), ("nDCG@10", "recall@10", "recall@3", "MRR@10"))
    return {
        (f"set {one}", f"model {row}", measure): {(f"q{i}", "a"): value for i in range(queries)}
        for one, row, measure in places
    }


@pytest.mark.parametrize(("sets", "models", "queries"), [(13, 5, 14), (1, 1, 7), (1, 1, 40)])
def test_a_fall_of_every_query_is_seen_however_many_are_compared(sets: int, models: int, queries: int) -> None:
    from jobs.evaluation.falls import Before, falls

    before = Before("before", of_all_queries(1.0, sets, models, queries))
    found = falls(before, of_all_queries(0.0, sets, models, queries), [f"model {i}" for i in range(models)])
    assert len(found.told) == 4 * sets * models
    assert "model 0: nDCG@10 of set 0 fell from 1.0000 to 0.0000 over the same" in found.told[0]
    assert found.not_compared == []


def test_too_few_queries_to_see_any_fall_are_no_pass() -> None:
    from jobs.evaluation.falls import Before, falls

    same = of_all_queries(1.0, 1, 1, 5)
    assert falls(Before("before", same), same, ["model 0"]).told == [
        "model 0: at most 5 queries of a set are the same as in before, too few to tell a fall from chance in 4 "
        "comparisons; give more queries, or fewer measures"
    ]


def test_what_is_asked_of_an_order_is_its_query_candidates_and_grades(tmp_path: Path) -> None:
    from jobs.evaluation.falls import asked
    from pipelines.evaluation.sets import LISTS, Query, read_set

    one = read_set(write_set(tmp_path / "small"))
    [query, *_] = one.grades
    rows = one.candidates.to_pylist()
    rows[0]["documents"].reverse()
    changed = (
        replace(one, queries={**one.queries, query: Query("another", None)}),
        replace(one, grades={**one.grades, query: {**one.grades[query], "d0": 9}}),
        replace(one, candidates=pa.Table.from_pylist(rows, schema=LISTS)),
    )
    assert asked(read_set(tmp_path / "small")) == asked(one)
    assert rows[0]["query_id"] == query
    assert len({asked(other)[query] for other in (one, *changed)}) == 4


def test_rows_beside_a_model_do_not_change_how_sure_its_difference_to_the_first_stage_is() -> None:
    """Of three rows, each is one of three tests against the first stage, and of three against another."""
    from jobs.evaluation.comparison import Compared, differences

    rng = random.Random(3)
    rows = ("first stage", "a", "b", "c", "best possible")
    values = {row: {"nDCG@10": {f"q{i}": rng.random() for i in range(20)}} for row in rows}
    found = differences(Compared(values, {}))
    for family in (
        [one for one in found if one["from"] == "first stage"],
        [one for one in found if one["from"] != "first stage"],
    ):
        assert len(family) == 3
        least = min(family, key=lambda one: one["p"])
        assert least["p_holm"] == pytest.approx(min(1.0, 3 * least["p"]))


def test_a_set_is_called_by_its_folder_whatever_path_leads_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name its lists would lie beside the results, or above them."""
    from pipelines.evaluation.sets import read_set

    folder = write_set(tmp_path / "small")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder)
    assert {read_set(Path(place)).name for place in (".", "below/..", f"{folder}/")} == {"small"}


def test_a_question_without_an_answer_among_the_candidates_counts_0(tmp_path: Path) -> None:
    from jobs.evaluation.comparison import as_results, compare
    from pipelines.evaluation.sets import read_set

    folder = write_set(tmp_path / "asked")
    (folder / "qrels.tsv").unlink()
    (folder / "answers.jsonl").write_text('{"id": "q1", "answers": ["1"]}\n{"id": "q2", "answers": ["9"]}\n')
    order = {"q1": ["d1", "d0"], "q2": ["d1", "d0"]}
    results = as_results(compare(read_set(folder), ["q1", "q2"], {"model": order}, ["Success@1", "Success@10"]))
    means = {row: [one["mean"] for one in of_row.values()] for row, of_row in results["rows"].items()}
    assert means == {"first stage": [0.0, 0.5], "model": [0.5, 0.5], "best possible": [0.5, 0.5]}


def test_a_measure_of_meta_json_that_there_is_not_is_a_usage_error(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "asked")
    (folder / "meta.json").write_text('{"measure": "quality"}')
    done = evaluate(folder, "--baseline", "bm25", "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "meta.json of asked has the measure 'quality', which ir_measures has not" in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("{set}",), "nothing to evaluate is given; give --model, --baseline"),
        (("{set}", "--baseline", "best"), "--baseline is 'best'; give bm25, dense:DIR"),
        (("{set}", "--baseline", "bm25", "--measure", "quality"), "--measure is 'quality'; give nDCG@10"),
        (("{set}", "--baseline", "bm25", "--queries", "1"), "--queries is 1; it is at least 2"),
        (("{set}", "{set}", "--baseline", "bm25"), "two sets are called small; rename the folder of one"),
        (("{set}", "--baseline", "bm25", "--model", "bm25"), "two rows would be called 'bm25'; call the model by anot"),
        (("{set}", "--model", "first stage"), "two rows would be called 'first stage'"),
        (("{set}/none", "--baseline", "bm25"), "is no benchmark set: it has no queries.jsonl"),
        (("{set}", "--baseline", "bm25", "--label-column", "clicks"), "--label-column is of logs"),
    ],
)
def test_what_cannot_be_evaluated_is_a_usage_error(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = evaluate(*(one.format(set=folder) for one in arguments), "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_results_replace_nothing_that_no_evaluation_wrote(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a set do not go into the set itself either."""
    monkeypatch.setattr("jobs.evaluation.run.ray_session", lambda *_: pytest.fail("Ray was started"))
    for name, content in (("report.html", "mine"), ("results.json", "[1]"), ("values.parquet", "mine")):
        output = tmp_path / name.partition(".")[0]
        output.mkdir()
        (output / name).write_text(content)
        done = evaluate(folder, "--baseline", "bm25", "--output", output)
        assert done.exit_code == 3
        assert f"holds a {name} that no evaluation wrote" in " ".join(done.output.split())
        assert [path.read_text() for path in output.iterdir()] == [content]
    before = sorted(folder.iterdir())
    done = evaluate(folder, "--baseline", "bm25", "--output", folder.parent)
    assert done.exit_code == 3
    assert "is a benchmark set" in " ".join(done.output.split())
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    "system", [("--model", "not-there/"), ("--model", "embedded", "--baseline", "dense:not-there/")]
)
def test_a_model_that_is_not_there_is_named_before_ray_starts(
    folder: Path, tmp_path: Path, system: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.evaluation.run.ray_session", lambda *_: pytest.fail("Ray was started"))
    done = evaluate(folder, *system, "--output", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert "not-there" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[other]\n"nDCG@10" = 0.5\n', "--gate has [other], which is no SET of this evaluation; these are small"),
        ('[small]\n"nDCG@10" = 50\n', "nDCG@10 of [small] is 50; it is a number in 0..1"),
        ("[small]\nquality = 0.5\n", "--measure is 'quality'; give nDCG@10"),
        ("nDCG = 0.5\n", "give a table for each set"),
        ("", "asks for nothing"),
        ("[small\n", "cannot be read"),
        ("a = " + "[" * 5000, "cannot be read"),
    ],
)
def test_a_gate_that_asks_for_nothing_that_is_measured_is_a_usage_error(
    folder: Path, tmp_path: Path, content: str, told: str
) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text(content)
    done = evaluate(folder, "--model", "embedded", "--gate", gate, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())


def test_with_other_lists_nothing_stays_of_what_was_scored(tmp_path: Path) -> None:
    """Also of systems that are not asked for this time, or whose turn a killed run did not come to."""
    from jobs.errors import RefusedError
    from jobs.evaluation.run import write_lists

    lists, scored = tmp_path / "lists.parquet", tmp_path / "systems" / "bm25" / "_manifest.json"
    write_lists(str(lists), False, pa.table({"query_id": ["q1"]}))
    scored.parent.mkdir(parents=True)
    scored.write_text("{}")
    write_lists(str(lists), True, pa.table({"query_id": ["q1"]}))
    with pytest.raises(RefusedError, match="holds other candidates"):
        write_lists(str(lists), False, pa.table({"query_id": ["q2"]}))
    assert scored.exists()
    write_lists(str(lists), True, pa.table({"query_id": ["q2"]}))
    assert not scored.exists()
    assert pq.read_table(lists)["query_id"].to_pylist() == ["q2"]


def test_files_that_no_evaluation_wrote_stay_where_lists_and_scores_would_lie(tmp_path: Path) -> None:
    """Unless --overwrite says that they may go."""
    from jobs.errors import RefusedError
    from jobs.evaluation.run import write_lists

    table = pa.table({"query_id": ["q1"]})
    mine = tmp_path / "systems" / "thesis.tsv"
    mine.parent.mkdir()
    mine.write_text("mine")
    lists = tmp_path / "lists.parquet"
    with pytest.raises(RefusedError, match="systems holds files that no evaluation wrote; give another --output"):
        write_lists(str(lists), False, table)
    assert mine.read_text() == "mine"
    lists.write_text("no Parquet")
    with pytest.raises(RefusedError, match=r"lists.parquet.*; give another --output, or --overwrite to replace it"):
        write_lists(str(lists), False, table)
    assert (lists.read_text(), mine.read_text()) == ("no Parquet", "mine")
    write_lists(str(lists), True, table)
    assert pq.read_table(lists) == table
    assert not mine.exists()


def test_drawn_queries_are_the_same_each_time(folder: Path) -> None:
    from jobs.evaluation.run import drawn_queries
    from pipelines.evaluation.sets import read_set

    one = read_set(folder)
    assert drawn_queries(one, None) == drawn_queries(one, 50) == sorted(f"q{i}" for i in range(12))
    assert drawn_queries(one, 5) == drawn_queries(one, 5)
    assert len(set(drawn_queries(one, 5))) == 5


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ir_measures", None)
    with pytest.raises(ConfigError, match=r"pip install ir-measures scipy \(the extra evaluate of crossray\)"):
        values_by_query("nDCG@10", {}, {})
