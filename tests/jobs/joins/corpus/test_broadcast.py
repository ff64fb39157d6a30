"""A corpus in Ray's object store: once a node, whoever reads it; and how much room it may have."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import jobs.joins.corpus.survey
from jobs.errors import StoppedError
from jobs.input.corpus import Corpus
from jobs.joins.corpus.broadcast import BroadcastTexts, broadcast, room_for_corpus, size_in_memory
from jobs.joins.corpus.lookup import load_segment
from jobs.joins.corpus.survey import surveyed
from jobs.records import Unit
from tests.jobs.tables import write_input

UNIT = Unit("x.parquet", 0, 1)
IDS = pa.array([b"0", b"99", b"none"], pa.large_binary())


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """A hundred texts of 1,000 characters, in ten segments."""
    monkeypatch.setattr(jobs.joins.corpus.survey, "SEGMENT_BYTES", 10_500)
    table = pa.table({"id": range(100), "text": [f"{i} " * 400 for i in range(100)]})
    return surveyed(Corpus(str(write_input(tmp_path, a=table))))


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)


def test_it_is_found_from_other_processes(corpus: Corpus, cluster: str) -> None:
    source = broadcast(corpus)
    assert len(source.segments) == len(corpus.found.segments) > 5
    found = ray.get(ray.remote(num_cpus=0)(BroadcastTexts.look_up).remote(source, IDS, UNIT))
    assert [text and text[:3] for text in found.texts.to_pylist()] == [b"0 0", b"99 ", None]
    assert list(found.problems) == [2]


def test_processes_share_the_memory_of_what_they_have_looked_at(corpus: Corpus, cluster: str) -> None:
    """Texts are Arrow buffers that lie in the object store, which are read-only, and not copies."""
    source = broadcast(corpus)
    source.look_up(IDS, UNIT)
    assert source.at_hand is not None
    assert all(not segment.texts.buffers()[2].is_mutable for segment in source.at_hand)
    assert all(not segment.hashes.flags.writeable for segment in source.at_hand)
    assert len(pickle.dumps(source)) < 10_000


def test_a_segment_that_cannot_be_read_stops_the_job(corpus: Corpus, cluster: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "text": ["another"]}), tmp_path / "a.parquet")
    with pytest.raises(StoppedError, match=r"corpus file .*a\.parquet has changed since this run began"):
        broadcast(corpus)


def test_a_file_that_changed_is_not_loaded(corpus: Corpus, tmp_path: Path) -> None:
    segment = corpus.found.segments[-1]
    assert sorted(load_segment(segment, corpus).rows) == list(range(segment.start, segment.start + segment.rows))
    pq.write_table(pq.read_table(tmp_path / "a.parquet"), tmp_path / "a.parquet")
    with pytest.raises(StoppedError, match="has changed"):
        load_segment(segment, corpus)


def test_its_size_in_memory_is_foreseen(corpus: Corpus, no_ray: None) -> None:
    actual = sum(segment.nbytes for segment in broadcast(corpus).segments)
    assert size_in_memory(corpus) == pytest.approx(actual, rel=0.1)


def test_the_room_is_half_the_smallest_object_store_unless_given(corpus: Corpus, cluster: str) -> None:
    assert room_for_corpus(corpus) == 100 << 20
    assert room_for_corpus(replace(corpus, memory=7)) == 7
