"""Jobs that do not score twice: the rankings are the same, and only new pairs go through the model."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

import jobs.workers.replica
from jobs.audit.facts import gather, look
from jobs.driver.run import run
from jobs.errors import RefusedError
from jobs.inspection import counts_table
from jobs.score_store.store import ScoreStore
from jobs.scoring.scorer import own_scorer
from jobs.settings import RerankSettings
from jobs.workers.known_scores import memory_for_logits
from pipelines.engine import CrossEncoder
from pipelines.errors import ConfigError
from pipelines.packing import TokenPair
from tests.checkpoints import words
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import MortalScorer
from tests.jobs.tables import (
    PADDING,
    assert_nothing_left_over,
    assert_summary_adds_up,
    footers,
    parts,
    read_json,
    rows_of_output,
    write_input,
)
from tests.stores import Bucket

TOLERANCE = 1e-4


def popular_table(queries: Sequence[int], documents: int = 3) -> pa.Table:
    """A row for each of these queries, some 26 a unit; the same query has the same documents."""
    return pa.table(
        {
            "query": [words(3, seed=i) for i in queries],
            "documents": [[words(6, seed=1000 * i + j) for j in range(documents)] for i in queries],
            "padding": [PADDING] * len(queries),
        }
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """100 queries in four units, of which 10 are different: 300 pairs, 30 different ones."""
    return write_input(tmp_path / "in", a=popular_table([i % 10 for i in range(100)]))


@pytest.fixture
def scores(tmp_path: Path) -> str:
    return str(tmp_path / "scores")


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs each call of the model in this process had."""
    calls: list[int] = []
    forward = CrossEncoder.distinct_logits

    def counted(self: CrossEncoder, pairs: Sequence[TokenPair]) -> np.ndarray:
        calls.append(len(pairs))
        return forward(self, pairs)

    monkeypatch.setattr(CrossEncoder, "distinct_logits", counted)
    return calls


Rerank = Callable[..., dict[str, Any]]


@pytest.fixture
def rerank(run_job: RunJob, without_ray: None, forwarded: list[int]) -> Rerank:
    """A job of one real replica in this process; `forwarded` begins anew."""

    def rerank_it(input: Path, output: Path, **settings: Any) -> dict[str, Any]:
        forwarded.clear()
        return run_job(input, output, scorer_class=own_scorer, **settings)

    return rerank_it


def assert_same_rankings(ours: Path, theirs: Path) -> None:
    """Rows, order and counts; scores within the tolerance."""
    assert footers(ours) == footers(theirs)
    for mine, other in zip(rows_of_output(ours), rows_of_output(theirs), strict=True):
        assert [one["index"] for one in mine["ranking"]] == [one["index"] for one in other["ranking"]]
        scores = [[one["relevance_score"] for one in row["ranking"]] for row in (mine, other)]
        assert scores[0] == pytest.approx(scores[1], abs=TOLERANCE)
        assert mine["error"] == other["error"]


def test_a_replica_scores_a_pair_once_as_long_as_it_remembers(
    tmp_path: Path, source: Path, rerank: Rerank, forwarded: list[int]
) -> None:
    """Without a memory once in each unit; and no answer tells the difference."""
    remembering = rerank(source, tmp_path / "remembering")
    assert forwarded == [30, 0, 0, 0]
    forgetting = rerank(source, tmp_path / "forgetting", recent_pairs=0)
    assert forwarded == [30, 30, 30, 30]
    assert_same_rankings(tmp_path / "remembering", tmp_path / "forgetting")
    for output, summary, reused in [("remembering", remembering, 270), ("forgetting", forgetting, 180)]:
        assert_summary_adds_up(tmp_path / output, summary, 100)
        assert (summary["chunks"], summary["chunks_reused"]) == (300, reused)
        [attempt] = summary["attempts"]
        assert (attempt["chunks"], attempt["chunks_reused"]) == (300, reused)
        assert "chunks_reused" not in footers(tmp_path / output)[0]


