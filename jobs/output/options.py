"""The options of a job that, beside the model, change its result. Its manifest keeps them: a resumption has the same.

On disk they are one flat object, in which each field of ColumnMapping has a key of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any

from jobs.records import InputFile
from jobs.table.columns import ColumnMapping, GroupBy, Layout

AS_ON_DISK = {"top_n", "score_threshold", "raw_scores", "limit", "shard", "corpus", "partitions"}
"""Fields of JobOptions whose values are JSON types."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What was asked for, and what INPUT was found to be.

    `--scores` is no part of it: known logits move scores by less than 1e-4, as batches do.
    """

    mapping: ColumnMapping
    layout: Layout
    top_n: int | None = None
    score_threshold: float | None = None
    raw_scores: bool = False
    limit: int | None = None
    shard: str | None = None
    """As the flag has it: 2/8."""
    where: tuple[str, ...] = ()
    """The conditions as the flags have them, sorted."""
    group_by: GroupBy | None = None
    corpus: Mapping[str, Any] | None = None
    """See `jobs.input.corpus.Corpus.identity`."""
    partitions: Mapping[str, str] = field(default_factory=dict)
    """Types of the columns that the paths of INPUT add, by name."""
    grouped_files: tuple[InputFile, ...] = ()
    """The files of INPUT where their pairs are grouped; the files of the manifest are the lists then."""
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """What another version wrote and this one does not know: no job of this version has the same."""

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        mapping = asdict(self.mapping) | {"drop": list(self.mapping.drop)}
        del mapping["by_id"]  # as the corpus says
        grouped_files = [list(astuple(file)) for file in self.grouped_files]
        return {
            **mapping,
            "layout": str(self.layout),
            "top_n": self.top_n,
            "raw_scores": self.raw_scores,
            "limit": self.limit,
            "shard": self.shard,
            "where": list(self.where) or None,
            "group_by": None if self.group_by is None else asdict(self.group_by),
            "corpus": self.corpus,
            "partitions": dict(self.partitions),
            **({} if self.score_threshold is None else {"score_threshold": self.score_threshold}),
            **({} if self.group_by is None else {"grouped_files": grouped_files}),
            **self.unknown,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> JobOptions:
        """The inverse of `as_dict`; what an earlier version did not write has its default.

        Raises KeyError, TypeError or ValueError for what no version wrote.
        """
        left = {"strict_documents": True, **raw}  # without the key, a version to which a null document was an error
        names = {one.name for one in dataclass_fields(ColumnMapping)} & left.keys()
        mapping = {name: left.pop(name) for name in names}
        mapping |= {"drop": tuple(mapping.get("drop", ())), "by_id": left.get("corpus") is not None}
        group_by = left.pop("group_by", None)
        return cls(
            mapping=ColumnMapping(**mapping),
            layout=Layout(left.pop("layout")),
            where=tuple(left.pop("where", None) or ()),
            group_by=None if group_by is None else GroupBy(**group_by),
            grouped_files=tuple(InputFile(*file) for file in left.pop("grouped_files", ())),
            **{name: left.pop(name) for name in AS_ON_DISK & left.keys()},
            unknown=left,
        )
