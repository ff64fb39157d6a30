"""The files in which runs leave logits: what is written is found, what is not theirs is not used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs.score_store.store
from jobs.errors import StoreError
from jobs.score_store.store import METADATA_KEY, SCHEMA, ScoreStore, joined, load, table_of
from pipelines.fingerprint import Fingerprint, logits_fingerprint
from pipelines.memory import StoredLogits
from tests.pipelines.test_memory import stored as stored_of
from tests.stores import Bucket

FINGERPRINT = Fingerprint("files", "bert", "sigmoid", "float32", 512, 256, 80, None)
MODEL = logits_fingerprint(FINGERPRINT.as_dict())
ALL = 1 << 40


def key(number: int) -> bytes:
    return 2 * number.to_bytes(8, "big")


def logits(*numbers: int) -> dict[bytes, float]:
    return {key(number): float(number) for number in numbers}


def known(store: ScoreStore, most: int = ALL) -> dict[bytes, float]:
    """Of the first 100 keys."""
    return load(store, most).logits.look_up([key(number) for number in range(100)])


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore(str(tmp_path / "scores"), MODEL, begun="20261126T120000")


def later(store: ScoreStore, begun: str = "20261127T120000") -> ScoreStore:
    """The store of another run."""
    return ScoreStore(store.path, store.model, begun)


def test_what_runs_leave_is_known_to_the_next(store: ScoreStore) -> None:
    assert (known(store), load(store, ALL).files) == ({}, 0)
    store.write(table_of(logits(1, 2)))
    later(store).write(table_of(logits(3)))
    assert known(store) == logits(1, 2, 3)
    loaded = load(store, ALL)
    assert (loaded.files, loaded.files_left_out, loaded.unusable) == (2, 0, {})


def test_a_retry_writes_the_same_file_and_another_unit_another(store: ScoreStore) -> None:
    first = store.write(table_of(logits(1, 2)))
    assert store.write(table_of({key(2): 2.00001, key(1): 1.0})) == first
    assert store.write(table_of(logits(1, 3))) != first
    assert len(store.files()) == 2
    assert not [name for name in os.listdir(store.directory) if name.startswith(".")]


def test_a_file_is_sorted_and_says_whose_it_is(store: ScoreStore) -> None:
    table = pq.read_table(store.write(table_of(logits(5, 3, 4))))
    assert table.schema.equals(SCHEMA)
    assert table["key"].to_pylist() == [key(3), key(4), key(5)]
    assert b'"dtype": "float32"' in table.schema.metadata[METADATA_KEY]


def test_a_pair_in_several_files_has_the_newest_logit(store: ScoreStore) -> None:
    later(store).write(table_of({key(1): 1.00001}))
    store.write(table_of(logits(1, 2)))
    assert known(store) == {key(1): pytest.approx(1.00001), key(2): 2.0}
    assert len(load(store, ALL).logits) == 2


@pytest.mark.parametrize(
    ("changes", "is_shared"),
    [
        ({"max_length": 64, "max_query_length": 32, "overlap_tokens": 8, "max_chunks_per_doc": 1}, True),
        ({"activation": "identity"}, True),
        ({"dtype": "float16"}, False),
        ({"files": "other"}, False),
        ({"quantization": "int8"}, False),
        ({"engine_revision": 99}, False),
        ({"layout": "other"}, False),
        ({"a_part_of_a_later_version": 1}, False),
    ],
)
def test_models_share_logits_where_a_token_pair_has_the_same_one(
    store: ScoreStore, changes: dict[str, Any], is_shared: bool
) -> None:
    store.write(table_of(logits(1)))
    other = ScoreStore(store.path, logits_fingerprint(FINGERPRINT.as_dict() | changes))
    assert known(other) == (logits(1) if is_shared else {})


@pytest.fixture
def written(store: ScoreStore) -> Path:
    """A file that will be spoilt; another one is good."""
    store.write(table_of(logits(1)))
    return Path(later(store).write(table_of(logits(*range(20, 60)))))


def test_a_file_that_is_damaged_is_named_and_skipped(store: ScoreStore, written: Path) -> None:
    whole = written.read_bytes()
    middle = len(whole) // 3
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    table = pq.read_table(written).replace_schema_metadata({METADATA_KEY: b"[" * 100_000})
    pq.write_table(table, nested := pa.BufferOutputStream())
    for content in (b"", b"PAR1", whole[:-10], whole[10:], flipped, nested.getvalue().to_pybytes()):
        written.write_bytes(content)
        loaded = load(store, ALL)
        assert loaded.unusable.keys() == {str(written)}
        assert known(store) == logits(1)


@given(place=st.integers(0, 1_000_000), flip=st.integers(1, 255))
def test_a_bit_that_flips_never_makes_a_wrong_logit(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    store = ScoreStore(str(tmp_path_factory.mktemp("scores")), MODEL)
    path = Path(store.write(table_of(logits(*range(20, 60)))))
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= flip
    path.write_bytes(content)
    assert known(store).items() <= logits(*range(20, 60)).items()


def test_a_file_of_others_is_named_and_skipped(store: ScoreStore, written: Path) -> None:
    table = pq.read_table(written)
    nulls = table.set_column(1, "logit", pa.array([None] * table.num_rows, pa.float32()))
    infinite = table.set_column(1, SCHEMA.field(1), pa.array([np.inf] * table.num_rows, pa.float32()))
    texts = pa.table({"key": ["a"], "logit": ["b"]}, metadata=table.schema.metadata)
    for other, why in [
        (table.replace_schema_metadata(None), "holds no logits of format 1 and of this model"),
        (table.replace_schema_metadata({METADATA_KEY: b"[1]"}), "holds no logits"),
        (table.replace_schema_metadata({METADATA_KEY: b"{"}), "JSONDecodeError"),
        (nulls.replace_schema_metadata(table.schema.metadata), "has other columns than key and logit, or nulls"),
        (infinite.replace_schema_metadata(table.schema.metadata), "has a logit that is not finite"),
        (texts, "has other columns than key and logit"),
    ]:
        pq.write_table(other, written)
        assert why in load(store, ALL).unusable[str(written)]
        assert known(store) == logits(1)


def test_a_file_of_another_model_in_this_ones_place_is_skipped(store: ScoreStore, written: Path) -> None:
    other = ScoreStore(store.path, logits_fingerprint(FINGERPRINT.as_dict() | {"dtype": "float16"}))
    Path(other.write(table_of(logits(7)))).replace(written)
    assert load(store, ALL).unusable.keys() == {str(written)}
    assert known(store) == logits(1)


def test_other_names_are_no_ones_business(store: ScoreStore, written: Path) -> None:
    for name in ("notes.txt", "_hidden.parquet", ".x.parquet.123.tmp"):
        (written.parent / name).write_bytes(b"not ours")
    assert load(store, ALL).files == 2


def test_a_store_that_is_too_large_is_known_in_part_the_newest_first(store: ScoreStore) -> None:
    for day in range(1, 6):
        later(store, f"2026110{day}T000000").write(table_of(logits(*range(10 * day, 10 * day + 10))))
    loaded = load(store, 25)
    assert len(loaded.logits) == 25
    assert (loaded.files, loaded.files_left_out) == (5, 2)
    numbers = {int.from_bytes(one[:8]) for one in known(store, 25)}
    assert set(range(40, 60)) <= numbers < set(range(30, 60))
    assert len(load(store, 0).logits) == 0


def test_a_store_that_is_too_large_is_not_read_to_its_end(store: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        store.write(table_of(logits(number)))
    opened: list[str] = []
    read = ScoreStore.read

    def counted(self: ScoreStore, path: str) -> StoredLogits:
        opened.append(path)
        return read(self, path)

    monkeypatch.setattr(ScoreStore, "read", counted)
    assert len(load(store, 5).logits) == 5
    assert len(opened) <= jobs.score_store.store.READING_THREADS


def test_a_file_that_is_replaced_meanwhile_is_found_where_it_went(
    store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a compaction between the listing and the reading."""
    store.write(table_of(logits(1)))
    gone = store.write(table_of(logits(2)))
    files, moved = store.files(), list[str]()

    def listed(self: ScoreStore) -> list[str]:
        if not moved:
            os.remove(gone)
            moved.append(later(store).write(table_of(logits(2, 3))))
            return files
        return sorted({*moved, *files} - {gone})

    monkeypatch.setattr(ScoreStore, "files", listed)
    assert known(store) == logits(1, 2, 3)
    assert load(store, ALL).unusable == {}


