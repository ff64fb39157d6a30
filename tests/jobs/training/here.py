"""Making tables for training without Ray, for claims about rows and directories, to which Ray adds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import jobs.driver.passes
import jobs.driver.run
import jobs.training.label.run
import jobs.training.mine.run
from jobs.runtime.stages import Stage
from jobs.settings import RerankSettings
from tests.jobs.stubs import no_ray_session, run_stage_here, score_units_here


def on_replicas_here(
    stage: Stage, argument: Any, items: Sequence[dict[str, Any]], settings: RerankSettings, *, loads_model: bool
) -> None:
    """`jobs.training.pools.run_stage_on_replicas`."""
    if items:
        run_stage_here(stage, argument, items)


def stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray in this test."""
    for module in (jobs.training.label.run, jobs.training.mine.run):
        monkeypatch.setattr(module, "ray_session", no_ray_session)
        monkeypatch.setattr(module, "run_stage", run_stage_here)
        monkeypatch.setattr(module, "run_stage_on_replicas", on_replicas_here)
    monkeypatch.setattr(jobs.driver.passes, "score_units", score_units_here)
    for module in (jobs.driver.passes, jobs.driver.run):
        monkeypatch.setattr(module, "ray_session", no_ray_session)
