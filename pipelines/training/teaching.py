"""Lists of candidates with teacher scores, out of query-positive Parquet sources: what a reranker is distilled from.

The teacher is the sum of z-scores within a list, of BM25 and of the cosines of dense bi-encoders; it needs no labels.
Texts become tokens in `token_lists`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from ..evaluation.bm25 import WordIndex, best
from ..evaluation.fusion import z_scores
from .dense import DenseEncoder

FORMAL = frozenset({"json", "shell", "sql", "python", "java", "cpp", "csharp", "go", "javascript", "php", "ruby"})
"""Values of `doc_lang` that are no natural language: names in them are English."""
QUERIES_AT_ONCE = 64  # queries whose cosines to the whole pool are in memory at once
MIN_WORDS, MAX_WORDS = 4, 30  # of a sentence that can stand as a query
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class TaughtList:
    """A query and distinct passages, of which the first is its positive (or the passage the query was taken from)."""

    source: str
    query: str
    passages: list[str]
    labels: list[float]
    """1.0 for a positive of the query, 0.0 for another passage, NaN where nothing is known."""
    teacher: list[float]
    """Sum of z-scores within this list: a scale that no other list shares."""


class Row(NamedTuple):
    """One row of a source; `group` names the page or table it was taken from, empty where there is none."""

    query: str
    positive: str
    negatives: list[str]
    group: str
    crosses: bool = False
    """Whether query and passage are in different languages: words in common say nothing then."""


class Dense(NamedTuple):
    """A bi-encoder among the teachers."""

    encoder: DenseEncoder
    crosses: bool = False
    """Whether it was trained for queries and passages in different languages."""


PassageGroups = Mapping[str, set[str]]  # the passages of a source, each with the groups of the rows that hold it


@dataclass(frozen=True, slots=True)
class Question:
    """A query before it has candidates; one without positives has no labels either."""

    query: str
    anchor: str
    """The passage that its list always holds."""
    positives: frozenset[str] = frozenset()
    given: tuple[str, ...] = ()
    """Negatives that came with the query: known to be wrong, even those of the positive's own group."""
    groups: frozenset[str] = frozenset()
    crosses: bool = False

    def label(self, passage: str, passage_groups: set[str]) -> float:
        """1.0, 0.0 or NaN, as `TaughtList.labels` has them."""
        if passage in self.positives:
            return 1.0
        if not self.positives or (passage not in self.given and self.groups & passage_groups):
            return float("nan")
        return 0.0


def teach_source(
    path: Path,
    dense: Sequence[Dense],
    queries: int,
    depth: int,
    rng: random.Random,
    unlabelled: float = 0.0,
    pool_cap: int = 20_000,
    with_bm25: bool = True,
) -> Iterator[TaughtList]:
    """Up to `queries` labelled lists of at most `depth` passages, then up to `unlabelled` times as many without labels.

    The query of an unlabelled list is a sentence of a passage. Candidates come out of at most `pool_cap` positives of
    the source and as many of its negatives. Without `with_bm25` it finds candidates, and says nothing of their order.
    The same seed gives the same lists.
    """
    rows = read_source(path)
    rng.shuffle(rows)
    first_rows: dict[str, Row] = {}
    for row in rows:
        first_rows.setdefault(row.query, row)
    chosen = list(islice(first_rows.values(), queries))
    pool = gather_pool(rows, chosen, pool_cap)
    questions = labelled_questions(rows, chosen) + inverse_questions(list(pool), round(unlabelled * len(chosen)), rng)
    if not questions:
        return
    passages = list(pool)
    place = {passage: j for j, passage in enumerate(passages)}
    scores = score_pool([question.query for question in questions], passages, [one.encoder for one in dense])
    for question, (bm25, cosines) in zip(questions, scores, strict=True):
        given = [place[passage] for passage in question.given if passage in place]
        able = [row for row, one in zip(cosines, dense, strict=True) if one.crosses or not question.crosses]
        judges = able or list(cosines)
        closeness = np.sum([z_scores(row) for row in judges], axis=0)
        candidates = choose_candidates(place[question.anchor], given, bm25, closeness, depth, rng)
        if with_bm25 and not question.crosses:
            judges.append(bm25)
        teacher = np.sum([z_scores(row[candidates]) for row in judges], axis=0)
        texts = [passages[j] for j in candidates]
        labels = [question.label(text, pool[text]) for text in texts]
        yield TaughtList(path.stem, question.query, texts, labels, teacher.tolist())


