"""Jobs with as little to say as possible."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tenacity import stop_after_attempt

import jobs.driver.passes
import jobs.driver.run
import jobs.follow.run
import jobs.joins.corpus.disk_join
import jobs.joins.groups.stage
import jobs.runtime.session
from jobs import storage
from jobs.driver.run import run
from jobs.scoring.scorer import LoadScorer
from jobs.settings import RerankSettings
from jobs.storage.s3 import S3Bucket
from pipelines.config import RerankerConfig
from pipelines.stores import s3_filesystem
from tests.jobs.stubs import PoolHere, StubScorer, no_ray_session, run_stage_here, score_units_here
from tests.jobs.tables import lists_table, wide_table, write_input

RunJob = Callable[..., dict[str, Any]]


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that everybody may look into, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two files: four units and one."""
    return write_input(tmp_path / "in", a=wide_table(100, tag="a"), b=lists_table(5, tag="b"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where nothing is yet."""
    return tmp_path / "out"


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process: for claims about data and directories, to which Ray adds nothing."""
    for module in (jobs.driver.passes, jobs.driver.run, jobs.runtime.session):
        monkeypatch.setattr(module, "ray_session", no_ray_session)
    monkeypatch.setattr(jobs.driver.passes, "score_units", score_units_here)
    monkeypatch.setattr(jobs.joins.groups.stage, "run_stage", run_stage_here)
    monkeypatch.setattr(jobs.joins.corpus.disk_join, "run_stage", run_stage_here)
    monkeypatch.setattr(jobs.follow.run, "WarmPool", PoolHere)


@pytest.fixture
def said() -> io.StringIO:
    """What the job of this test printed."""
    return io.StringIO()


@pytest.fixture
def settings_of(bert_directory: Path) -> Callable[..., RerankSettings]:
    """Settings with the tiny model and one replica; `reranker` takes fields of RerankerConfig."""

    def build(input: Path | str, output: Path | str, **settings: Any) -> RerankSettings:
        reranker = {"model": str(bert_directory)} | settings.pop("reranker", {})
        settings = {"replicas": (1, 1)} | settings
        return RerankSettings(str(input), str(output), reranker=RerankerConfig(**reranker), **settings)

    return build


@pytest.fixture
def run_job(settings_of: Callable[..., RerankSettings], said: io.StringIO) -> RunJob:
    """Runs a job from `input` to `output` and returns its summary."""

    def run_it(
        input: Path | str, output: Path | str, scorer_class: LoadScorer = StubScorer, **settings: Any
    ) -> dict[str, Any]:
        console = Console(file=said, width=10_000)
        return run(settings_of(input, output, **settings), load_scorer=scorer_class, console=console)

    return run_it


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to S3 have two attempts in this process, and their clients are no other test's."""
    monkeypatch.setattr("jobs.storage.READINGS", 1)
    monkeypatch.setattr("jobs.storage.s3.REQUEST_ATTEMPTS", 2)
    monkeypatch.setattr(S3Bucket._get.retry, "stop", stop_after_attempt(2))  # type: ignore[attr-defined]
    monkeypatch.setattr("jobs.storage.s3_store", lru_cache(storage.s3_store.__wrapped__))
    monkeypatch.setattr("pipelines.stores.REQUEST_ATTEMPTS", 2)
    monkeypatch.setattr("jobs.storage.s3.s3_filesystem", lru_cache(s3_filesystem.__wrapped__))
