"""Cross-encoder reranking on Ray: the reranker as a library.

from crossray import Reranker
Reranker.load("embedded").rerank("query", ["document", "another"], top_n=1)

The names are those of `pipelines`, where the code is; `jobs` and `serve` are the commands.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import pipelines
from pipelines import __all__

if TYPE_CHECKING:
    from pipelines import *  # noqa: F403 - what editors and type checkers shall know

try:
    __version__ = version("crossray")
except PackageNotFoundError:  # a checkout that is installed nowhere
    __version__ = "source"


def __getattr__(name: str) -> object:
    # When it is asked for: the reranker brings torch, which takes seconds.
    if name in __all__:
        return getattr(pipelines, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":  # python -m crossray, for whoever has no `crossray` on the path
    from jobs.cli import main

    main()
