"""Flags of the command line, as all commands have them."""

from __future__ import annotations

import typer

from jobs.table.columns import FLAGS, ColumnMapping
from pipelines.config import RerankerConfig

MODEL, COLUMNS = RerankerConfig(), ColumnMapping()
"""Their defaults are those of the flags."""
MODEL_PANEL, COLUMN_PANEL, CLUSTER_PANEL = "Model and lengths", "Columns", "Cluster"
REUSE_PANEL, DENSE_PANEL = "Scores that are known", "A dense encoder"
DENSE_LENGTH = 512
"""Tokens of a text that a dense encoder reads."""


def option(*flags: str, help: str, panel: str | None = None, envvar: str | None = None) -> typer.models.OptionInfo:
    """A flag of the command line."""
    return typer.Option(*flags, help=help, rich_help_panel=panel, envvar=envvar)  # type: ignore[no-any-return]


def column(field: str, help: str) -> typer.models.OptionInfo:
    """A flag that names a column; the flag's own name is that in error messages."""
    return option(FLAGS[field], help=help, panel=COLUMN_PANEL)
