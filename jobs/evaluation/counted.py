"""Counts the words of a set's corpus, for the BM25 among its baselines.

It is the whole corpus, as where BM25 searches it. In the lists alone, whose documents a search has chosen by the words
of the queries, these very words would seem common, and every sample of queries would give other scores.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from rich.console import Console

from jobs import storage
from jobs.training.label.frequencies import write_frequencies
from pipelines.evaluation.analysis import ANALYZER, words
from pipelines.evaluation.bm25 import Frequencies
from pipelines.evaluation.sets import BenchmarkSet, read_corpus


def counted_words(one: BenchmarkSet, room: str, console: Console) -> str | None:
    """The file with the counts of all words of queries, whose name changes with what is counted.

    None for a log, which has no corpus, and for a corpus of ids alone: then the lists have all texts that there are.
    """
    if one.corpus is None:
        return None
    asked = {word for query in one.queries.values() for word in words(query.text)}
    counted = json.dumps([ANALYZER, digest_of_corpus(one.corpus), sorted(asked)])
    location = os.path.join(room, f"words-{hashlib.sha256(counted.encode()).hexdigest()[:16]}.parquet")
    if not storage.exists(location):
        console.print(f"{one.name}: counting the words of its corpus", soft_wrap=True, highlight=False)
        found = Frequencies()
        found.add((words(text) for _, text in read_corpus(one.corpus)), asked)
        if not found.words:
            return None
        storage.make_directory(room)
        write_frequencies(location, found)
    return location


def digest_of_corpus(corpus: Path) -> str:
    """SHA-256 of the file."""
    with corpus.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
