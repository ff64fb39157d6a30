"""`crossray pairs`: what several units have, each once; scored before the log, it leaves the replicas nothing twice."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from jobs.cli import app
from jobs.errors import REFUSED, USAGE
from jobs.pairs import ROWS_OF_A_FILE, RepeatedPairs, digests_of, texts_of, write_repeated_pairs
from jobs.settings import RerankSettings
from tests.jobs.tables import write_input
from tests.jobs.workers.test_known_scores import Rerank, assert_same_rankings, forwarded, popular_table, rerank
from tests.stores import Bucket

__all__ = ["forwarded", "rerank"]  # fixtures

TEXTS = st.sampled_from(["", "a", "ab", "b", "ä\x00", "a b"])
UNITS = st.lists(st.lists(st.tuples(TEXTS, TEXTS), max_size=10), max_size=6)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """100 queries in four units: 0 to 59 once, 0 to 9 four more times."""
    return write_input(tmp_path / "in", a=popular_table([*range(60), *(i % 10 for i in range(40))]))


def found_in(source: Path | str, output: Path | str, rows_of_a_file: int = ROWS_OF_A_FILE) -> RepeatedPairs:
    settings = RerankSettings(str(source), str(output))
    return write_repeated_pairs(settings, Console(file=io.StringIO()), rows_of_a_file)


@given(UNITS)
def test_the_pairs_of_several_units_come_once_in_their_order(units: list[list[tuple[str, str]]]) -> None:
    distinct = [np.unique(digests_of(unit)) for unit in units]
    digests, counts = np.unique(np.concatenate([*distinct, np.empty(0, np.uint64)]), return_counts=True)
    repeated = digests[counts > 1]
    expected = [pair for unit in units for pair in unit if sum(pair in other for other in units) > 1]
    actual = list(texts_of(repeated, iter(units))) if len(repeated) else []
    assert actual == list(dict.fromkeys(expected))


def test_a_log_whose_repeated_pairs_were_scored_first_scores_none_twice(
    tmp_path: Path, source: Path, rerank: Rerank, forwarded: list[int]
) -> None:
    """Even by replicas without any memory, each of which would score them again."""
    scores = str(tmp_path / "scores")
    rerank(source, tmp_path / "plain", recent_pairs=0)
    alone = sum(forwarded)
    found = found_in(source, tmp_path / "pairs")
    assert found == RepeatedPairs(pairs=alone, distinct=180, repeated=30)
    rerank(tmp_path / "pairs", tmp_path / "scored", recent_pairs=0, scores=scores)
    assert sum(forwarded) == 30
    rerank(source, tmp_path / "ranked", recent_pairs=0, scores=scores)
    assert sum(forwarded) == 150 < alone
    assert_same_rankings(tmp_path / "ranked", tmp_path / "plain")


def test_pair_rows_rows_with_errors_and_other_names_are_understood(tmp_path: Path) -> None:
    table = pa.table({"q": ["a", "a", None, "b"], "d": ["x", None, "x", "y"]})
    source = write_input(tmp_path / "in", one=table, other=table)
    arguments = [str(source), str(tmp_path / "out"), "--query-column", "q", "--document-column", "d"]
    result = CliRunner().invoke(app, ["pairs", *arguments])
    assert result.exit_code == 0, result.output
    assert "4 pairs in 2 units, 2 distinct; 2 in several units" in result.output
    assert "rerank" in result.output
    [file] = (tmp_path / "out").iterdir()
    assert pq.read_table(file).to_pydict() == {"query": ["a", "b"], "document": ["x", "y"]}


def test_the_same_command_again_writes_the_same_files_and_no_others(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "pairs"
    found_in(source, output, rows_of_a_file=7)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert [pq.read_metadata(output / name).num_rows for name in sorted(before)] == [7, 7, 7, 7, 2]
    (output / "pairs-000099.parquet").touch()
    (output / ".pairs-000001.parquet.ab.tmp").touch()
    found_in(source, output, rows_of_a_file=7)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_unit_that_cannot_be_read_costs_the_others_nothing(tmp_path: Path, source: Path) -> None:
    (source / "damaged.parquet").write_bytes(b"PAR1")
    assert found_in(source, tmp_path / "pairs").repeated == 30


def test_a_log_without_repetition_leaves_nothing_to_score(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in", a=popular_table(range(40)))
    assert found_in(source, tmp_path / "pairs") == RepeatedPairs(120, 120, 0)
    assert list((tmp_path / "pairs").iterdir()) == []


def test_a_directory_of_others_is_refused(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    for place, code in [("out", REFUSED), ("out/mine.txt", REFUSED), ("in/pairs", REFUSED)]:
        result = CliRunner().invoke(app, ["pairs", str(source), str(tmp_path / place)])
        assert result.exit_code == code, result.output
    assert CliRunner().invoke(app, ["pairs", str(tmp_path / "nothing"), str(tmp_path / "new")]).exit_code == USAGE
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_log_may_lie_in_an_object_store(source: Path, s3_bucket: Bucket) -> None:
    assert found_in(source, f"{s3_bucket.uri}/pairs").repeated == 30
    assert s3_bucket.names() == ["pairs/pairs-000000.parquet"]
