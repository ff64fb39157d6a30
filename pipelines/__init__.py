"""The reranker: text in, ranked documents out. Knows torch, tokenizers and pyarrow; never Ray, never HTTP.

from crossray import Reranker
Reranker.load("embedded").rerank("query", ["document", "another"], top_n=1)
"""

from typing import TYPE_CHECKING

from .config import RerankerConfig
from .errors import (
    ConfigError,
    CrossrayError,
    InvalidInputError,
    ModelError,
    ModelNotFoundError,
    ModelRefusedError,
)
from .records import CandidateList, RankedDocument, Ranking, Usage

if TYPE_CHECKING:
    from .reranker import Reranker

__all__ = [
    "CandidateList",
    "ConfigError",
    "CrossrayError",
    "InvalidInputError",
    "ModelError",
    "ModelNotFoundError",
    "ModelRefusedError",
    "RankedDocument",
    "Ranking",
    "Reranker",
    "RerankerConfig",
    "Usage",
]


def __getattr__(name: str) -> object:
    # torch takes seconds to import; a driver that only plans work needs the nouns and the errors, not torch.
    if name == "Reranker":
        from .reranker import Reranker

        return Reranker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
