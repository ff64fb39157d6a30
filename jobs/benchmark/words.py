"""`python -m jobs.benchmark words SET...`: how well BM25 finds, by what counts as a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from jobs.benchmark.report import Output, report
from pipelines.evaluation.analysis import ANALYZER, load_stemmers, words
from pipelines.evaluation.bm25 import WordIndex, best, load_bm25s
from pipelines.evaluation.measures import values_by_query
from pipelines.evaluation.sets import BenchmarkSet, read_corpus, read_set

MEASURE, CUTOFF = "nDCG@10", 10
Cut = Callable[[str], Sequence[str]]
"""Gives the words of a text."""


def words_found(
    sets: Annotated[list[Path], typer.Argument(metavar="SET...", help="Benchmark sets, as `crossray evaluate` reads.")],
    output: Output = None,
) -> None:
    """nDCG@10 of a search in the whole corpus: words as here, and as bm25s cuts them, without and with a stemmer."""
    sides: dict[str, Cut] = {
        "bm25s": partial(words_of_bm25s, stemmer=None),
        "bm25s with a stemmer": partial(words_of_bm25s, stemmer=load_stemmers().Stemmer("english")),
        ANALYZER: words,
    }
    rows: dict[str, dict[str, float]] = {}
    for folder in sets:
        one = read_set(folder, with_candidates=False)
        values = {side: values_of(one, cut) for side, cut in sides.items()}
        for name, queries in groups(one).items():
            rows[name] = {side: fmean(found[query] for query in queries) for side, found in values.items()}
    report(f"{MEASURE} of BM25 by its words", rows, {"measure": MEASURE}, output)


def words_of_bm25s(text: str, stemmer: object) -> list[str]:
    """The words of a text as bm25s cuts it, without English stop words."""
    [found] = load_bm25s().tokenize([text], stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)
    return list(found)


def values_of(one: BenchmarkSet, cut: Cut) -> dict[str, float]:
    """The measure of each query that has an answer."""
    assert one.corpus is not None  # since no candidates were read
    ids, texts = zip(*read_corpus(one.corpus), strict=True)
    index = WordIndex(texts, cut)
    scores = {query: index.scores(one.queries[query].text) for query in one.grades}
    order = {
        query: [ids[place] for place in best(found, CUTOFF) if found[place] > 0] for query, found in scores.items()
    }
    return values_by_query(MEASURE, one.grades, order)


def groups(one: BenchmarkSet) -> dict[str, list[str]]:
    """The queries of the set, and where they are in several languages also those of each."""
    found = {one.name: list(one.grades)}
    languages = {query: one.queries[query].language or "unknown" for query in one.grades}
    if len(set(languages.values())) > 1:
        for language in sorted(set(languages.values())):
            found[f"{one.name}, {language}"] = [query for query, its in languages.items() if its == language]
    return found
