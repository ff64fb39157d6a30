"""The report of an evaluation whose scores are made up: its numbers, what strangers wrote in it, and how it looks."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import jobs.evaluation.report.published
from jobs.evaluation.account import Account, origin, speed_of, why_no_speed
from jobs.evaluation.comparison import as_results, compare
from jobs.evaluation.details import ScoredPairs, about_scores, by_length
from jobs.evaluation.report.build import report
from jobs.evaluation.report.published import Figure, comparable_figures
from jobs.evaluation.systems import System, best_first
from jobs.training.label.teachers import Kind, Teacher
from pipelines.evaluation.sets import BenchmarkSet, read_set
from tests.browser import CONTRAST_AA, CONTRASTS, chromium, emulate
from tests.pipelines.evaluation.test_sets import write_set

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
MEASURES = ("nDCG@10", "recall@10", "MRR@10")
FAST = {
    "pairs": 400,
    "seconds": 4.0,
    "pairs_per_second": 100.0,
    "tokens": 8000,
    "chunks": 400,
    "chunks_reused": 0,
    "stored_scores": False,
    "peak_memory": 700_000_000,
    "peak_gpu_memory": 0,
    "replicas": 2,
    "cpus_each": 1,
    "gpus_each": 0,
    "processor": "a processor",
    "started": "2026-11-29T08:00:00+00:00",
    "runs": 1,
}


def made_set(folder: Path, seed: int) -> BenchmarkSet:
    """Twenty queries in two languages, of ten candidates each; texts that strangers may have written."""
    rng = random.Random(seed)
    documents = [{"id": f"d{i}", "text": f"text {i} {HOSTILE} {'word ' * rng.randrange(60)}"} for i in range(200)]
    queries = [{"id": f"q{i}", "text": f"query {i} {HOSTILE}", "lang": "de" if i % 2 else "en"} for i in range(20)]
    candidates = [{"query_id": f"q{i}", "documents": documents[10 * i : 10 * i + 10]} for i in range(20)]
    qrels = "".join(f"q{i}\td{10 * i + rng.randrange(10)}\t{1 + i % 2}\n" for i in range(20))
    return read_set(write_set(folder, queries=queries, corpus=documents, candidates=candidates, qrels=qrels))


def made_system(one: BenchmarkSet, teacher: Teacher, skill: float, speed: dict[str, Any] | None) -> System:
    """A system that knows the grades as well as its skill says."""
    rng = random.Random(str(teacher))
    scores = {
        row["query_id"]: {
            document["id"]: rng.gauss(0, 1) + skill * one.grades[row["query_id"]].get(document["id"], 0)
            for document in row["documents"]
        }
        for row in one.candidates.to_pylist()
    }
    models = {"m": {"activation": "sigmoid", "files": "f" * 64, "hash": "a" * 32}} if teacher.model else {}
    return System(teacher, scores, 0, 1.0, speed, models, {"crossray": "0"}, None if teacher.model else "words-7")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Account]:
    """The results of two sets and three systems, as JSON, and what they were made of."""
    folder = tmp_path_factory.mktemp("sets")
    account = Account()
    results: dict[str, Any] = {"measures": list(MEASURES), "top_k": 10, "sets": {}, **origin(None)}
    for seed, name in enumerate(("scifact", "other <b>")):
        one = made_set(folder / name, seed)
        systems = [
            made_system(one, Teacher(Kind.BM25), 0.2, None),
            made_system(one, Teacher(Kind.RERANKER, f"good/{HOSTILE}"), 5.0, FAST),
            made_system(one, Teacher(Kind.RERANKER, "stopped"), 1.0, FAST | {"runs": 2}),
        ]
        orders = {system.name: system.order() for system in systems}
        compared = compare(one, sorted(one.grades), orders, MEASURES)
        account.add(one, systems, compared, MEASURES[0])
        results["sets"][name] = {
            "queries": 20,
            "queries_in_all": 20,
            "problems": 1,
            "first_problems": [f"queries.jsonl, line 3: has the id {HOSTILE}"],
            "unanswered": dict.fromkeys(orders, 0),
            "without_list": 2,
            **as_results(compared),
            **account.of_set(name),
        }
    results |= account.of_all_sets()
    return json.loads(json.dumps(results)), account


@pytest.fixture(scope="module")
def text(made: tuple[dict[str, Any], Account]) -> str:
    return report(made[0], made[1].stories)


class Tables(HTMLParser):
    """The cells of all tables by caption, the small print apart, and all tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.small = self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True
        self.small = tag in ("small", "title") or self.small

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")
        self.small = self.small and tag not in ("small", "title")

    def handle_data(self, data: str) -> None:
        if self.in_cell and not self.small:
            self.tables[-1][-1][-1] += data