def test_what_was_not_scored_is_shown(tmp_path: Path, source: Path, rerank: Rerank, said: io.StringIO) -> None:
    rerank(source, tmp_path / "out")
    assert "chunks reused" in said.getvalue()
    assert "270 of 300 (90%)" in said.getvalue()
    facts = gather(look(str(tmp_path / "out")))
    console = Console(file=io.StringIO(), width=200)
    console.print(counts_table(facts))
    assert "270 of 300 (90%)" in console.file.getvalue()  # type: ignore[attr-defined]
    assert facts.as_dict()["chunks_reused"] == 270


@pytest.mark.parametrize("recent_pairs", [0, 200_000])
def test_a_second_run_with_the_same_store_scores_nothing(
    tmp_path: Path,
    source: Path,
    scores: str,
    rerank: Rerank,
    forwarded: list[int],
    said: io.StringIO,
    recent_pairs: int,
) -> None:
    rerank(source, tmp_path / "plain")
    first = rerank(source, tmp_path / "first", scores=scores, recent_pairs=recent_pairs)
    assert sum(forwarded) == (30 if recent_pairs else 120)
    files = sorted(Path(scores).rglob("*.parquet"))
    second = rerank(source, tmp_path / "second", scores=scores, recent_pairs=recent_pairs)
    assert sum(forwarded) == 0
    assert second["chunks_reused"] == second["chunks"] == 300
    assert sorted(Path(scores).rglob("*.parquet")) == files  # nothing is new
    assert "30 pairs are known" in said.getvalue()
    for output, summary in [("first", first), ("second", second)]:
        assert_summary_adds_up(tmp_path / output, summary, 100)
        assert_nothing_left_over(tmp_path / output)
        assert_same_rankings(tmp_path / output, tmp_path / "plain")


def test_tomorrows_log_pays_for_its_new_pairs_only(
    tmp_path: Path, source: Path, scores: str, rerank: Rerank, forwarded: list[int]
) -> None:
    """In another file, under other names, with other options, and as pair rows."""
    rerank(source, tmp_path / "today", scores=scores)
    tomorrow = write_input(tmp_path / "tomorrow", b=popular_table([8, 9, 10, 11]))
    rerank(tomorrow, tmp_path / "ranked", scores=scores, top_n=1, reranker={"raw_scores": True, "max_length": 100})
    assert forwarded == [6]
    pairs = pa.table(
        {"query": [words(3, seed=i) for i in (9, 11, 12)], "document": [words(6, seed=1000 * i) for i in (9, 11, 12)]}
    )
    rerank(write_input(tmp_path / "pairs", c=pairs), tmp_path / "scored", scores=scores)
    assert forwarded == [1]


def test_another_model_knows_nothing_of_this_ones_scores(
    tmp_path: Path, source: Path, scores: str, rerank: Rerank, forwarded: list[int], xlm_roberta_directory: Path
) -> None:
    for model in ({}, {"dtype": "float16"}, {"model": str(xlm_roberta_directory)}):
        rerank(source, tmp_path / "out", scores=scores, reranker=model, overwrite=True)
        assert sum(forwarded) == 30
    assert len(list(Path(scores).iterdir())) == 3


class KilledError(BaseException):
    """Ends a job as a kill does: nothing is cleaned up, nothing said."""


def killing(monkeypatch: pytest.MonkeyPatch, at_part: int) -> None:
    """The job dies instead of writing its part of this number."""
    write_part, written = jobs.workers.replica.write_part, list[str]()

    def write_or_die(*arguments: Any) -> Any:
        if len(written) == at_part:
            raise KilledError
        counts = write_part(*arguments)
        written.append("one more")
        return counts

    monkeypatch.setattr(jobs.workers.replica, "write_part", write_or_die)


