"""What a labelling is told: one frozen dataclass, which the command line fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from jobs.flags import as_flag, within
from jobs.settings import RerankSettings
from jobs.training import encoders
from jobs.training.encoders import EncoderSettings
from jobs.training.label.teachers import Teacher, parse_teacher
from pipelines.errors import ConfigError

TEACHER = "teacher"


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """One labelling. Raises ConfigError for values that cannot work."""

    job: RerankSettings
    """INPUT, OUTPUT and columns; lengths, score store and replicas of rerankers, whose model is the teacher's."""
    teacher: Teacher = field(
        metadata=as_flag(
            "Who gives the scores: reranker:MODEL, dense:DIR, bm25, or fusion:T1,T2,... of these.", parse=parse_teacher
        )
    )
    column: str = field(
        default=TEACHER, metadata=as_flag("The name of the new column; a table can have several of them.")
    )
    encoder: EncoderSettings | None = field(default=None, metadata=within(partial(EncoderSettings, ""), encoders.FLAGS))
    """Prefixes and lengths of dense encoders; their directories are the teachers'."""
    counted: str | None = None
    """A file with the word counts of a whole collection, for BM25, whose name changes with what is counted; by default
    the documents of INPUT are counted."""

    def __post_init__(self) -> None:
        if self.column in (self.job.mapping.query, self.job.mapping.documents):
            raise ConfigError(f"--column is {self.column!r}, which the input's texts are in; give another name")