def test_the_leaderboard_has_the_numbers_of_the_results(made: tuple[dict[str, Any], Account], text: str) -> None:
    results, _ = made
    board = Tables(text).tables[0]
    assert board[0] == ["order", "mean", "scifact", "other <b>"]
    assert [line[0] for line in board[1:]] == list(results["means"])
    for line in board[1:]:
        of_sets = [results["sets"][name]["rows"][line[0]]["nDCG@10"]["mean"] for name in board[0][2:]]
        assert results["means"][line[0]]["mean"] == pytest.approx(fmean(of_sets))
        assert [float(cell[:5]) for cell in line[1:]] == [round(one, 3) for one in (fmean(of_sets), *of_sets)]
    marked = {line[0]: ["▲" in cell for cell in line[1:]] for line in board[1:]}
    assert marked[f"good/{HOSTILE}"] == [True, True, True]
    assert marked["bm25"] == marked["first stage"] == marked["best possible"] == [False, False, False]


def test_every_set_has_its_bars_and_what_is_sure(made: tuple[dict[str, Any], Account], text: str) -> None:
    results, _ = made
    for one in results["sets"].values():
        found = {(each["from"], each["to"]): each for each in one["differences"] if each["measure"] == "nDCG@10"}
        difference = found["first stage", "stopped"]
        assert f"{difference['difference']:+.3f}".replace("-", "−") in text
        low, high = (one["rows"]["stopped"]["nDCG@10"][end] for end in ("low", "high"))
        assert f"<small>{low:.3f}–{high:.3f}</small>" in text


def test_the_report_says_what_counts_0_and_what_made_words_and_numbers(
    made: tuple[dict[str, Any], Account], text: str
) -> None:
    assert "2 queries have no candidates, and count 0" in text
    assert "analyzer words-7" in text
    assert {"bm25s", "PyStemmer", "ir-measures", "pytrec-eval-terrier", "numpy", "scipy"} <= made[0]["versions"].keys()
    assert "scipy 1." in text


def test_what_strangers_wrote_stays_text_and_nothing_is_loaded(text: str) -> None:
    tags = Tables(text).tags
    assert text.count("<script") == 1
    assert not [tag for tag, _ in tags if tag in ("img", "iframe", "object", "embed", "form", "base")]
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset")], tag
        assert attributes.get("href", "#") in ("data:,",) or str(attributes.get("href", "#")).startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    assert "http:" not in text.replace(HOSTILE, "")
    assert "https:" not in text
    assert "&lt;script&gt;document.title" in text


def test_scores_are_counted_as_they_are(made: tuple[dict[str, Any], Account]) -> None:
    """Against counts by hand of the same pairs."""
    results, account = made
    pairs = ScoredPairs.together(account.pairs["stopped"])
    told = results["systems"]["stopped"]["scores"]
    assert (told["pairs"], told["relevant"]) == (400, 40)
    edges = told["histogram"]["edges"]
    for name, kind in (("relevant", True), ("others", False)):
        scores = [score for score, hit in zip(pairs.scores, pairs.relevant, strict=True) if hit == kind]
        counts = [
            sum(low <= score < high or (score == high == edges[-1]) for score in scores)
            for low, high in itertools.pairwise(edges)
        ]
        assert told["histogram"][name] == counts
    said = [1 / (1 + math.exp(-score)) for score in pairs.scores]
    places = [max(math.ceil(one * 15), 1) for one in said]
    error = sum(
        abs(sum(hit - one for one, hit, at in zip(said, pairs.relevant, places, strict=True) if at == place)) / 400
        for place in range(1, 16)
    )
    assert told["calibration"]["expected_calibration_error"] == pytest.approx(error)


def test_scores_that_are_no_probabilities_have_no_diagram() -> None:
    pairs = ScoredPairs(np.array([3.0, 3.0]), np.array([True, False]))
    calibrated = about_scores(pairs, True, 0.5, -1.0)["calibration"]  # of a model whose calibration.json has these
    shifted = ScoredPairs(0.5 * pairs.scores - 1.0, pairs.relevant)
    assert calibrated == about_scores(shifted, True)["calibration"]
    assert calibrated != about_scores(pairs, True)["calibration"]
    told = about_scores(pairs, probabilities=False)
    assert "calibration" not in told
    assert sum(told["histogram"]["relevant"]) == 1
    assert about_scores(ScoredPairs(np.array([]), np.array([], dtype=bool)), probabilities=True) == {
        "pairs": 0,
        "relevant": 0,
    }


