"""`crossray scores compact`: fewer files, the same logits, at every moment."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs import storage
from jobs.cli import app
from jobs.errors import USAGE
from jobs.score_store.compaction import compact, stores_in
from jobs.score_store.store import SCHEMA, ScoreStore, load, table_of
from tests.jobs.score_store.test_store import ALL, MODEL, key, known, later, logits
from tests.stores import Bucket


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    """Five files of a day each: 10 pairs a day, one of them also the day before."""
    store = ScoreStore(str(tmp_path / "scores"), MODEL)
    for day in range(1, 6):
        later(store, f"2026110{day}T000000").write(table_of(logits(*range(10 * day - 1, 10 * day + 10))))
    return store


EVERYTHING = logits(*range(9, 60))


def test_small_files_become_one_with_the_same_logits(store: ScoreStore) -> None:
    done = compact(store)
    assert (done.files_before, done.files_after, done.unusable) == (5, 1, {})
    assert known(store) == EVERYTHING
    [file] = store.files()
    table = pq.read_table(file)
    assert table.schema.equals(SCHEMA)
    assert table["key"].to_pylist() == sorted(EVERYTHING)
    assert os.path.basename(file).startswith("20261105T000000-")  # as old as the newest
    assert compact(store).files_after == 1
    assert store.files() == [file]


def test_of_a_pair_in_several_files_the_newest_logit_stays(store: ScoreStore) -> None:
    later(store).write(table_of({key(9): 9.00001}))
    compact(store)
    assert known(store) == EVERYTHING | {key(9): pytest.approx(9.00001)}


def test_large_files_are_left_as_they_are(store: ScoreStore) -> None:
    compact(store, file_pairs=30)
    first = store.files()
    assert len(first) == 2  # of 31 and 21 pairs, both more than half of 30
    later(store).write(table_of(logits(70)))
    later(store).write(table_of(logits(71)))
    compact(store, file_pairs=30)
    assert set(first) < set(store.files())
    assert known(store) == EVERYTHING | logits(70, 71)


def test_every_logit_is_there_at_every_moment(store: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a reader between writing and removing, and beside a second compaction and a writer at that moment."""
    remove, moments = storage.remove, list[int]()

    def looked_at(*paths: str) -> None:
        moments.append(len(paths))
        assert known(store) == EVERYTHING | (logits(70) if len(moments) > 1 else {})
        if len(moments) == 1:
            later(store).write(table_of(logits(70)))
            compact(store)
        remove(*paths)

    monkeypatch.setattr(storage, "remove", looked_at)
    compact(store)
    assert moments[0] == 5
    assert len(moments) > 1
    assert known(store) == EVERYTHING | logits(70)


def test_a_reader_that_listed_before_finds_all_the_same(store: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ScoreStore.files
    calls: list[list[str]] = []

    def listed(self: ScoreStore) -> list[str]:
        calls.append(files(self))
        if len(calls) == 1:
            monkeypatch.setattr(ScoreStore, "files", files)
            compact(store)
        return calls[-1]

    monkeypatch.setattr(ScoreStore, "files", listed)
    loaded = load(store, ALL)
    assert len(loaded.logits) == len(EVERYTHING)
    assert (loaded.files, loaded.files_left_out, loaded.unusable) == (1, 0, {})


def test_files_that_are_damaged_or_foreign_stay(store: ScoreStore) -> None:
    damaged = store.files()[2]
    Path(damaged).write_bytes(b"PAR1")
    result = CliRunner().invoke(app, ["scores", "compact", store.path])
    assert result.exit_code == 1
    assert "5 file(s) -> 2" in result.output.replace("\n", "")
    assert damaged in result.output.replace("\n", "")
    assert damaged in store.files()


def test_all_models_of_a_store_are_compacted(store: ScoreStore) -> None:
    other = ScoreStore(store.path, MODEL | {"hash": "other", "dtype": "float16"})
    for number in (1, 2):
        other.write(table_of(logits(number)))
    (Path(store.path) / "logits-empty").mkdir()
    (Path(store.path) / "logits-notes.txt").touch()
    result = CliRunner().invoke(app, ["scores", "compact", store.path])
    assert result.exit_code == 0, result.output
    assert "dtype float16" in result.output
    assert (len(store.files()), len(other.files())) == (1, 1)
    assert known(other) == logits(1, 2)


def test_a_directory_without_scores_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["scores", "compact", str(tmp_path)])
    assert result.exit_code == USAGE
    assert "holds no scores; give what --scores was" in result.output.replace("\n", "")


def test_a_store_in_an_object_store_is_compacted_too(s3_bucket: Bucket) -> None:
    store = ScoreStore(f"{s3_bucket.uri}/scores", MODEL)
    for number in range(3):
        store.write(table_of(logits(number)))
    [found] = stores_in(store.path)
    assert compact(found).files_after == 1
    assert known(store) == logits(0, 1, 2)
    assert len(s3_bucket.names()) == 1
