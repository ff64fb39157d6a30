"""What a comparison is told: one frozen dataclass, which the command line fills."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.flags import as_flag
from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """One comparison. Raises ConfigError for values that cannot work."""

    first: str = field(metadata=as_flag("The OUTPUT of a job, such as that of today's model.", metavar="RUN_A"))
    second: str = field(metadata=as_flag("The OUTPUT of another one over the same rows.", metavar="RUN_B"))
    output: str | None = field(
        default=None, metadata=as_flag("A directory for report.html, results.json and lists.parquet.")
    )
    key: str | None = field(
        default=None,
        metadata=as_flag(
            "Match rows by this column, and documents by their ids, where the runs have different inputs; by default "
            "rows are matched by file and place.",
            name="--key",
        ),
    )
    sample: int | None = field(
        default=None, metadata=as_flag("Compare so many rows, drawn the same way each time; by default all.")
    )
    movers: int = field(default=20, metadata=as_flag("How many of the lists that changed most are shown."))

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample < 1:
            raise ConfigError(f"--sample is {self.sample}; it is at least 1, or left out for all rows")
        if self.movers < 0:
            raise ConfigError(f"--movers is {self.movers}; it is at least 0")