def test_a_death_between_scores_and_part_costs_no_score_and_doubles_no_row(
    tmp_path: Path, scores: str, rerank: Rerank, forwarded: list[int]
) -> None:
    """And what was finished before is neither scored nor looked at again."""
    source = write_input(tmp_path / "in", a=popular_table(range(100)))
    rerank(source, tmp_path / "plain")
    with pytest.MonkeyPatch.context() as patch:
        killing(patch, at_part=2)
        with pytest.raises(KilledError):
            rerank(source, tmp_path / "out", scores=scores)
    assert len(parts(tmp_path / "out")) == 2
    assert len(list(Path(scores).rglob("*.parquet"))) == 3
    before = sum(forwarded)
    summary = rerank(source, tmp_path / "out", scores=scores)
    assert before + sum(forwarded) == 300
    assert len(forwarded) == 2
    assert forwarded[0] == 0
    assert_summary_adds_up(tmp_path / "out", summary, 100)
    assert_nothing_left_over(tmp_path / "out")
    assert_same_rankings(tmp_path / "out", tmp_path / "plain")


def test_what_is_remembered_may_change_between_a_run_and_its_resumption(
    tmp_path: Path, source: Path, scores: str, rerank: Rerank
) -> None:
    output = tmp_path / "out"
    for settings in ({}, {"scores": scores}, {"recent_pairs": 0}, {"scores": scores, "scores_memory": 5_000_000}):
        summary = rerank(source, output, **settings)
        assert_summary_adds_up(output, summary, 100)
        (output / "_summary.json").unlink()
        parts(output)[1].unlink()
    assert "scores" not in read_json(output / "_manifest.json")["options"]


def test_a_file_that_is_no_ones_is_said_once_and_costs_no_job(
    tmp_path: Path, source: Path, scores: str, rerank: Rerank, forwarded: list[int], said: io.StringIO
) -> None:
    rerank(source, tmp_path / "first", scores=scores)
    [file] = Path(scores).rglob("*.parquet")
    file.write_bytes(b"PAR1")
    rerank(source, tmp_path / "second", scores=scores)
    assert sum(forwarded) == 30
    assert said.getvalue().count(f"skipped: {file} (ArrowInvalid") == 1
    assert_same_rankings(tmp_path / "second", tmp_path / "first")


