"""Measures against their formulas, and what is said of chance against cases whose answer is known."""

from __future__ import annotations

import math
import tracemalloc
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.evaluation.chance import (
    holm,
    interval,
    interval_over_sets,
    least_p_value_of_fall,
    p_value,
    p_value_of_fall,
    p_value_over_sets,
    resamples_for,
    shown,
)
from pipelines.evaluation.measures import best_order, parse_measure, values_by_query

DOCUMENTS = [f"d{i}" for i in range(15)]


@st.composite
def graded_orders(draw: st.DrawFn) -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    grades = {}
    order = {}
    for query in ("a", "b", "c"):
        judged = draw(st.lists(st.sampled_from(DOCUMENTS), min_size=1, unique=True))
        grades[query] = {document: draw(st.integers(0, 3)) for document in judged} | {judged[0]: 1}
        if draw(st.booleans()):
            order[query] = draw(st.permutations(DOCUMENTS))[: draw(st.integers(0, 15))]
    return grades, order


def ndcg(grades: dict[str, int], order: list[str], cutoff: int) -> float:
    """Järvelin and Kekäläinen 2002 with the gain of trec_eval: the grade itself, over log2(rank + 1)."""

    def dcg(gains: list[int]) -> float:
        return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains[:cutoff]))

    return dcg([grades.get(one, 0) for one in order]) / dcg(sorted(grades.values(), reverse=True))


def recall(grades: dict[str, int], order: list[str], cutoff: int) -> float:
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant & set(order[:cutoff])) / len(relevant)


def reciprocal_rank(grades: dict[str, int], order: list[str], cutoff: int) -> float:
    ranks = [rank for rank, document in enumerate(order[:cutoff], 1) if grades.get(document, 0) > 0]
    return 1 / ranks[0] if ranks else 0.0


def test_ids_may_have_any_characters() -> None:
    """trec_eval itself ends an id at a NUL, and with it the process where two queries then have the same."""
    grades = {"a\0b": {"x\0y": 1}, "a\0c": {"x\0z": 1}, "": {"": 1}}
    order = {"a\0b": ["x\0z", "x\0y"], "a\0c": ["x\0z", "x\0y"], "": [""]}
    assert values_by_query("MRR@10", grades, order) == {"a\0b": 0.5, "a\0c": 1.0, "": 1.0}


@pytest.mark.parametrize(
    ("name", "formula", "cutoff"),
    [("nDCG@10", ndcg, 10), ("recall@3", recall, 3), ("recall@10", recall, 10), ("MRR@10", reciprocal_rank, 10)],
)
@given(graded_orders())
def test_a_measure_is_its_formula(name: str, formula: Any, cutoff: int, case: Any) -> None:
    """And 0 for a query without an answer."""
    grades, order = case
    expected = {query: formula(grades[query], order.get(query, []), cutoff) for query in grades}
    assert values_by_query(name, grades, order) == pytest.approx(expected)


@given(graded_orders())
def test_no_order_of_the_same_candidates_is_better_than_the_best(case: Any) -> None:
    grades, order = case
    best = values_by_query("nDCG@10", grades, best_order(grades, order))
    for query, value in values_by_query("nDCG@10", grades, order).items():
        assert value <= best[query] + 1e-9


@pytest.mark.parametrize(
    "name",
    [
        "nDCG",
        "nDCG@ten",
        "quality",
        "__import__('os')",
        "recall@",
        "nDCG@0",
        "nDCG@9223372036854775808",
        "R@-1",
        "RBP(p=0.8)@10",
        "BPM",
        "BPM(total=10)",
    ],
)
def test_a_measure_that_there_is_not_is_a_usage_error(name: str) -> None:
    if name == "nDCG":
        parse_measure(name)  # without a cutoff it is another measure
        return
    with pytest.raises(ConfigError, match=r"--measure is .*; give nDCG@10"):
        parse_measure(name)


