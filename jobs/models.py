"""`crossray models`: which models load, how long their pairs may be, and under which licences they are published."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from pipelines.published import PUBLISHED, as_markdown

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
    screen = Console(highlight=False, soft_wrap=True)  # names are whole however narrow it is
    screen.print("Scores are the sigmoid of the logit, 0..1; --raw-scores gives the logit.")
    for one in PUBLISHED:
        family, _, tokens, licence, use = one.cells()
        screen.print(f"\n[bold]{family}[/], {tokens} tokens; licence: {licence}; commercial use: {use}")
        for name in one.models:
            screen.print(f"  {name}")
