"""The command line of training: a config file and what is to be otherwise -> exit code.

python -m jobs.train CONFIG [flags]      # the same as `crossray train`; through `ray job submit` as well
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs import errors
from jobs.endings import exit_code, resume_command
from jobs.flags import CLUSTER_PANEL
from jobs.screen import say
from pipelines.errors import ConfigError

CONFIG_PANEL = "Instead of what the config says"


def command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file; docs/training.md has the keys.")],
    base: Annotated[str | None, typer.Option(help="What training begins from.", rich_help_panel=CONFIG_PANEL)] = None,
    data: Annotated[str | None, typer.Option(help="Folder of the sources.", rich_help_panel=CONFIG_PANEL)] = None,
    output: Annotated[str | None, typer.Option(help="Where the run goes.", rich_help_panel=CONFIG_PANEL)] = None,
    steps: Annotated[int | None, typer.Option(help="Of the whole run.", rich_help_panel=CONFIG_PANEL)] = None,
    workers: Annotated[int | None, typer.Option(help="How many.", rich_help_panel=CONFIG_PANEL)] = None,
    num_cpus: Annotated[float | None, typer.Option(help="Of a worker.", rich_help_panel=CONFIG_PANEL)] = None,
    num_gpus: Annotated[float | None, typer.Option(help="Of a worker.", rich_help_panel=CONFIG_PANEL)] = None,
    max_errors: Annotated[
        int | None, typer.Option(help="More unusable rows and files end the run before it trains; default: any number.")
    ] = None,
    tensorboard: Annotated[str | None, typer.Option(help="Directory for TensorBoard's events.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where the output holds a run.")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster; default: a private one.", rich_help_panel=CLUSTER_PANEL, envvar="RAY_ADDRESS"),
    ] = None,
) -> None:
    """Train a reranker from Parquet rows; the model comes to lie in OUTPUT/model.

    The same command again resumes what was stopped, or says that all is done.
    Exit codes: 0 done, 1 more unusable rows than --max-errors, 2 usage, 3 refused, 4 stopped (resumable), 130/143
    stopped by a signal (resumable).
    """
    given = {
        "base": base,
        "data": None if data is None else str(Path(data).absolute()) if "://" not in data else data,
        "output": output,
        "recipe.steps": steps,
        "workers.count": workers,
        "workers.cpus": num_cpus,
        "workers.gpus": num_gpus,
    }
    options = {"address": address, "max_errors": max_errors, "tensorboard": tensorboard, "overwrite": overwrite}
    resume = resume_command("jobs.train", without="--overwrite")
    raise typer.Exit(exit_code(lambda: train(config, given, options), resume))


def train(config_file: Path, given: dict[str, Any], options: dict[str, Any]) -> int:
    """Runs the training, and returns the exit code of one that came to its end; raises what the training raises."""
    from jobs.training.train.config import read_config

    config = read_config(config_file, given)
    check_tensorboard(options["tensorboard"])
    from jobs.training.train.run import TooManyBadRowsError, run  # ray and torch: seconds, spared to a wrong config

    try:
        run(config, config_file, **options)
    except TooManyBadRowsError as error:
        say(Console(stderr=True), str(error), "error: ")
        return errors.DONE_WITH_ERRORS
    return errors.DONE


def check_tensorboard(directory: str | None) -> None:
    """Raises ConfigError where events are wanted that nothing here can write."""
    if directory is not None:
        try:
            import tensorboard  # noqa: F401  # optional: the extra `train`
        except ImportError:
            raise ConfigError("--tensorboard needs the package tensorboard: pip install 'crossray[train]'") from None


if __name__ == "__main__":
    typer.run(command)
