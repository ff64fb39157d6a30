"""What a mining is told: frozen dataclasses, which the command line fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobs.flags import Flag, Panel, as_flag, within
from jobs.settings import RerankSettings
from jobs.training import encoders
from jobs.training.encoders import EncoderSettings
from pipelines.errors import ConfigError

DEPTH = 50
DEFAULT_RANKS = "2:30"


def parse_ranks(text: str) -> tuple[int, int]:
    """`2:30` -> (2, 30); raises ConfigError."""
    first, _, last = text.partition(":")
    try:
        return int(first), int(last)
    except ValueError:
        raise ConfigError(f"--ranks is {text!r}; give FIRST:LAST such as 2:30") from None


@dataclass(frozen=True, slots=True)
class MiningColumns:
    """The caller's names for the columns of a source."""

    query: str = "query"
    positive: str = "positive"
    negatives: str = "negatives"
    """May be missing, as long as it has this name."""
    group: str = "group"
    """May be missing, as long as it has this name."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which candidates of a reranked list become negatives. Raises ConfigError for values that cannot work."""

    ranks: tuple[int, int] = parse_ranks(DEFAULT_RANKS)
    """First and last rank, from 1, in the whole reranked list; the row's own negatives may have any rank."""
    margin: float = 0.05
    """A negative scores at most (1 - margin) times what the positive does."""
    negatives: int = 15
    """Negatives of a list, at most."""
    keep_empty: bool = False
    """Whether a positive for which no negative was found is written as a list of its own."""

    def __post_init__(self) -> None:
        if not 1 <= self.ranks[0] <= self.ranks[1]:
            raise ConfigError(f"--ranks is {self.ranks[0]}:{self.ranks[1]}; give FIRST:LAST with 1 <= FIRST <= LAST")
        if not 0 <= self.margin < 1:
            raise ConfigError(f"--margin is {self.margin:g}; it is 0 or more and below 1")
        if self.negatives < 1:
            raise ConfigError(f"--negatives is {self.negatives}; it is at least 1")


COLUMN_FLAGS = {
    "query": Flag("The column with the query's text.", Panel.COLUMNS, "--query-column"),
    "positive": Flag("The column with the passage that is right.", Panel.COLUMNS, "--positive-column"),
    "negatives": Flag(
        "The column with passages that are known to be wrong; `negatives` may be missing.",
        Panel.COLUMNS,
        "--negatives-column",
    ),
    "group": Flag(
        "The column that names the positive's page; `group` may be missing.", Panel.COLUMNS, "--group-column"
    ),
}
RULE_FLAGS = {
    "ranks": Flag(
        "The ranks FIRST:LAST in the reranked list that negatives come from.",
        Panel.NEGATIVES,
        default=DEFAULT_RANKS,
        parse=parse_ranks,
    ),
    "margin": Flag("A negative scores at most (1 - margin) times what its positive does.", Panel.NEGATIVES),
    "negatives": Flag("How many negatives a list has at most.", Panel.NEGATIVES),
    "keep_empty": Flag(
        "Write positives without a negative, too, as lists of their own.", Panel.NEGATIVES, "--keep-empty"
    ),
}
ENCODER_FLAGS = {"directory": Flag("The directory of a bi-encoder that searches, too.", Panel.DENSE, "--dense")}


def encoder_of(directory: str | None, **more: Any) -> EncoderSettings | None:
    """The encoder that the flags ask for: none without --dense, whatever else they say of it."""
    return None if directory is None else EncoderSettings(directory, **more)


@dataclass(frozen=True, slots=True)
class MineSettings:
    """One mining. Raises ConfigError for values that cannot work."""

    job: RerankSettings
    """INPUT, OUTPUT, the model that judges, its lengths, score store and replicas."""
    columns: MiningColumns = field(default_factory=MiningColumns, metadata=within(MiningColumns, COLUMN_FLAGS))
    depth: int = field(
        default=DEPTH,
        metadata=as_flag("How many candidates BM25 finds for a query, and as many --dense.", Panel.CANDIDATES),
    )
    encoder: EncoderSettings | None = field(default=None, metadata=within(encoder_of, ENCODER_FLAGS | encoders.FLAGS))
    """Searches for candidates, beside BM25."""
    corpus: str | None = field(
        default=None,
        metadata=as_flag("The table of passages to search; by default each source's own.", Panel.CANDIDATES),
    )
    corpus_text: str = field(default="text", metadata=as_flag("The corpus's column of texts.", Panel.CANDIDATES))
    rule: Rule = field(default_factory=Rule, metadata=within(Rule, RULE_FLAGS))

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"--depth is {self.depth}; it is at least 1")
