"""How documents that are ids come to their texts: from a corpus that each node holds, or from one joined on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from jobs.input.corpus import Corpus
from jobs.input.selection import Selection
from jobs.joins.corpus.attaching import TextsById, TextSource
from jobs.joins.corpus.broadcast import broadcast, room_for_corpus, size_in_memory
from jobs.joins.corpus.disk_join import join_texts
from jobs.records import Unit
from jobs.table.columns import ColumnMapping, Layout
from pipelines.errors import ConfigError


def texts_for(
    todo: Sequence[Unit],
    selection: Selection,
    corpus: Corpus | None,
    mapping: ColumnMapping,
    layout: Layout,
    directory: str,
    console: Console,
) -> TextsById | None:
    """How the documents of the units in `todo` get their texts; None where they are no ids.

    The size of the corpus decides how they come. Raises StoppedError when it cannot be read.
    """
    if corpus is None:
        return None
    texts = TextsById(mapping, corpus.found.bytes_per_row, layout)
    source: TextSource
    if size_in_memory(corpus) <= room_for_corpus(corpus):
        source = held_by_all(corpus, console)
    else:
        source = join_texts(selection, texts, corpus, todo, directory, console)
    return replace(texts, source=source)


def texts_here(corpus: Corpus | None, mapping: ColumnMapping, layout: Layout, console: Console) -> TextsById | None:
    """As `texts_for`, in this process alone, without Ray and files; raises ConfigError for too large a corpus."""
    if corpus is None:
        return None
    size, room = size_in_memory(corpus), room_for_corpus(corpus)
    if size > room:
        raise ConfigError(
            f"--dry-run holds the whole corpus in memory, and {corpus.path} takes some {size:,} bytes, of {room:,} "
            "that it may take; give --corpus-memory to allow more (the job itself needs no more)"
        )
    return TextsById(mapping, corpus.found.bytes_per_row, layout, held_by_all(corpus, console))


def held_by_all(corpus: Corpus, console: Console) -> TextSource:
    """Loads the corpus for every node, or without Ray for this process, and says how large it is."""
    started = time.perf_counter()
    source = broadcast(corpus)
    size, took = size_in_memory(corpus) / 2**20, time.perf_counter() - started
    console.print(f"corpus: {corpus.found.rows:,} documents, some {size:,.0f} MiB on each node, loaded in {took:.1f} s")
    return source
