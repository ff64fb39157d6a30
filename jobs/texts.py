"""How documents that are ids come to their texts: from a corpus that each node holds, or from one joined on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from jobs.attaching import TextSource
from jobs.broadcast import broadcast, room_for_corpus, size_in_memory
from jobs.corpus import Corpus
from jobs.records import Unit
from jobs.selection import Selection
from jobs.table.columns import Layout
from jobs.text_join import join_texts
from pipelines.errors import ConfigError


def with_texts(
    selection: Selection,
    corpus: Corpus | None,
    layout: Layout,
    todo: Sequence[Unit],
    directory: str,
    console: Console,
) -> Selection:
    """The selection with the texts of the units in `todo`; the size of the corpus decides how they come.

    Raises StoppedError when the corpus cannot be read.
    """
    if corpus is None or selection.texts is None:
        return selection
    texts = replace(selection.texts, layout=layout)
    source: TextSource
    if size_in_memory(corpus) <= room_for_corpus(corpus):
        source = held_by_all(corpus, console)
    else:
        source = join_texts(replace(selection, texts=texts), corpus, todo, directory, console)
    return replace(selection, texts=replace(texts, source=source))


def with_texts_here(selection: Selection, corpus: Corpus | None, layout: Layout, console: Console) -> Selection:
    """The same in this process alone, without Ray and files; raises ConfigError for a corpus that is too large."""
    if corpus is None or selection.texts is None:
        return selection
    size, room = size_in_memory(corpus), room_for_corpus(corpus)
    if size > room:
        raise ConfigError(
            f"--dry-run holds the whole corpus in memory, and {corpus.path} takes some {size:,} bytes, of {room:,} "
            "that it may take; give --corpus-memory to allow more (the job itself needs no more)"
        )
    return replace(selection, texts=replace(selection.texts, layout=layout, source=held_by_all(corpus, console)))


def held_by_all(corpus: Corpus, console: Console) -> TextSource:
    """The corpus in the object store, or here."""
    started = time.perf_counter()
    source = broadcast(corpus)
    size, took = size_in_memory(corpus) / 2**20, time.perf_counter() - started
    console.print(f"corpus: {corpus.found.rows:,} documents, some {size:,.0f} MiB on each node, loaded in {took:.1f} s")
    return source
