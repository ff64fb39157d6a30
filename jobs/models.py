"""`crossray models`: which models load, how long their pairs may be, and under which licences they are published."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.published import COLUMNS, PUBLISHED, as_markdown

EXAMPLES = ("crossray models", "crossray models --markdown >> our-models.md")


def command(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, with links.")] = False,
) -> None:
    """Say which models load, how many tokens their pairs may have, and under which licences they are published.

    Others of the same families load as well: `crossray rerank LOG OUT --model MODEL --dry-run` says whether one does.
    """
    if markdown:
        typer.echo(as_markdown(), nl=False)
        return
    title = "Scores are the sigmoid of the logit, 0..1; --raw-scores gives the logit"
    table = Table(title=title, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column == "tokens" else "left", overflow="fold")
    for one in PUBLISHED:
        cells = one.cells()
        table.add_row(cells[0], "\n".join(one.models), *cells[2:])
    Console().print(table)