def test_an_interval_holds_the_mean_and_narrows_with_more_queries() -> None:
    few, many = ([i % 10 / 10 for i in range(count)] for count in (20, 2000))
    (low, high), (lower, higher) = interval(few), interval(many)
    assert low < 0.45 < high
    assert lower < 0.45 < higher
    assert higher - lower < (high - low) / 5
    assert interval([0.5] * 9) == (0.5, 0.5)
    assert interval(few) == interval(few)


def test_an_interval_of_many_queries_takes_little_memory() -> None:
    """All resamples of 100,000 questions would be 8 GB."""
    tracemalloc.start()
    try:
        interval([i % 10 / 10 for i in range(2000)])
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_the_p_value_of_few_queries_is_exact() -> None:
    """All ways to swap the two rows of each query are counted: here 2 of 2^5 differ as much."""
    first, second = [0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.4, 0.6, 0.8, 1.0]
    differences = [other - one for one, other in zip(first, second, strict=True)]
    as_large = [
        abs(sum(sign * one for sign, one in zip(signs, differences, strict=True))) >= sum(differences) - 1e-9
        for signs in product([1, -1], repeat=5)
    ]
    assert p_value(first, second) == pytest.approx(sum(as_large) / len(as_large))
    assert p_value(first, first) == 1.0
    assert p_value_of_fall(second, first) == pytest.approx(least_p_value_of_fall(5), abs=0.005)
    assert p_value_of_fall(first, second) == 1.0


def test_one_query_says_nothing_of_chance() -> None:
    assert p_value([1.0], [0.0]) == p_value_of_fall([1.0], [0.0]) == least_p_value_of_fall(1) == 1.0


def test_no_number_of_tests_hides_a_fall_of_every_query() -> None:
    before, after = [1.0] * 30, [0.0] * 30
    for tests in (1, 300):
        p = p_value_of_fall(before, after, resamples_for(tests))
        assert p == pytest.approx(least_p_value_of_fall(30, resamples_for(tests)))
        assert holm([p] * tests)[0] < 0.01


def test_p_values_are_written_as_what_they_are() -> None:
    assert [shown(p) for p in (0.00004, 0.0007, 0.0496, 1.0)] == ["< 0.001", "0.001", "0.050", "1.000"]


def test_holms_correction_is_that_of_the_paper() -> None:
    """Four tests: the smallest p counts four times, the next one three times, and none below one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_is_said_of_one_set_is_said_of_the_mean_of_sets() -> None:
    values = [0.1, 0.9, 0.4, 0.4, 1.0, 0.0, 0.7, 0.2, 0.3, 0.6]
    assert interval_over_sets([values]) == pytest.approx(interval(values), abs=0.01)
    assert interval_over_sets([[0.5] * 4, [1.0] * 3]) == (0.75, 0.75)
    others = values[::-1]
    assert p_value_over_sets([values], [others]) == p_value(values, others)


def test_a_difference_over_sets_is_as_likely_as_all_changes_of_sides_say() -> None:
    """Against all 2^9 of them; sets of different sizes weigh the same."""
    first = [[0.5, 0.2, 0.9, 0.4], [0.1, 0.6, 0.3, 0.8, 0.2]]
    second = [[0.6, 0.5, 0.8, 0.9], [0.3, 0.6, 0.5, 0.7, 0.6]]
    parts = [
        (there - here) / len(one) / 2
        for one, other in zip(first, second, strict=True)
        for here, there in zip(one, other, strict=True)
    ]
    sums = [sum(sign * part for sign, part in zip(signs, parts, strict=True)) for signs in product((-1, 1), repeat=9)]
    expected = sum(abs(one) >= abs(sum(parts)) - 1e-12 for one in sums) / len(sums)
    assert p_value_over_sets(first, second) == pytest.approx(expected, abs=0.015)
    assert p_value_over_sets(first, second) == p_value_over_sets(first, second)
    assert p_value_over_sets(first, first) == 1.0