def test_queries_are_grouped_by_the_length_of_what_answers_them(made: tuple[dict[str, Any], Account]) -> None:
    results, account = made
    groups = results["sets"]["scifact"]["lengths"]
    assert sum(one["queries"] for one in groups) == 20
    assert [one["to"] for one in groups[:-1]] == [one["from"] for one in groups[1:]]
    whole = fmean(account.compared["scifact"].values["stopped"]["nDCG@10"].values())
    assert sum(one["queries"] * one["rows"]["stopped"] for one in groups) / 20 == pytest.approx(whole)
    assert by_length(account.compared["scifact"], {}, "nDCG@10") == []
    same = by_length(account.compared["scifact"], {"q1": 5.0, "q2": 5.0}, "nDCG@10")
    assert same == []  # no length is longer than another


def test_what_the_first_stage_is_and_found_is_told(made: tuple[dict[str, Any], Account]) -> None:
    results, account = made
    stage = {"by": "bm25", "analyzer": "words-1", "found": {"relevant": 30, "relevant_found": 20}}
    found = {"first_stage": stage, "judged_by": "qrels", "unlabelled": 1200, "without_list": 0}
    sets = results["sets"] | {"scifact": results["sets"]["scifact"] | found}
    told = report(results | {"sets": sets}, account.stories)
    assert "1,200 rows have no positive label; 20 of 30 relevant documents are among the candidates" in told
    assert "<td>found here, by bm25, analyzer words-1</td><td>qrels</td>" in told
    by_answers = found | {"first_stage": stage | {"found": {"queries_without": 3}}, "judged_by": "answers"}
    told = report(results | {"sets": sets | {"scifact": sets["scifact"] | by_answers}}, account.stories)
    assert "; 17 of 20 questions have an answer among the candidates" in told
    assert "<td>found here, by bm25, analyzer words-1</td><td>answers</td>" in told
    assert "<td>came with the set</td><td>qrels</td>" in told


def test_movers_are_those_that_moved_the_most(made: tuple[dict[str, Any], Account], text: str) -> None:
    results, account = made
    values = account.compared["scifact"].values
    changes = {
        query: after - values["first stage"]["nDCG@10"][query] for query, after in values["stopped"]["nDCG@10"].items()
    }
    moved = results["sets"]["scifact"]["movers"]["stopped"]
    gained = [one["after"] - one["before"] for one in moved["gained"]]
    lost = [one["after"] - one["before"] for one in moved["lost"]]
    assert gained == pytest.approx(sorted(changes.values(), reverse=True)[:3])
    assert lost == pytest.approx([one for one in sorted(changes.values())[:3] if one < 0])
    story = next(one for one in account.stories if (one.set_name, one.row) == ("scifact", "stopped"))
    assert [one.document for one in story.lists[0]] == [f"d{10 * int(story.query_id[1:]) + i}" for i in range(10)]
    assert sorted(one.document for one in story.lists[1]) == sorted(one.document for one in story.lists[0])
    assert f"nDCG@10 {story.before:.3f} → {story.after:.3f}" in text


def test_ties_stay_as_the_first_stage_has_them() -> None:
    assert best_first({"a": 1.0, "b": 2.0, "c": 1.0, "d": 2.0}) == ["b", "d", "a", "c"]


def test_speeds_are_added_up_and_those_that_are_none_are_not(made: tuple[dict[str, Any], Account], text: str) -> None:
    results, _ = made
    assert results["systems"]["bm25"]["speed"] is None
    good = results["systems"][f"good/{HOSTILE}"]["speed"]
    assert (good["pairs"], good["seconds"], good["pairs_per_second"], good["peak_memory"]) == (800, 8.0, 100.0, 7e8)
    assert results["systems"]["stopped"]["speed"] == {"sets": 0, "why_not": "scored in 2 runs, since it was stopped"}
    assert "no speed: scored in 2 runs, since it was stopped" in text
    assert "2 with 1 CPU each, a processor" in text


def test_a_speed_of_one_pair_in_minutes_is_drawn(made: tuple[dict[str, Any], Account]) -> None:
    """On an axis of logarithms."""
    results, account = made
    teacher = Teacher(Kind.RERANKER, "slow")
    system = System(teacher, {}, 0, 300.0, FAST | {"pairs": 1, "seconds": 300.0}, {}, {})
    speed = speed_of([system])
    assert speed is not None
    assert speed["pairs_per_second"] == pytest.approx(1 / 300)
    row = next(row for row, one in results["systems"].items() if one["speed"] and one["speed"]["sets"])
    systems = results["systems"] | {row: results["systems"][row] | {"speed": speed}}
    assert "Quality against speed" in report(results | {"systems": systems}, account.stories)


