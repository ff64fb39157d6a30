"""The `crossray` command with its sub-commands; other packages, such as `serve`, add theirs by an entry-point group."""

from __future__ import annotations

import importlib.metadata

import typer

from jobs import convert, inspection, label, mine, pairs, rerank, scores, train

PLUGINS = "crossray.commands"
"""Entry-point group: name of the sub-command -> function (or typer.Typer) that is one."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Cross-encoder reranking on Ray.")
app.command("rerank")(rerank.command)
app.command("inspect")(inspection.command)
app.command("pairs")(pairs.command)
app.command("mine")(mine.command)
app.command("label")(label.command)
app.command("train")(train.command)
app.command("convert")(convert.command)
app.add_typer(scores.app, name="scores")


@app.callback()
def crossray() -> None:
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
