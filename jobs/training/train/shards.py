"""What a worker of the preparation does: it makes one shard of token lists from one stretch of rows.

A shard depends on the file, the config and the seed alone; so one that is there need not be made again.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from jobs import storage
from jobs.errors import UnreadableFileError
from jobs.training.bad_rows import BadRow, BadRows
from jobs.training.train.config import Source
from jobs.training.train.rows import UNKNOWN, TrainingLayout, TrainingRow, layout_of, training_rows
from jobs.training.train.stretches import Stretch, drawn_rows, query_runs, read_stretch
from pipelines.training.token_lists import TokenList, TokenLists

MAX_CHARACTERS = 20_000
"""Characters of a text that are tokenized, at least; the tokens of what lies beyond would be cut anyway."""
CHARACTERS_PER_TOKEN = 16
"""So many of a text are tokenized where that is more: texts have fewer on average."""


@dataclass(slots=True)
class ShardReport:
    """How many rows of a stretch were drawn, and what they gave."""

    source: int
    path: str
    rows: int = 0
    """Rows that were drawn."""
    lists: int = 0
    held_back: int = 0
    measurable: int = 0
    """Lists that are held back and tell how good an order is: they have a positive and another label."""
    taught: int = 0
    """Lists that are held back and tell whether an order is the teacher's."""
    trainable: int = 0
    """Lists that are not held back and have two passages at least."""
    highest_label: float = 0.0
    """Of the lists that are not held back."""
    left_out: int = 0
    """Good rows whose query a source has that is held back whole."""
    passages: int = 0
    tokens: int = 0
    bad_rows: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    unreadable: str | None = None

    def save(self, location: str) -> None:
        """Writes the report; a report that is there says that its shard is there, too."""
        storage.write_json(location, asdict(self))


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """All that decides the content of a shard, besides its rows."""

    sources: tuple[Source, ...]
    tokenizer: str
    """The content of tokenizer.json."""
    max_tokens: int
    """Tokens of a text that are kept, at most."""
    held_back: float
    """Share of the queries that is held back, unless a source is held back whole."""
    seed: int
    measured_on: tuple[str, ...] = ()
    """Shards of sources that are held back whole: rows of other sources with a query of theirs are left out."""

    def held_back_of(self, source: Source) -> float:
        """Share of a source's queries that is held back."""
        if any(one.held_back for one in self.sources):
            return float(source.held_back)
        return self.held_back


