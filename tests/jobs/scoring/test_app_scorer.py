"""Jobs that a running app scores: the same output, whatever happens to the app."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import requests
from ray import serve
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve.exceptions import RayServeException
from rich.console import Console

import jobs.driver.resolution
import jobs.runtime.session
import jobs.scoring.app_scorer
import jobs.workers.quarantine
from jobs.driver.resolution import with_resolved_model
from jobs.driver.run import run
from jobs.errors import USAGE, DeadlyError, RefusedError, StoppedError
from jobs.rerank import exit_code
from jobs.scoring.app_scorer import AppEngine
from jobs.settings import RerankSettings
from pipelines.calibration import Calibration
from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError, CrossrayError
from pipelines.fingerprint import ServedModel, planned_fingerprint
from pipelines.lengths import Lengths
from pipelines.model_sources import find_model
from pipelines.packing import TokenPair
from pipelines.pair_block import PairBlock
from pipelines.records import CandidateList, Ranking, ScoringTime
from serve.app import build_app
from serve.settings import ServeArgs
from tests.checkpoints import words, write_qwen
from tests.conftest import LiveApp
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import POISON, StubScorer
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    lists_table,
    parts,
    queries,
    read_output,
    wide_table,
    write_input,
)
from tests.jobs.workers.test_death import blamed, four_rows_a_unit, meanwhile, wait_until, written
from tests.serve.test_live import pids_of

APP = "crossray"
TOLERANCE = 1e-4


def run_with(app: str | None, source: Path, output: Path, **settings: Any) -> dict[str, Any]:
    """A job with the embedded model, scored by the app or by one replica of its own."""
    where = {"app": app} if app else {"replicas": (1, 1)}
    return run(RerankSettings(str(source), str(output), **where, **settings), console=Console(file=StringIO()))


def assert_same_answers(ours: pa.Table, expected: pa.Table) -> None:
    """Rows, order and errors equal; scores within the tolerance."""
    assert ours.drop(["ranking"]).equals(expected.drop(["ranking"]))
    for mine, other in zip(ours["ranking"].to_pylist(), expected["ranking"].to_pylist(), strict=True):
        assert [one["index"] for one in mine or []] == [one["index"] for one in other or []]
        scores = [[one["relevance_score"] for one in ranking or []] for ranking in (mine, other)]
        assert [one is None for one in scores[0]] == [one is None for one in scores[1]]
        present = [[score for score in some if score is not None] for some in scores]
        assert present[0] == pytest.approx(present[1], abs=TOLERANCE)


def scorer_pids() -> list[int]:
    """The processes of the app's scorers."""
    return pids_of("Scorer", APP)


def test_a_job_of_an_app_writes_what_its_own_replicas_would(tmp_path: Path, live_app: LiveApp) -> None:
    """With lengths and top_n of its own, long documents, a null one, and a row that cannot be scored."""
    table = wide_table(60)
    documents = table["documents"].to_pylist()
    documents[7] = ["", words(900, seed=1), words(3, seed=2), words(900, seed=3)]
    documents[8] = [None, "fine"]
    documents[9] = None
    table = table.set_column(2, "documents", pa.array(documents))
    source = write_input(tmp_path / "in", a=table)
    settings = {"reranker": RerankerConfig(max_length=128, overlap_tokens=10, raw_scores=True), "top_n": 3}
    summaries = [run_with(app, source, tmp_path / str(app), **settings) for app in (APP, None)]
    assert_same_answers(read_output(tmp_path / APP), read_output(tmp_path / "None"))
    assert_summary_adds_up(tmp_path / APP, summaries[0], 60)
    assert_nothing_left_over(tmp_path / APP)
    for name in ("rows", "pairs", "chunks", "tokens", "errors", "parts"):
        assert summaries[0][name] == summaries[1][name]
    assert (summaries[0]["errors"], summaries[0]["null_documents"]) == ({"null_documents": 1}, 1)
    [attempt] = summaries[0]["attempts"]
    assert 1 <= attempt["replicas"] <= 3
    assert attempt["units_at_once"] == 4
    stages = summaries[0]["stages"]
    assert stages["forward"] > stages["tokenize"] > 0
    assert stages["forward"] + stages["idle"] == pytest.approx(attempt["replica_seconds"], abs=0.01)