@pytest.mark.parametrize(
    ("speed", "why"),
    [
        (FAST, None),
        (None, "scored by a version that did not measure it"),
        (FAST | {"chunks_reused": 5}, None),  # equal pairs of one run are its own
        (FAST | {"chunks_reused": 5, "stored_scores": True}, "5 of 400 scores were there already"),
        (FAST | {"pairs": 0, "seconds": 0.0}, "there was nothing to score"),
    ],
)
def test_a_run_that_had_scores_already_has_no_speed(speed: dict[str, Any] | None, why: str | None) -> None:
    assert why_no_speed(speed) == why


def test_published_figures_stand_beside_ours_only_for_the_same(
    made: tuple[dict[str, Any], Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Figure("BEIR SciFact", "nDCG@10", "theirs", 0.7654, "BM25 of theirs", 10, "a paper", ("scifact",))
    monkeypatch.setattr(jobs.evaluation.report.published, "published_figures", lambda: (figure,))
    results, account = made
    one = results["sets"]["scifact"] | {"benchmark": "BEIR SciFact", "published_candidates": "BM25 of theirs"}
    assert comparable_figures("scifact", one, 10) == [figure]
    for other in ({"queries": 19}, {"published_candidates": "ours"}, {"benchmark": None}, {"measure": "MRR@10"}):
        assert comparable_figures("scifact", one | other, 10) == []
    assert comparable_figures("scifact", one, 100) == []
    beside = report(results | {"sets": results["sets"] | {"scifact": one}}, account.stories)
    assert "Published for the same queries and candidates" in beside
    assert "Published figures" not in beside
    apart = report(results, account.stories)
    assert "Published for the same queries and candidates" not in apart
    assert "no figure here can be compared with one above" in apart
    assert "0.7654" in apart


def test_all_published_figures_have_a_source_and_are_shares() -> None:
    figures = jobs.evaluation.report.published.published_figures()
    assert len(figures) > 20
    assert all(one.source and 0 < one.value < 1 and one.like for one in figures)


@pytest.fixture(scope="module")
def page(text: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_bytes(text.encode())
    with chromium() as driver:
        driver.get(file.as_uri())
        yield driver


def test_a_browser_has_nothing_to_say_against_it(page: Chrome) -> None:
    assert page.title == "How good are these rerankers?"
    assert [line["message"] for line in page.get_log("browser")] == []  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("details", [False, True])
def test_on_a_phone_the_page_does_not_scroll_sideways(page: Chrome, details: bool) -> None:
    emulate(page, width=360)
    page.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = arguments[0]; })", details)
    assert page.execute_script("return document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_letters_can_be_told_from_their_ground(page: Chrome, color_scheme: str) -> None:
    emulate(page, color_scheme=color_scheme)
    page.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    contrasts = page.execute_script(CONTRASTS)
    assert len(contrasts) > 300
    assert min(contrasts)[0] >= CONTRAST_AA, min(contrasts)


def test_the_keyboard_sorts_a_table(page: Chrome) -> None:
    emulate(page)
    button = page.find_element("css selector", "#leaderboard-1 thead th:nth-child(2) button")
    cells = "document.querySelectorAll('#leaderboard-1 tbody td:nth-child(2)')"
    rows = f"return [...{cells}].map((one) => one.dataset.value)"
    button.send_keys("\ue007")  # Enter
    falling = [float(one) for one in page.execute_script(rows)]
    assert falling == sorted(falling, reverse=True)
    assert page.execute_script("return document.querySelector('[aria-sort]').ariaSort") == "descending"
    button.send_keys("\ue007")
    assert [float(one) for one in page.execute_script(rows)] == sorted(falling)


def test_every_table_and_chart_says_what_it_is(text: str) -> None:
    tags = Tables(text).tags
    assert all(one["scope"] in ("col", "row") for tag, one in tags if tag == "th")
    ids = [one["id"] for _, one in tags if "id" in one]
    assert len(ids) == len(set(ids))
    charts = [one for tag, one in tags if tag == "svg" and one.get("role") == "img"]
    assert len(charts) == 5  # speed, and two for each model
    assert all(set(str(one["aria-labelledby"]).split()) <= set(ids) for one in charts)
    assert not re.findall(r"<svg(?![^>]*(role=\"img\"|aria-hidden|class=\"area\"))", text)