@given(st.lists(st.dictionaries(st.integers(0, 99), st.floats(-9, 9, width=32), max_size=9), max_size=4))
def test_tables_that_are_joined_know_what_each_of_them_knew(tables: list[dict[int, float]]) -> None:
    expected: dict[bytes, float] = {}
    for one in reversed(tables):
        expected |= {key(number): logit for number, logit in one.items()}
    stored = joined([stored_of({key(n): logit for n, logit in one.items()}) for one in tables], ALL)
    assert stored.look_up([key(number) for number in range(100)]) == expected
    assert len(stored) == len(expected)


def test_a_store_lies_in_an_object_store_too(s3_bucket: Bucket) -> None:
    store = ScoreStore(f"{s3_bucket.uri}/scores", MODEL)
    assert known(store) == {}
    store.write(table_of(logits(1, 2)))
    later(store).write(table_of(logits(3)))
    assert known(store) == logits(1, 2, 3)
    [name, _] = s3_bucket.names()
    s3_bucket.put(name, s3_bucket.get(name)[:-10])
    assert len(load(store, ALL).unusable) == 1


@pytest.mark.usefixtures("impatient")
def test_an_object_store_that_fails_is_no_fault_of_a_file(s3_bucket: Bucket) -> None:
    store = ScoreStore(f"{s3_bucket.uri}/scores", MODEL)
    store.write(table_of(logits(1)))
    with s3_bucket.proxy.failing(1.0, kinds=["500"]), pytest.raises(StoreError):
        load(store, ALL)