def test_scores_that_cannot_be_kept_cost_no_row(
    tmp_path: Path, source: Path, scores: str, rerank: Rerank, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica tries once, and the driver says it once."""
    tried: list[Path] = []

    def full(self: ScoreStore, logits: pa.Table) -> str:
        tried.append(Path(self.directory))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScoreStore, "write", full)
    summary = rerank(source, tmp_path / "out", scores=scores, recent_pairs=0)
    assert len(tried) == 1
    assert said.getvalue().count("new scores were not stored: OSError: [Errno 28]") == 1
    assert "(4 unit(s))" in said.getvalue()
    assert_summary_adds_up(tmp_path / "out", summary, 100)


def test_a_store_that_is_too_large_helps_as_far_as_it_fits(
    tmp_path: Path, scores: str, rerank: Rerank, forwarded: list[int], said: io.StringIO
) -> None:
    source = write_input(tmp_path / "in", a=popular_table(range(100)))
    rerank(source, tmp_path / "first", scores=scores)
    rerank(source, tmp_path / "second", scores=scores, scores_memory=2_000)  # 100 pairs
    assert sum(forwarded) == 200
    assert "100 pairs are known from 4 file(s)" in said.getvalue()
    assert "known pairs do not all fit: the 2 oldest of 4 files" in said.getvalue()
    assert_same_rankings(tmp_path / "second", tmp_path / "first")


def test_known_scores_leave_room_in_the_object_store_of_the_smallest_node(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory_for_logits(1_000_000) == 1_000_000
    assert memory_for_logits(10**12) == (200 << 20) / 2


@pytest.mark.parametrize(
    ("place", "other"), [("in", "INPUT"), ("in/scores", "INPUT"), ("out", "OUTPUT"), ("out/scores", "OUTPUT")]
)
def test_a_store_lies_apart_from_input_and_output(
    tmp_path: Path, source: Path, rerank: Rerank, place: str, other: str
) -> None:
    with pytest.raises(RefusedError, match=rf"--scores .* and {other} .* contain one another; keep them apart"):
        rerank(source, tmp_path / "out", scores=str(tmp_path / place))
    assert not (tmp_path / "out").exists()


def test_neither_input_nor_output_lies_in_a_store(tmp_path: Path, source: Path, rerank: Rerank) -> None:
    with pytest.raises(RefusedError, match="--scores"):
        rerank(source, tmp_path / "out", scores=str(tmp_path))
    with pytest.raises(RefusedError, match=r"--scores .* and OUTPUT"):
        rerank(source, tmp_path / "scores" / "out", scores=str(tmp_path / "scores"))


def test_a_store_is_a_directory(tmp_path: Path, source: Path, rerank: Rerank) -> None:
    (tmp_path / "scores").touch()
    with pytest.raises(ConfigError, match="scores is a file; give a directory"):
        rerank(source, tmp_path / "out", scores=str(tmp_path / "scores"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recent_pairs": -1}, "--recent-pairs is -1; it is 0"),
        ({"scores_memory": 0}, "--scores-memory is 0; give bytes, more than 0"),
    ],
)
def test_values_that_cannot_work_are_usage_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RerankSettings("in", "out", **settings)


def test_a_store_may_lie_in_an_object_store(
    tmp_path: Path, source: Path, s3_bucket: Bucket, rerank: Rerank, forwarded: list[int]
) -> None:
    for expected in (30, 0):
        output = tmp_path / str(expected)
        assert_summary_adds_up(output, rerank(source, output, scores=f"{s3_bucket.uri}/scores"), 100)
        assert sum(forwarded) == expected
    assert_same_rankings(tmp_path / "30", tmp_path / "0")


def test_a_bucket_that_is_not_there_is_a_usage_error(tmp_path: Path, source: Path, s3: None, rerank: Rerank) -> None:
    with pytest.raises(ConfigError, match="there is no such bucket"):
        rerank(source, tmp_path / "out", scores="s3://no-such-bucket/scores")
    assert not (tmp_path / "out").exists()


def test_replicas_on_ray_share_what_is_stored(
    tmp_path: Path, cluster: str, source: Path, scores: str, settings_of: Callable[..., RerankSettings]
) -> None:
    for output, reused in [("first", None), ("second", 300)]:
        settings = settings_of(source, tmp_path / output, scores=scores, replicas=(2, 2))
        summary = run(settings, console=Console(file=io.StringIO()))
        assert_summary_adds_up(tmp_path / output, summary, 100)
        assert reused is None or summary["chunks_reused"] == reused
        assert summary["stages"]["forward"] + summary["stages"]["idle"] == (
            pytest.approx(summary["replica_seconds"], abs=0.01)
        )
    assert_same_rankings(tmp_path / "first", tmp_path / "second")


@pytest.mark.slow
def test_a_replica_that_dies_takes_no_score_with_it_that_the_next_run_would_miss(
    tmp_path: Path, cluster: str, scores: str, run_job: RunJob
) -> None:
    source = write_input(tmp_path / "in", a=popular_table(range(100)))
    summary = run_job(source, tmp_path / "out", scorer_class=MortalScorer, scores=scores)
    assert (tmp_path / "out.died").exists()
    assert_summary_adds_up(tmp_path / "out", summary, 100)
    assert summary["rows_with_errors"] == 0
    again = run_job(source, tmp_path / "again", scorer_class=own_scorer, scores=scores)
    assert again["chunks_reused"] == again["chunks"] == 300
    assert_same_rankings(tmp_path / "out", tmp_path / "again")
