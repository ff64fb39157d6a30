"""A corpus table: what can be one, and what tells whether it is still the same."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jobs.joins.corpus.survey
from jobs.input.corpus import Corpus
from jobs.joins.corpus.survey import surveyed
from jobs.records import Unit
from pipelines.errors import ConfigError
from tests.jobs.tables import write_input

TABLE = pa.table({"id": ["a", "b"], "text": ["one", "two"]})


def test_it_is_cut_into_segments_that_cover_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.joins.corpus.survey, "SEGMENT_BYTES", 1_050)
    source = write_input(tmp_path, a=TABLE, b=pa.table({"id": range(40), "text": ["x" * 88] * 40}))
    plan = surveyed(Corpus(str(source))).found
    a, b = (str(source / name) for name in ("a.parquet", "b.parquet"))
    assert plan.segments == (Unit(a, 0, 2), *(Unit(b, start, 10) for start in range(0, 40, 10)))
    assert plan.rows == 42
    assert plan.bytes == pytest.approx(40 * 100, rel=0.05)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            TABLE.rename_columns(["key", "text"]),
            r"no column `id`; there are `key`, `text`; name another with --corpus-id",
        ),
        (TABLE.rename_columns(["id", "body"]), r"no column `text`; .* with --corpus-text"),
        (TABLE.append_column("id", TABLE["id"]), r"more than one column `id`"),
        (
            TABLE.set_column(0, "id", pa.array([[1], [2]])),
            r"`id` of .* is list<.*>, but it has to be text, integer, UUID,",
        ),
        (TABLE.set_column(1, "text", pa.array([1, 2])), r"`text` of .* is int64, but it has to be text"),
    ],
)
def test_a_table_that_cannot_be_a_corpus_is_a_usage_error(tmp_path: Path, table: pa.Table, message: str) -> None:
    source = write_input(tmp_path, a=TABLE, b=table)
    with pytest.raises(ConfigError, match=rf"--corpus: .*{message}"):
        surveyed(Corpus(str(source)))


def test_a_corpus_that_is_not_there_or_damaged_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--corpus '.*' has no Parquet files"):
        surveyed(Corpus(str(tmp_path)))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 it is not")
    with pytest.raises(ConfigError, match=r"--corpus: .*a\.parquet cannot be read: ArrowInvalid"):
        surveyed(Corpus(str(tmp_path)))


def test_another_file_another_content_and_another_column_make_it_another_corpus(tmp_path: Path) -> None:
    source = write_input(tmp_path, a=TABLE)
    seen = [surveyed(Corpus(str(source))).identity()]
    assert surveyed(Corpus(str(source))).identity() == seen[0]
    seen.append(surveyed(Corpus(str(source), text_column="id")).identity())
    pq.write_table(TABLE, source / "b.parquet")
    seen.append(surveyed(Corpus(str(source))).identity())
    pq.write_table(TABLE.slice(1), source / "b.parquet")
    seen.append(surveyed(Corpus(str(source))).identity())
    assert len({str(one) for one in seen}) == 4
    assert seen[2]["files"] == 2
