"""The first stage of a set that comes without candidates: its corpus is searched by words, by vectors, or by both.

    SET/first-stage/settings.json        what is searched, for what and by whom; written first
    SET/first-stage/ENCODER/             vectors of the corpus, until the candidates are there
    SET/first-stage/candidates.parquet   what was found

A run that is given again searches nothing twice, and embeds nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from jobs import storage
from jobs.errors import RefusedError
from jobs.evaluation.comparison import FIRST_STAGE
from jobs.evaluation.counted import digest_of_corpus
from jobs.evaluation.search import Hits, Search, VectorSearch, WordSearch, search_all
from jobs.evaluation.settings import EvaluateSettings
from jobs.evaluation.vectors import QUERIES, Embedding, embed
from jobs.settings import RerankSettings
from jobs.training.encoders import EncoderSettings
from jobs.training.label.run import encoders_of
from jobs.training.label.teachers import Kind, Teacher
from pipelines.evaluation.analysis import ANALYZER
from pipelines.evaluation.bm25 import load_bm25s
from pipelines.evaluation.sets import LISTS, BenchmarkSet, first_candidates, read_corpus, without_identical_ids

ROOM, SETTINGS, CANDIDATES = "first-stage", "settings.json", "candidates.parquet"
DEFAULT = Teacher(Kind.BM25)
FORMAT = 1
"""Of the room; another one has other parts of the corpus, for example, and none of these is of use to it."""


@dataclass(frozen=True, slots=True)
class FirstStage:
    """Who searches, and how many documents of each query count."""

    searcher: Teacher
    encoders: Mapping[Teacher, EncoderSettings]
    """By the dense ones among those who search."""
    about: Mapping[str, Any]
    """All that decides what is found in a corpus, as JSON types."""
    top_k: int
    job: RerankSettings
    """Replicas of the encoders, and whether what another search left is overwritten."""

    @classmethod
    def of(cls, settings: EvaluateSettings) -> FirstStage:
        """The one that is asked for; raises ConfigError or ModelError where it cannot work."""
        searcher = settings.first_stage or DEFAULT
        encoders = encoders_of(searcher, settings.encoder, settings.job, "--first-stage dense")
        about: dict[str, Any] = {"by": str(searcher), "top_k": settings.top_k}
        if Kind.BM25 in (member.kind for member in searcher.members):
            load_bm25s()
            about["analyzer"] = ANALYZER
        if encoders:
            about["encoders"] = {str(member): encoder.identity() for member, encoder in encoders.items()}
        return cls(searcher, encoders, about, settings.top_k, settings.job)

    def candidates(self, one: BenchmarkSet, queries: Sequence[str], room: str, console: Console) -> pa.Table:
        """What is found for the queries, as LISTS; of a run before, where it was the same search.

        Raises RefusedError where another search left something in the room and is not to be overwritten, and
        StoppedError where embedding comes to no end.
        """
        assert one.corpus is not None
        place, texts = os.path.join(room, ROOM), [one.queries[query].text for query in queries]
        location = os.path.join(place, CANDIDATES)
        settings = {"format": FORMAT, **self.about, **digests(one.corpus, queries, texts)}
        if one.ignores_identical_ids:
            settings["ignores_identical_ids"] = True
        enter(place, settings, self.job.overwrite)
        if storage.exists(location):
            return storage.read_parquet(location, pq.ParquetFile.read)
        console.print(f"{one.name}: searching the corpus by {self.searcher}", soft_wrap=True, highlight=False)
        searches = [self.search(member, one.corpus, texts, place) for member in self.searcher.members]
        found = lists_of(one, queries, search_all(searches, self.top_k + one.ignores_identical_ids))
        if one.ignores_identical_ids:
            found = without_identical_ids(found)
        found = first_candidates(found, self.top_k)
        storage.write_table(location, found)
        for member in self.encoders:
            storage.remove_below(vectors_room(place, member))
        return found

    def search(self, member: Teacher, corpus: Path, queries: Sequence[str], place: str) -> Search:
        """A search of the whole corpus."""
        texts = (text for _, text in read_corpus(corpus))
        if member.kind is Kind.BM25:
            return WordSearch(queries, texts)
        embedding = Embedding(vectors_room(place, member), self.encoders[member])
        parts = embed(embedding, queries, texts, corpus.stat().st_size, self.job)
        return VectorSearch(embedding.read(QUERIES), partial(map, embedding.read, parts))


def with_candidates(
    one: BenchmarkSet, queries: Sequence[str], stage: FirstStage | None, room: str, console: Console
) -> tuple[BenchmarkSet, dict[str, Any]]:
    """The set with candidates of these queries, and what the results say of how they came to be.

    Raises what `FirstStage.candidates` raises.
    """
    told: dict[str, Any] = {"name": FIRST_STAGE}
    if stage is not None and one.needs_candidates:
        one = one.with_candidates(stage.candidates(one, queries, room, console))
        told = {"name": f"{FIRST_STAGE} ({stage.searcher})", **stage.about}
    return one, told | {"found": found_by(one, queries)}


def found_by(one: BenchmarkSet, queries: Sequence[str]) -> dict[str, Any]:
    """How much of what is relevant is among the candidates; no order of these finds the rest.

    Where answers are the judges, only documents among the candidates are known to be relevant: then questions count.
    """
    grades = {query: one.grades[query] for query in queries}
    rows = one.candidates.select(["query_id", "documents"]).to_pylist()
    there = {row["query_id"]: [document["id"] for document in row["documents"]] for row in rows}
    relevant = {query: [name for name, grade in of_query.items() if grade > 0] for query, of_query in grades.items()}
    found = {query: len(set(names) & set(there.get(query, ()))) for query, names in relevant.items()}
    told = {
        "recall": fmean(found[query] / len(names) if names else 0.0 for query, names in relevant.items()),
        "queries_without": sum(not count for count in found.values()),
    }
    if one.judged_by == "answers":
        return told
    return told | {"relevant": sum(map(len, relevant.values())), "relevant_found": sum(found.values())}


def vectors_room(place: str, member: Teacher) -> str:
    """Where the vectors of an encoder lie, while they are needed."""
    return os.path.join(place, hashlib.sha256(str(member).encode()).hexdigest()[:8])


def digests(corpus: Path, queries: Sequence[str], texts: Iterable[str]) -> dict[str, str]:
    """What tells a corpus and its queries from others."""
    asked = json.dumps([*zip(queries, texts, strict=True)]).encode()
    return {"corpus": digest_of_corpus(corpus), "queries": hashlib.sha256(asked).hexdigest()}


def enter(place: str, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Makes the room of a search, or goes on in one; raises RefusedError where it holds something else."""
    location = os.path.join(place, SETTINGS)
    before = settings_in(location)
    if before == json.loads(json.dumps(settings)):
        return
    fault = None
    if before is not None:
        changed = ", ".join(name for name in {**before, **settings} if before.get(name) != settings.get(name))
        fault = f"{place} holds what another search found (other {changed}); give the same to go on, another --output"
    elif storage.is_directory(place) and not all(map(storage.is_temporary, storage.names(place))):
        fault = f"{place} does not say by which search its files were made; give another --output"
    if fault is not None:
        if not overwrite:
            raise RefusedError(f"{fault}, or --overwrite to start anew")
        storage.remove_below(place)
    storage.make_directory(place)
    storage.write_json(location, settings)


def settings_in(location: str) -> dict[str, Any] | None:
    """What a search says of itself; None where none does."""
    try:
        settings = storage.read_json(location)
    except (FileNotFoundError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def lists_of(one: BenchmarkSet, queries: Sequence[str], hits: Sequence[Hits]) -> pa.Table:
    """The candidates as LISTS; of the corpus only the texts that were found are read into memory."""
    assert one.corpus is not None
    wanted = {int(place) for of_query in hits for place in of_query.places}
    documents = {
        place: {"id": name, "text": text}
        for place, (name, text) in enumerate(read_corpus(one.corpus))
        if place in wanted
    }
    columns = {
        "query_id": list(queries),
        "query": [one.queries[query].text for query in queries],
        "documents": [[documents[int(place)] for place in of_query.places] for of_query in hits],
    }
    return pa.table(columns, schema=LISTS)