@pytest.mark.slow
def test_a_job_of_an_app_keeps_and_reuses_scores_as_its_own_replicas_do(tmp_path: Path, live_app: LiveApp) -> None:
    """First the app scores, then nobody has to."""
    source, scores = write_input(tmp_path / "in", a=wide_table(60)), str(tmp_path / "scores")
    first = run_with(APP, source, tmp_path / "first", scores=scores)
    assert first["chunks_reused"] < first["chunks"]
    for app in (APP, None):
        output = tmp_path / str(app)
        summary = run_with(app, source, output, scores=scores)
        assert summary["chunks_reused"] == summary["chunks"] == first["chunks"]
        assert_same_answers(read_output(output), read_output(tmp_path / "first"))


@pytest.mark.slow
def test_a_job_of_a_calibrated_app_has_the_apps_scale_and_bias(tmp_path: Path, live_app: LiveApp) -> None:
    """With a threshold of these scores; a file for the job itself contradicts the app."""
    given = Calibration(0.5, -1.0, find_model("embedded").digest())
    (tmp_path / "given.json").write_text(given.as_json())
    args = ServeArgs(num_cpus=0, num_threads=1, endpoints=1, calibration=str(tmp_path / "given.json"))
    serve.run(build_app(args), name="calibrated", route_prefix="/calibrated")
    try:
        source = write_input(tmp_path / "in", a=wide_table(20))
        run_with("calibrated", source, tmp_path / "app", score_threshold=0.25)
        run_with(None, source, tmp_path / "own", score_threshold=0.25, reranker=RerankerConfig(calibration=given))
        assert_same_answers(read_output(tmp_path / "app"), read_output(tmp_path / "own"))
        scores = [one["relevance_score"] for row in read_output(tmp_path / "app")["ranking"].to_pylist() for one in row]
        assert 0 < len(scores) < 60
        assert min(scores) >= 0.25
        other = RerankerConfig(calibration=Calibration(2.0, 0.0, given.files))
        with pytest.raises(ConfigError, match="--calibration with --app calibrated: the app's own holds; leave it out"):
            run_with("calibrated", source, tmp_path / "other", reranker=other)
        answer = requests.get(f"{live_app.base_url}/calibrated/v1/models", headers=live_app.headers, timeout=10)
        assert answer.json()["data"][0]["calibrated"] is True
    finally:
        serve.delete("calibrated")


@pytest.mark.slow
def test_a_job_of_an_app_asks_what_the_app_asks_or_what_it_is_told(tmp_path: Path, live_app: LiveApp) -> None:
    model = str(write_qwen(tmp_path / "model"))
    args = ServeArgs(model=model, num_cpus=0, num_threads=1, endpoints=1, instruction="find code")
    serve.run(build_app(args), name="asked", route_prefix="/asked")
    try:
        source = write_input(tmp_path / "in", a=wide_table(10))
        for given, asked in ((None, "find code"), ("find rivers", "find rivers")):
            run_with("asked", source, tmp_path / f"app {asked}", reranker=RerankerConfig(instruction=given))
            run_with(None, source, tmp_path / f"own {asked}", reranker=RerankerConfig(model, instruction=asked))
            assert_same_answers(read_output(tmp_path / f"app {asked}"), read_output(tmp_path / f"own {asked}"))
        one, other = (read_output(tmp_path / f"app {asked}")["ranking"] for asked in ("find code", "find rivers"))
        assert one != other
    finally:
        serve.delete("asked")


@pytest.mark.slow
def test_scorers_that_are_killed_cost_time_only(tmp_path: Path, live_app: LiveApp) -> None:
    """First one of two, then all there are."""
    output = tmp_path / "out"
    table = lists_table(150, documents=12).append_column("padding", pa.array(["x" * 1000] * 150))
    source = write_input(tmp_path / "in", a=table)
    killed: set[int] = set()

    def kill(count: int) -> None:
        victims = scorer_pids()[:count]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        killed.update(victims)

    def disturb() -> None:
        wait_until(lambda: len(parts(output)) >= 1)
        kill(1)
        before = len(parts(output))
        wait_until(lambda: len(parts(output)) >= before + 2)
        kill(2)

    with meanwhile(disturb):
        summary = run_with(APP, source, output)
    assert len(killed) >= 2
    assert blamed(output) == {}
    assert_summary_adds_up(output, summary, 150)
    assert_nothing_left_over(output)
    wait_until(lambda: len(set(scorer_pids()) - killed) == 2)


