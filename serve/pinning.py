"""One app, one model: what its name stands for is found out once, and all processes of the app hold to it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from pipelines.calibration import Calibration
from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.fingerprint import calibration_of
from pipelines.model_sources import find_model
from serve.settings import ServeArgs


class Pinned(NamedTuple):
    """What an app is deployed with."""

    args: ServeArgs
    """With the commit that a hub name stood for."""
    files: str
    """The SHA-256 of the model's files."""
    config: RerankerConfig
    """How a replica loads the model, its calibration in it."""


def pinned(args: ServeArgs) -> Pinned:
    """What the args stand for now. Raises ModelError where there is no such model, or its calibration does not fit."""
    config = with_calibration(args)
    files = find_model(config.model, config.revision, config.token)
    args = args.model_copy(update={"revision": files.commit})
    return Pinned(args, files.digest(), replace(config, revision=files.commit))


def with_calibration(args: ServeArgs) -> RerankerConfig:
    """The reranker that the args describe, with the calibration of its scores, if there is one.

    Raises ModelError where there is no such model, or where its calibration is damaged or of another model, and
    ConfigError where a given file cannot be read.
    """
    config = args.reranker()
    if args.calibration is not None:
        config = replace(config, calibration=Calibration.read(args.calibration))
    files = find_model(config.model, config.revision, config.token)
    return replace(config, calibration=calibration_of(config, files))


def files_on_this_node(config: RerankerConfig) -> str:
    """The SHA-256 of the model's files as a process finds them here; raises ModelError."""
    return find_model(config.model, config.revision, config.token).digest()


def check_pinned(model: str, found: str, expected: str | None) -> None:
    """Raises ModelRefusedError where the files of `model` are not those that the app was deployed with.

    None is for a process that is no part of an app.
    """
    if expected not in (None, found):
        raise ModelRefusedError(
            f"{model}: the files on this node (SHA-256 {found}) are not those that the app was deployed with "
            f"({expected}); put the same files on all nodes, and deploy the app again where they were replaced"
        )
