"""Makes the settings definite before a job starts: absolute paths, one model with its fingerprint, the corpus."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from jobs import storage
from jobs.errors import RefusedError
from jobs.joins.corpus.survey import surveyed
from jobs.records import InputFile
from jobs.scoring.app_scorer import served_model
from jobs.screen import say_left_out
from jobs.settings import RerankSettings
from jobs.storage import absolute, check_apart
from pipelines.config import EMBEDDED_MODELS, RerankerConfig
from pipelines.errors import ConfigError

JOB_ENVIRONMENT = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this variable for the driver of a submitted job (ray._private.runtime_env.constants)."""


def with_absolute_paths(settings: RerankSettings) -> RerankSettings:
    """The settings with absolute paths; raises ConfigError for paths that a job cannot use."""
    submitted = JOB_ENVIRONMENT in os.environ
    corpus, scores = settings.corpus, settings.scores
    mapping = replace(settings.mapping, by_id=corpus is not None)
    if settings.group_by is not None:
        mapping = replace(mapping, query_id=settings.group_by.column)
    return replace(
        settings,
        input=absolute(settings.input, "INPUT", allow_relative=not submitted),
        output=absolute(settings.output, "OUTPUT", allow_relative=not submitted),
        scores=None if scores is None else absolute(scores, "--scores", allow_relative=not submitted),
        corpus=corpus and replace(corpus, path=absolute(corpus.path, "--corpus", allow_relative=not submitted)),
        mapping=mapping,
    )


def with_surveyed_corpus(settings: RerankSettings, files: Sequence[InputFile], console: Console) -> RerankSettings:
    """The settings with what the corpus is now; raises ConfigError when it cannot be used.

    Raises RefusedError when it overlaps with OUTPUT or with the input's `files`.
    """
    if settings.corpus is None:
        return settings
    corpus = surveyed(settings.corpus)
    say_left_out(console, corpus.path, corpus.found.left_out)
    check_apart(corpus.path, settings.output, corpus.found.files, "--corpus")
    both = sorted({file.path for file in files} & {file.path for file in corpus.found.files})
    if both:
        raise RefusedError(f"{both[0]} is in INPUT and in --corpus; keep candidate lists and corpus apart")
    return replace(settings, corpus=corpus)


def with_resolved_model(settings: RerankSettings) -> tuple[RerankSettings, dict[str, Any]]:
    """The settings as replicas get them, nothing left to their surroundings, and the fingerprint they will have.

    Raises ConfigError for a threshold of scores that are not calibrated, unless that is allowed.
    """
    resolved, fingerprint = (
        with_own_model(settings) if settings.app is None else with_model_of_app(settings, settings.app)
    )
    if settings.score_threshold is not None and resolved.reranker.calibration is None and not settings.uncalibrated:
        raise ConfigError(
            f"--score-threshold is {settings.score_threshold:g}, and the scores of {resolved.reranker.model} are not "
            "calibrated, so that it means nothing; fit them with `crossray calibrate`, or give --uncalibrated"
        )
    return resolved, fingerprint


def with_own_model(settings: RerankSettings) -> tuple[RerankSettings, dict[str, Any]]:
    """The settings with the model that each replica loads, and the fingerprint of its scores."""
    from pipelines.fingerprint import planned_fingerprint  # torch: seconds, spared to --help and usage errors

    given = settings.reranker
    device = "cuda" if settings.num_gpus else "cpu"
    dtype = given.dtype if given.dtype != "auto" else "float16" if settings.num_gpus else "float32"
    config = replace(resolved_model(given), device=device, dtype=dtype, num_threads=settings.num_cpus)
    if given.instruction is not None:
        from pipelines.preparation import Preparation

        Preparation.load(config)  # a model that takes none, or a prompt that leaves no room, is told before Ray starts
    fingerprint = planned_fingerprint(replace(config, device="cpu"))  # the driver's machine may have no GPU
    return replace(settings, reranker=config), {"hash": fingerprint.hash, **fingerprint.as_dict()}


def with_model_of_app(settings: RerankSettings, app: str) -> tuple[RerankSettings, dict[str, Any]]:
    """The settings with the model that the app says it has, and the fingerprint that its scores will have.

    Raises ConfigError for flags that contradict the app.
    """
    from pipelines.lengths import Lengths

    served = served_model(app)
    given, default, dtype = settings.reranker, RerankerConfig(), served.fingerprint.dtype
    for name, value in (("model", served.config.model), ("revision", served.config.revision), ("dtype", dtype)):
        if getattr(given, name) not in (getattr(default, name), value):
            raise ConfigError(f"--{name} is {getattr(given, name)}, but app {app!r} has {value}; leave it out")
    if given.calibration not in (None, served.config.calibration):
        raise ConfigError(f"--calibration with --app {app}: the app's own holds; leave it out")
    if given.instruction is not None and not served.takes_instruction:
        raise ConfigError(f"--instruction: the model of app {app!r} takes none; leave it out")
    instruction = given.instruction if given.instruction is not None else served.config.instruction
    fingerprint = served.fingerprint_with(Lengths.of(given), instruction)
    is_asked_alike = fingerprint.instruction == served.fingerprint.instruction
    config = replace(
        given,
        model=served.config.model,
        revision=served.config.revision,
        dtype=dtype,
        device="cpu",
        calibration=served.config.calibration if is_asked_alike else None,
        instruction=instruction,
    )
    return replace(settings, reranker=config), {"hash": fingerprint.hash, **fingerprint.as_dict()}


def resolved_model(config: RerankerConfig) -> RerankerConfig:
    """The configuration with the absolute path of its directory, or with the commit of its hub model.

    Raises ConfigError for a relative directory in a submitted job, as for other paths.
    """
    from pipelines.fingerprint import resolved
    from pipelines.model_sources import find_model

    if JOB_ENVIRONMENT in os.environ and config.model not in EMBEDDED_MODELS and os.path.isdir(config.model):
        absolute(config.model, "--model", allow_relative=False)

    return resolved(config, find_model(config.model, config.revision, config.token))


def check_store(settings: RerankSettings, files: Sequence[InputFile]) -> None:
    """Raises RefusedError where the store and INPUT or OUTPUT contain one another, ConfigError where it is a file.

    Raises AccessError where its object store does not let us in.
    """
    scores = settings.scores
    if scores is None:
        return
    if not storage.is_directory(scores) and storage.exists(scores):
        raise ConfigError(f"--scores {scores} is a file; give a directory")
    check_apart(settings.input, scores, files, place="--scores")
    pairs = ((settings.output, scores), (scores, settings.output))
    if any(storage.contain_one_another(*both, [], pattern_is_directory=True) for both in pairs):
        raise RefusedError(f"--scores {scores} and OUTPUT {settings.output} contain one another; keep them apart")
