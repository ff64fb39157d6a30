"""The `crossray` command with its sub-commands; other packages, such as `serve`, add theirs by an entry-point group."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from jobs import (
    calibrate,
    compare,
    convert,
    evaluate,
    importing,
    inspection,
    label,
    mine,
    models,
    pairs,
    rerank,
    scores,
    train,
)
from jobs.flags import epilog

PLUGINS = "crossray.commands"
"""Entry-point group: name of the sub-command -> function (or typer.Typer) that is one."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Cross-encoder reranking on Ray.")
app.command("rerank", epilog=epilog(rerank.EXAMPLES))(rerank.command)
app.command("inspect", epilog=epilog(inspection.EXAMPLES))(inspection.command)
app.command("pairs", epilog=epilog(pairs.EXAMPLES))(pairs.command)
app.command("mine", epilog=epilog(mine.EXAMPLES))(mine.command)
app.command("label", epilog=epilog(label.EXAMPLES))(label.command)
app.command("train", epilog=epilog(train.EXAMPLES))(train.command)
app.command("evaluate", epilog=epilog(evaluate.EXAMPLES))(evaluate.command)
app.command("calibrate", epilog=epilog(calibrate.EXAMPLES))(calibrate.command)
app.command("compare", epilog=epilog(compare.EXAMPLES))(compare.command)
app.command("import", epilog=epilog(importing.EXAMPLES))(importing.command)
app.command("convert", epilog=epilog(convert.EXAMPLES))(convert.command)
app.command("models", epilog=epilog(models.EXAMPLES))(models.command)
app.add_typer(scores.app, name="scores")


def print_version(is_asked: bool) -> None:
    """Prints the version and ends the command, where that is what was asked for."""
    if is_asked:
        print(f"crossray {importlib.metadata.version('crossray')}")
        raise typer.Exit


@app.callback()
def crossray(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Cross-encoder reranking on Ray."""


def main() -> None:
    """Adds the sub-commands of other packages and runs what was asked for: what the console script calls."""
    for plugin in importlib.metadata.entry_points(group=PLUGINS):
        loaded = plugin.load()
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=plugin.name)
        else:
            app.command(plugin.name)(loaded)
    app()


if __name__ == "__main__":
    main()