@pytest.mark.slow
def test_a_job_goes_on_with_other_replicas_than_it_was_begun_with(tmp_path: Path, live_app: LiveApp) -> None:
    """Begun with the app and resumed without, begun without and resumed with the app."""
    source = write_input(tmp_path / "in", a=wide_table(40))
    for number, (begun, resumed) in enumerate([(APP, None), (None, APP)]):
        output = tmp_path / str(number)
        run_with(begun, source, output)
        (output / "_summary.json").unlink()
        lost = parts(output)[1:3]
        for part in lost:
            part.unlink()
        before = written(output)
        assert_summary_adds_up(output, run_with(resumed, source, output), 40)
        assert {name: written(output)[name] for name in before} == before
        assert set(lost) <= set(parts(output))
    assert_same_answers(read_output(tmp_path / "0"), read_output(tmp_path / "1"))
    with pytest.raises(RefusedError, match="--max-length was 256, is 64"):
        run_with(APP, source, tmp_path / "0", reranker=RerankerConfig(max_length=64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reranker": RerankerConfig(model="other/model")}, "--model is other/model, but app 'crossray' has embedded"),
        ({"reranker": RerankerConfig(dtype="float16")}, "--dtype is float16, but app 'crossray' has float32"),
        ({"app": "none"}, "--app is 'none'; this cluster has no such app with a Scorer; running: 'crossray'"),
    ],
)
def test_what_the_app_contradicts_is_a_usage_error(
    tmp_path: Path, live_app: LiveApp, settings: dict[str, Any], message: str
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    with pytest.raises(ConfigError, match=message):
        run(RerankSettings(str(source), str(tmp_path / "out"), **{"app": APP} | settings))
    assert not (tmp_path / "out").exists()


def test_flags_that_an_app_decides_are_usage_errors() -> None:
    given: list[tuple[str, dict[str, Any]]] = [
        ("--replicas", {"replicas": (1, 2)}),
        ("--num-cpus", {"num_cpus": 2}),
        ("--num-gpus", {"num_gpus": 0.5}),
        ("--max-batch-tokens", {"reranker": RerankerConfig(max_batch_tokens=1024)}),
    ]
    for flag, settings in given:
        with pytest.raises(ConfigError, match=f"^{flag} with --app crossray: the app decides that; leave it out"):
            RerankSettings("in", "out", app=APP, **settings)


def test_an_app_needs_a_ray_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray(*, address: str, **_: object) -> Any:
        raise ConnectionError(f"nothing at {address}")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", no_ray)
    settings = RerankSettings(str(tmp_path), str(tmp_path / "out"), app=APP)
    assert exit_code(settings) == USAGE
    with pytest.raises(ConfigError, match="no Ray can be reached at 'auto': nothing at auto; give"):
        run(settings)


# Without an app, and where nothing else is said without Ray.


@dataclass
class Response:
    """What a sync call of a handle gives."""

    outcome: Any
    cancelled: bool = False

    def result(self, timeout_s: float) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeHandle:
    """Answers with the first token id of each pair; `failures` come first, those of Serve itself at once."""

    failures: list[Exception] = field(default_factory=list)
    fingerprint: str = "the same"
    blocks: list[PairBlock] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    @property
    def score_block(self) -> FakeHandle:
        return self

    def remote(self, block: PairBlock) -> Response:
        self.blocks.append(block)
        if self.failures and isinstance(self.failures[0], RayServeException):
            raise self.failures.pop(0)
        logits = np.array([pair.input_ids[0] for pair in block.pairs()], np.float32)
        self.responses.append(Response(self.failures.pop(0) if self.failures else (self.fingerprint, logits)))
        return self.responses[-1]


def engine_of(handle: FakeHandle, **options: float) -> AppEngine:
    return AppEngine(handle, APP, "the same", spec=None, **options)  # type: ignore[arg-type]


def pair_of(first: int, length: int = 10) -> TokenPair:
    ids = np.full(length, first, np.int32)
    return TokenPair(ids, np.zeros_like(ids))


def raised_in_replica(error: Exception) -> Exception:
    return RayTaskError("score_block", "a traceback", error).as_instanceof_cause()  # type: ignore[no-any-return]


DEATH = ActorUnavailableError("gone", b"0" * 16)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in no time."""
    made: list[float] = []
    monkeypatch.setattr(jobs.scoring.app_scorer.time, "sleep", made.append)
    return made


def test_pairs_travel_in_blocks_and_logits_come_back_in_their_order(pauses: list[float]) -> None:
    handle = FakeHandle()
    pairs = [pair_of(i, length=100 + 37 * i % 900) for i in range(200)]
    np.testing.assert_array_equal(engine_of(handle).distinct_logits(pairs), np.arange(200, dtype=np.float32))
    assert len(handle.blocks) > 3
    assert all(block.lengths.sum() <= 16_384 for block in handle.blocks)
    assert engine_of(handle).distinct_logits([]).shape == (0,)


def test_a_block_is_sent_again_when_its_replica_dies_or_shuts_down(pauses: list[float]) -> None:
    handle = FakeHandle([DEATH, raised_in_replica(CrossrayError("shutting down"))])
    np.testing.assert_array_equal(engine_of(handle).distinct_logits([pair_of(7)]), [7])
    assert len(handle.blocks) == 3
    assert pauses == [1, 5]


def test_three_deaths_of_a_block_are_deadly_and_the_other_calls_cancelled(pauses: list[float]) -> None:
    handle = FakeHandle([DEATH] * 4)
    with pytest.raises(DeadlyError, match="3 replicas of app 'crossray' died with the same pairs"):
        engine_of(handle).distinct_logits([pair_of(i, length=10_000) for i in range(2)])
    assert handle.responses[1].cancelled


@pytest.mark.parametrize(
    ("failures", "message"),
    [
        ([DEATH, DEATH, raised_in_replica(MemoryError("full"))], "MemoryError: full"),
        ([RayServeException("not deployed")] * 3, "RayServeException: not deployed"),
    ],
)
def test_what_is_no_fault_of_the_pairs_stops_the_job(
    pauses: list[float], failures: list[Exception], message: str
) -> None:
    with pytest.raises(StoppedError, match=f"app 'crossray' gives no scores: {message}"):
        engine_of(FakeHandle(failures)).distinct_logits([pair_of(1)])


@pytest.mark.parametrize(("deployed", "message"), [(True, "no answer for 0 s"), (False, "it was deleted")])
def test_an_app_that_does_not_answer_stops_the_job(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, deployed: bool, message: str
) -> None:
    """Once the deadline is over, or at once when it is gone."""
    monkeypatch.setattr(jobs.scoring.app_scorer, "is_deployed", lambda app: deployed)
    handle = FakeHandle([TimeoutError()])
    with pytest.raises(StoppedError, match=message):
        engine_of(handle, **({"answer_seconds": 0} if deployed else {})).distinct_logits([pair_of(1)])
    assert handle.responses[0].cancelled


def test_an_answer_of_another_model_stops_the_job(pauses: list[float]) -> None:
    with pytest.raises(StoppedError, match="no longer has the model that the job began with: fingerprint new instead"):
        engine_of(FakeHandle(fingerprint="new")).distinct_logits([pair_of(1)])


def test_what_a_replica_raises_on_pairs_is_their_error(pauses: list[float]) -> None:
    with pytest.raises(ValueError, match="no score for this one") as caught:
        engine_of(FakeHandle([raised_in_replica(ValueError("no score for this one"))])).distinct_logits([pair_of(1)])
    assert type(caught.value) is ValueError


def test_the_fingerprint_of_a_job_is_the_apps_with_the_jobs_lengths() -> None:
    config = RerankerConfig(device="cpu", dtype="float32")
    served = ServedModel(config, model_limit=256, fingerprint=planned_fingerprint(config), loaded_at=0)
    for changes in ({}, {"max_length": 4096}, {"max_length": 100, "max_chunks_per_doc": 2}):
        ours = RerankerConfig(device="cpu", dtype="float32", **changes)  # type: ignore[arg-type]
        assert served.fingerprint_with(Lengths.of(ours), ours.instruction) == planned_fingerprint(ours)
    asks = served._replace(own_instruction="find answers")
    found = [asks.fingerprint_with(Lengths.of(config), one).instruction for one in (None, "find answers", "find code")]
    assert found == [None, None, "find code"]


@pytest.mark.parametrize(("told", "is_calibrated"), [("find code", True), (None, True), ("find rivers", False)])
def test_a_calibration_of_the_app_holds_for_the_instruction_that_it_was_fitted_with(
    told: str | None, is_calibrated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that asks otherwise gets scores without it, as its fingerprint says, and no threshold."""
    model = write_qwen(tmp_path / "model")
    fitted = Calibration(2.0, -0.5, find_model(str(model)).digest(), instruction="find code")
    config = RerankerConfig(
        str(model), device="cpu", dtype="float32", calibration=fitted, instruction=fitted.instruction
    )
    served = ServedModel(config, 40960, planned_fingerprint(config), loaded_at=0, takes_instruction=True)
    monkeypatch.setattr(jobs.driver.resolution, "served_model", lambda app: served)
    settings = RerankSettings("in", "out", app=APP, reranker=RerankerConfig(instruction=told))
    resolved, fingerprint = with_resolved_model(settings)
    assert resolved.reranker.calibration == (fitted if is_calibrated else None)
    assert fingerprint.get("calibration") == ([2.0, -0.5] if is_calibrated else None)
    if not is_calibrated:
        with pytest.raises(ConfigError, match=r"scores of .* are not calibrated"):
            with_resolved_model(replace(settings, score_threshold=0.5))


def test_an_instruction_for_an_app_whose_model_takes_none_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = RerankerConfig(device="cpu", dtype="float32")
    served = ServedModel(config, 256, planned_fingerprint(config), loaded_at=0)
    monkeypatch.setattr(jobs.driver.resolution, "served_model", lambda app: served)
    settings = RerankSettings("in", "out", app=APP, reranker=RerankerConfig(instruction="find code"))
    with pytest.raises(ConfigError, match="--instruction: the model of app 'crossray' takes none; leave it out"):
        with_resolved_model(settings)


class StoppingScorer(StubScorer):
    """Finds at a query with POISON in it that the app is gone."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        if POISON in candidates.query:
            raise StoppedError("the app is gone")
        return super().rerank_list(candidates)


class DeadlyScorer(StubScorer):
    """Outlives, as a job's own process does, the replicas that a query with POISON in it kills."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        if POISON in candidates.query:
            raise DeadlyError("3 replicas died")
        return super().rerank_list(candidates)


class DeadlyThenStoppingScorer(DeadlyScorer):
    """After the first death the app is gone."""

    def rerank_lists(self, lists: Sequence[CandidateList], spent: ScoringTime) -> list[Ranking]:
        mark = Path(f"{self.settings.output}.died")
        if mark.exists():
            raise StoppedError("the app is gone")
        try:
            return super().rerank_lists(lists, spent)
        except DeadlyError:
            mark.touch()
            raise


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """Five units; row 9 has POISON in it."""
    texts = queries(20)
    texts[9] += POISON
    return write_input(tmp_path / "in", a=four_rows_a_unit(texts))


def test_an_app_that_is_gone_stops_the_job_resumably_and_blames_no_row(
    tmp_path: Path, without_ray: None, run_job: RunJob, poisoned: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(StoppedError, match="the app is gone"):
        run_job(poisoned, output, scorer_class=StoppingScorer)
    before = written(output)
    assert len(before) == 2
    assert_summary_adds_up(output, run_job(poisoned, output), 20)
    assert {name: written(output)[name] for name in before} == before
    assert blamed(output) == {}


@pytest.mark.slow
def test_a_row_that_kills_the_apps_replicas_is_found_and_the_others_scored(
    tmp_path: Path, cluster: str, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, poisoned: Path
) -> None:
    monkeypatch.setattr(jobs.workers.quarantine, "PAUSE_SECONDS", 0.0)
    summary = run_job(poisoned, tmp_path / "out", scorer_class=DeadlyScorer)
    message = "killed_replica: scoring this row alone ended its replica 3 times (DeadlyError)"
    assert blamed(tmp_path / "out") == {9: message}
    assert_summary_adds_up(tmp_path / "out", summary, 20)


def test_an_app_that_goes_while_a_row_is_looked_for_stops_the_job_just_so(
    tmp_path: Path, cluster: str, run_job: RunJob, poisoned: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(StoppedError, match=r"^the app is gone$"):
        run_job(poisoned, output, scorer_class=DeadlyThenStoppingScorer)
    assert_summary_adds_up(output, run_job(poisoned, output), 20)
    assert blamed(output) == {}