def prepare(stretch: Stretch, settings: ShardSettings) -> ShardReport:
    """Writes the shard of a stretch, then its report, and returns the report."""
    report = ShardReport(stretch.source, stretch.path)
    source = settings.sources[stretch.source]
    try:
        table, first = read_stretch(stretch, source)
    except UnreadableFileError as error:
        report.unreadable = error.why.splitlines()[0]
        report.save(stretch.report)
        return report
    # By its name and not its path: in another folder the same file gives the same lists.
    rng = random.Random(f"{settings.seed}/{source.name}/{PurePath(stretch.path).name}/{stretch.first}")
    layout = layout_of(table.schema, source.columns)
    if layout is TrainingLayout.PAIRS:
        runs = query_runs(table, source.columns)
    else:
        runs = [range(row, row + 1) for row in range(table.num_rows)]
    chosen = drawn_rows(runs, -(-stretch.take * table.num_rows // stretch.rows), rng)
    report.rows = len(chosen)
    bad = BadRows()
    rows = []
    for number, row in training_rows(table.take(pa.array(chosen, pa.int64())), source.columns):
        if isinstance(row, BadRow):
            bad.add(first + chosen[number], row)
        else:
            rows.append(row)
    if layout is TrainingLayout.POSITIVES:
        rows = without_false_negatives(rows)
    is_judged = source.held_back and layout is not TrainingLayout.POSITIVES  # what is measured are its own candidates
    rows = list(with_random_negatives(rows, 0 if is_judged else source.random_negatives, rng))
    lists = TokenLists.of(token_lists(rows, source, settings))
    content = io.BytesIO()
    lists.save(content, zipfile.ZIP_STORED)  # read once, and LZMA takes a second for a megabyte
    storage.store_of(stretch.shard).write(stretch.shard, content.getvalue())
    report.left_out = len(rows) - len(lists)
    report.lists, report.held_back = len(lists), int(lists.held_back.sum())
    report.measurable, report.taught = len(lists.measurable()), len(lists.taught())
    report.trainable = int((~lists.held_back & (np.diff(lists.list_starts) > 1)).sum())
    trained = lists.labels[np.repeat(~lists.held_back, np.diff(lists.list_starts))]
    report.highest_label = float(np.fmax.reduce(trained, initial=0.0))  # NaN is none
    report.passages, report.tokens = len(lists.passages), len(lists.tokens)
    report.bad_rows, report.examples = bad.counts, bad.examples
    report.save(stretch.report)
    return report


def positives_by_query(rows: Sequence[TrainingRow]) -> dict[str, set[str]]:
    """The passages that some row says are right for a query, by the query."""
    positives: dict[str, set[str]] = {}
    for row in rows:
        found = positives.setdefault(row.query, set())
        found.update(text for text, label in zip(row.passages, row.labels, strict=True) if label > 0)
    return positives


def without_false_negatives(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows without those negatives that are a positive of the same query in another row of the stretch."""
    positives = positives_by_query(rows)
    cleaned = []
    for row in rows:
        right = positives[row.query]
        kept = [
            i
            for i, (text, label) in enumerate(zip(row.passages, row.labels, strict=True))
            if label or text not in right
        ]
        passages = [row.passages[i] for i in kept]
        labels, teacher = ([values[i] for i in kept] for values in (row.labels, row.teacher))
        cleaned.append(TrainingRow(row.query, passages, labels, teacher, row.group))
    return cleaned


def with_random_negatives(rows: Sequence[TrainingRow], wanted: int, rng: random.Random) -> Iterator[TrainingRow]:
    """Yields the rows; one that has a positive and no teacher scores gets passages of others, up to `wanted` negatives.

    A passage is never taken that is a positive of the same query or stands in a row of the same group, as far as these
    rows tell: they are those of a stretch, and nothing is known of the others.
    """
    groups: dict[str, set[str]] = {}
    for row in rows:
        for text in row.passages:
            groups.setdefault(text, set()).add(row.group)
    pool = list(groups)
    positives = positives_by_query(rows)
    for row in rows:
        negatives = sum(label == 0 for label in row.labels)
        if negatives >= wanted or not all(map(math.isnan, row.teacher)) or not positives[row.query]:
            yield row
            continue
        own = positives[row.query].union(row.passages)
        drawn = rng.sample(pool, min(len(pool), 2 * wanted + len(own)))
        others = [text for text in drawn if text not in own and not (row.group and row.group in groups[text])]
        others = others[: wanted - negatives]
        yield TrainingRow(
            row.query,
            [*row.passages, *others],
            [*row.labels, *([0.0] * len(others))],
            [*row.teacher, *([UNKNOWN] * len(others))],
            row.group,
        )


def token_lists(rows: Iterable[TrainingRow], source: Source, settings: ShardSettings) -> Iterator[TokenList]:
    """Yields the rows as token ids; rows with the same query are all held back or all trained on.

    What is measured on elsewhere is left out.
    """
    tokenizer = Tokenizer.from_str(settings.tokenizer)
    share, elsewhere = settings.held_back_of(source), queries_of(settings.measured_on)
    characters = max(MAX_CHARACTERS, CHARACTERS_PER_TOKEN * settings.max_tokens)
    for row in rows:
        texts = [text[:characters] for text in (row.query, *row.passages)]
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        query, *passages = [encoding.ids[: settings.max_tokens] for encoding in encodings]
        if tuple(query) in elsewhere:
            continue
        held_back = share_of(row.query, settings.seed) < share
        yield TokenList(query, passages, row.labels, row.teacher, held_back)


@lru_cache(maxsize=1)
def queries_of(shards: tuple[str, ...]) -> frozenset[tuple[int, ...]]:
    """The token ids of all queries of some shards; kept, since every stretch that a worker prepares asks for them."""
    return frozenset(
        tuple(lists.text(query).tolist()) for lists in map(read_shard, shards) for query in np.unique(lists.queries)
    )


def share_of(query: str, seed: int) -> float:
    """A number from 0 to 1, made from a hash of the query's text."""
    digest = hashlib.blake2b(query.encode(), key=str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def read_report(location: str) -> ShardReport:
    """The report at a location; raises FileNotFoundError where there is none."""
    parts: dict[str, Any] = storage.read_json(location)
    return ShardReport(**parts)


def read_shard(location: str) -> TokenLists:
    """The token lists that `prepare` wrote."""
    return TokenLists.load(io.BytesIO(storage.read(location)))


def source_numbers(reports: Sequence[ShardReport]) -> np.ndarray:
    """Which source each list of the joined shards came from, int32 [lists]."""
    return np.repeat([report.source for report in reports], [report.lists for report in reports]).astype(np.int32)


def source_summaries(sources: Sequence[Source], reports: Sequence[ShardReport]) -> list[dict[str, Any]]:
    """Rows, lists and bad rows of each source."""
    summaries = []
    for number, source in enumerate(sources):
        own = [report for report in reports if report.source == number]
        bad: dict[str, int] = {}
        for report in own:
            for reason, count in report.bad_rows.items():
                bad[reason] = bad.get(reason, 0) + count
        summaries.append(
            {
                "name": source.name,
                "path": source.path,
                "licence": source.licence,
                "rows": sum(report.rows for report in own),
                "lists": sum(report.lists for report in own),
                "left_out": sum(report.left_out for report in own),
                "held_back": sum(report.held_back for report in own),
                "bad_rows": bad,
                "unreadable": {report.path: report.unreadable for report in own if report.unreadable},
            }
        )
    return summaries