def read_source(path: Path) -> list[Row]:
    """The rows of a Parquet source whose query and positive are not blank.

    Columns: `query, positive`, and where they are known `negatives, group, query_lang, doc_lang`.
    """
    names = ["query", "positive", "negatives", "group", "query_lang", "doc_lang"]
    table = pq.read_table(path, columns=[name for name in names if name in pq.read_schema(path).names])
    return [
        Row(
            row["query"],
            row["positive"],
            [text for text in row.get("negatives") or [] if text],
            row.get("group") or "",
            crosses_languages(row.get("query_lang"), row.get("doc_lang")),
        )
        for row in table.to_pylist()
        if (row["query"] or "").strip() and (row["positive"] or "").strip()
    ]


def crosses_languages(query: str | None, document: str | None) -> bool:
    """Whether words in common say nothing; an unknown language counts as the same."""
    if query is None or document is None:
        return False
    return query != ("en" if document in FORMAL else document)


def gather_pool(rows: Sequence[Row], chosen: Sequence[Row], cap: int) -> PassageGroups:
    """All positives of `chosen`, then others up to `cap`, then up to `cap` negatives, those of `chosen` first.

    `rows` come in random order, so the first ones are a sample.
    """
    ordered = [*chosen, *rows]
    positives = dict.fromkeys(row.positive for row in ordered)
    pool: dict[str, set[str]] = {text: set() for text in islice(positives, max(cap, len(chosen)))}
    negatives = dict.fromkeys(text for row in ordered for text in row.negatives if text not in pool)
    pool |= {text: set() for text in islice(negatives, cap)}
    for row in rows:
        for text in (row.positive, *row.negatives):
            if row.group and text in pool:
                pool[text].add(row.group)
    return pool


def labelled_questions(rows: Sequence[Row], chosen: Sequence[Row]) -> list[Question]:
    """One question for each chosen row, which knows what all rows of the same query say."""
    rows_of: dict[str, list[Row]] = {row.query: [] for row in chosen}
    for row in rows:
        if row.query in rows_of:
            rows_of[row.query].append(row)
    questions = []
    for row in chosen:
        same = rows_of[row.query]
        positives = frozenset(other.positive for other in same)
        negatives = dict.fromkeys(chain.from_iterable(other.negatives for other in same))
        given = tuple(text for text in negatives if text not in positives)
        groups = frozenset(other.group for other in same if other.group)
        questions.append(Question(row.query, row.positive, positives, given, groups, row.crosses))
    return questions


def inverse_questions(passages: Sequence[str], count: int, rng: random.Random) -> list[Question]:
    """Up to `count` different sentences of random passages, one a passage; fewer where too few passages have one.

    A sentence that is half of its passage or more is no query: its own passage would stand so far above the others of
    the list that the teacher's z-scores told nothing of these.
    """
    questions: dict[str, Question] = {}
    for passage in rng.sample(passages, len(passages)):
        if len(questions) >= count:
            break
        sentences = [sentence.strip() for sentence in SENTENCE_END.split(passage)]
        usable = [
            sentence
            for sentence in sentences
            if MIN_WORDS <= len(sentence.split()) <= MAX_WORDS and 2 * len(sentence) < len(passage)
        ]
        if usable:
            sentence = rng.choice(usable)
            questions.setdefault(sentence, Question(sentence, passage))
    return list(questions.values())


def score_pool(
    queries: Sequence[str], passages: Sequence[str], encoders: Sequence[DenseEncoder]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each query its BM25 scores, float32 [passages], and its cosines, float32 [encoders, passages]."""
    index = WordIndex(passages)
    vectors = [encoder.encode_passages(passages) for encoder in encoders]
    query_vectors = [encoder.encode_queries(queries) for encoder in encoders]
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        some = slice(start, start + QUERIES_AT_ONCE)
        cosines = np.stack([ours[some] @ theirs.T for ours, theirs in zip(query_vectors, vectors, strict=True)], axis=1)
        for query, rows in zip(queries[some], cosines, strict=True):
            yield index.scores(query), rows


def choose_candidates(
    anchor: int, given: Sequence[int], bm25: np.ndarray, cosines: np.ndarray, depth: int, rng: random.Random
) -> list[int]:
    """At most `depth` different passages: the anchor, a third each of BM25's and the dense best, given ones, random.

    Given negatives get at most half of what the rankings leave, so that easy passages are in every list.
    """
    taken = {anchor: None}  # a dict keeps the order

    def take(order: Sequence[int], count: int) -> None:
        taken.update(dict.fromkeys([j for j in order if j not in taken][: max(count, 0)]))

    take([j for j in best(bm25, depth).tolist() if bm25[j] > 0], depth // 3)
    take(best(cosines, depth).tolist(), depth // 3)
    take(rng.sample(given, len(given)), (depth - len(taken)) // 2)
    take(rng.sample(range(len(cosines)), min(2 * depth, len(cosines))), depth - len(taken))
    return list(taken)
