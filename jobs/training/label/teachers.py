"""Which teacher scores the lists of `crossray label`: `reranker:MODEL`, `dense:DIR`, `bm25`, or a fusion of these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipelines.errors import ConfigError

ADVICE = "give reranker:MODEL, dense:DIR, bm25, or fusion:T1,T2,... of these"


class Kind(StrEnum):
    """The kinds of teachers."""

    RERANKER = "reranker"
    DENSE = "dense"
    BM25 = "bm25"
    FUSION = "fusion"


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher that scores by itself, or a fusion of several."""

    kind: Kind
    model: str = ""
    """For a reranker what `--model` of a job takes, for a dense encoder its directory."""
    fused: tuple[Teacher, ...] = ()

    def __str__(self) -> str:
        if self.kind is Kind.FUSION:
            return f"{self.kind}:{','.join(map(str, self.fused))}"
        return f"{self.kind}:{self.model}" if self.model else str(self.kind)

    @property
    def members(self) -> tuple[Teacher, ...]:
        """The teachers of a fusion, or the teacher itself."""
        return self.fused or (self,)


def parse_teacher(text: str) -> Teacher:
    """The teacher that `--teacher` names; raises ConfigError."""
    name, _, rest = text.partition(":")
    if name == Kind.FUSION:
        fused = tuple(parse_teacher(part) for part in rest.split(","))
        if len(fused) < 2 or any(one.kind is Kind.FUSION for one in fused):
            raise ConfigError(f"--teacher is {text!r}; a fusion has two or more teachers and no other fusion in it")
        if len(set(fused)) < len(fused):
            raise ConfigError(f"--teacher is {text!r}; each teacher of a fusion comes once")
        return Teacher(Kind.FUSION, fused=fused)
    if text == Kind.BM25:
        return Teacher(Kind.BM25)
    if name in (Kind.RERANKER, Kind.DENSE) and rest:
        return Teacher(Kind(name), rest)
    raise ConfigError(f"--teacher is {text!r}; {ADVICE}")
