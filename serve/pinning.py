"""One app, one model: what its name stands for is found out once, and all processes of the app hold to it."""

from __future__ import annotations

from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.model_files import find_model
from serve.settings import ServeArgs


def pinned(args: ServeArgs) -> tuple[ServeArgs, str]:
    """The args with the commit that a hub name stands for now, and the SHA-256 of the model's files.

    Raises ModelError where there is no such model.
    """
    config = args.reranker()
    files = find_model(config.model, config.revision, config.token)
    return args.model_copy(update={"revision": files.commit}), files.digest()


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
