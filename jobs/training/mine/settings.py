"""What a mining is told: frozen dataclasses, which the command line fills."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.settings import RerankSettings
from jobs.training.encoders import EncoderSettings
from pipelines.errors import ConfigError

DEPTH = 50


def parse_ranks(text: str) -> tuple[int, int]:
    """`2:30` -> (2, 30); raises ConfigError."""
    first, _, last = text.partition(":")
    try:
        return int(first), int(last)
    except ValueError:
        raise ConfigError(f"--ranks is {text!r}; give FIRST:LAST such as 2:30") from None


@dataclass(frozen=True, slots=True)
class MiningColumns:
    """The caller's names."""

    query: str = "query"
    positive: str = "positive"
    negatives: str = "negatives"
    """May be missing."""
    group: str = "group"
    """May be missing."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is taken of a reranked list. Raises ConfigError for values that cannot work."""

    ranks: tuple[int, int] = (2, 30)
    """First and last, from 1, in the whole reranked list; for what was found, not for the row's own negatives."""
    margin: float = 0.05
    """A negative scores at most (1 - margin) times what the positive does."""
    negatives: int = 15
    """At most."""
    keep_empty: bool = False
    """Whether a positive without negatives is a list, too."""

    def __post_init__(self) -> None:
        if not 1 <= self.ranks[0] <= self.ranks[1]:
            raise ConfigError(f"--ranks is {self.ranks[0]}:{self.ranks[1]}; give FIRST:LAST with 1 <= FIRST <= LAST")
        if not 0 <= self.margin < 1:
            raise ConfigError(f"--margin is {self.margin:g}; it is 0 or more and below 1")
        if self.negatives < 1:
            raise ConfigError(f"--negatives is {self.negatives}; it is at least 1")


@dataclass(frozen=True, slots=True)
class MineSettings:
    """One mining. Raises ConfigError for values that cannot work."""

    job: RerankSettings
    """INPUT, OUTPUT, the model that judges, its lengths, score store and replicas."""
    columns: MiningColumns = field(default_factory=MiningColumns)
    depth: int = DEPTH
    """Candidates of each kind."""
    encoder: EncoderSettings | None = None
    """Finds candidates beside BM25."""
    corpus: str | None = None
    """Table of passages in place of those of the sources."""
    corpus_text: str = "text"
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"--depth is {self.depth}; it is at least 1")
