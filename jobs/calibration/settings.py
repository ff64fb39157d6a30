"""What a calibration is told: one frozen dataclass, which the command line fills."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.flags import Panel, as_flag, within
from jobs.settings import COLUMN_FLAGS, RerankSettings
from jobs.table.columns import ColumnMapping
from pipelines.errors import ConfigError

QUERIES = 2000
"""Two numbers are fitted: more queries change them little."""
OF_THE_LABELS = ("query", "documents", "text_field", "document")
"""Fields of ColumnMapping that labels are read by."""


@dataclass(frozen=True, slots=True)
class CalibrateSettings:
    """One calibration. Raises ConfigError for values that cannot work."""

    model: str = field(
        metadata=as_flag("The reranker: `embedded`, a directory, a uri or a hub name.", metavar="MODEL"),
    )
    labels: str = field(
        metadata=as_flag("Labelled Parquet rows: a file, a directory or a glob; a path or uri.", metavar="LABELS"),
    )
    job: RerankSettings
    """Lengths, score store and replicas of the model; INPUT and OUTPUT are set by the calibration."""
    output: str | None = field(
        default=None, metadata=as_flag("The file for the result; by default calibration.json in the model's directory.")
    )
    label_column: str | None = field(
        default=None,
        metadata=as_flag(
            "The column with the labels, or DOCUMENTS.FIELD; by default `labels` of lists, and `label` of pairs.",
            Panel.COLUMNS,
        ),
    )
    mapping: ColumnMapping = field(
        default_factory=ColumnMapping,
        metadata=within(ColumnMapping, {name: COLUMN_FLAGS[name] for name in OF_THE_LABELS}),
    )
    queries: int = field(
        default=QUERIES, metadata=as_flag("Score the pairs of at most so many queries, the same each time.")
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("MODEL is empty; give `embedded`, a directory or a hub name")
        if self.output is not None and not self.output:
            raise ConfigError("--output is empty; give a file")
        if self.queries < 2:
            raise ConfigError(f"--queries is {self.queries}; it is at least 2: one half is fitted, the other measured")
