"""The command line of training: a config file and flags that replace some of its values -> exit code.

python -m jobs.train CONFIG [flags]      # the same as `crossray train`; through `ray job submit` as well
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from jobs import errors
from jobs.endings import exit_code, resume_command
from jobs.flags import Flags, Panel, as_flag, with_flags
from jobs.screen import say
from pipelines.errors import ConfigError, missing_packages


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The config file of a training, and the flags that are given beside it. Raises ConfigError for wrong values."""

    config: Path = field(
        metadata=as_flag("The TOML file that describes the run; docs/training.md has its keys.", metavar="CONFIG")
    )
    base: str | None = field(default=None, metadata=as_flag("The model that training begins from.", Panel.CONFIG))
    data: str | None = field(
        default=None, metadata=as_flag("The folder that the paths of sources are in.", Panel.CONFIG)
    )
    output: str | None = field(default=None, metadata=as_flag("The directory for the run.", Panel.CONFIG))
    steps: int | None = field(default=None, metadata=as_flag("How many steps the whole run has.", Panel.CONFIG))
    workers: int | None = field(default=None, metadata=as_flag("How many processes train side by side.", Panel.CONFIG))
    num_cpus: float | None = field(default=None, metadata=as_flag("CPUs of each worker.", Panel.CONFIG))
    num_gpus: float | None = field(default=None, metadata=as_flag("GPUs of each worker.", Panel.CONFIG))
    max_errors: int | None = field(
        default=None,
        metadata=as_flag("More unusable rows and files end the run before it trains; default: any number."),
    )
    tensorboard: str | None = field(
        default=None, metadata=as_flag("A directory for TensorBoard's events; by default none are written.")
    )
    overwrite: bool = field(
        default=False,
        metadata=as_flag("Throw away what the output holds of an earlier run, and start anew.", name="--overwrite"),
    )
    address: str | None = field(
        default=None,
        metadata=as_flag("The Ray cluster to run on; by default one of its own.", Panel.CLUSTER, envvar="RAY_ADDRESS"),
    )

    def __post_init__(self) -> None:
        if self.max_errors is not None and self.max_errors < 0:
            raise ConfigError(f"--max-errors is {self.max_errors}; it is 0 or more")

    def overrides(self) -> dict[str, Any]:
        """Values that replace those of the config file, by key; None keeps what the file says."""
        is_relative = self.data is not None and "://" not in self.data  # to where the command is given
        return {
            "base": self.base,
            "data": str(Path(self.data).absolute()) if self.data is not None and is_relative else self.data,
            "output": self.output,
            "recipe.steps": self.steps,
            "workers.count": self.workers,
            "workers.cpus": self.num_cpus,
            "workers.gpus": self.num_gpus,
        }


FLAGS = Flags.of(TrainSettings)
EXAMPLES = (
    "crossray train train.toml",
    "crossray train train.toml --base embedded --steps 200 --output try/",
    "crossray train train.toml --workers 4 --num-gpus 1",
)


@with_flags(FLAGS)
def command(**given: Any) -> None:
    """Train a reranker from Parquet rows; the model comes to lie in OUTPUT/model.

    The same command again resumes what was stopped, or says that all is done.
    Exit codes: 0 done, 1 more unusable rows than --max-errors, 2 usage, 3 refused, 4 stopped (resumable), 130/143
    stopped by a signal (resumable).
    """
    resume = resume_command("jobs.train", without="--overwrite")
    raise typer.Exit(exit_code(lambda: train(FLAGS.settings(given)), resume))


def train(settings: TrainSettings) -> int:
    """Runs the training, and returns the exit code of one that came to its end; raises what the training raises."""
    from jobs.training.train.config import read_config

    config = read_config(settings.config, settings.overrides())
    check_tensorboard(settings.tensorboard)
    from jobs.training.bad_rows import TooManyBadRowsError
    from jobs.training.train.run import run  # ray: seconds, spared to a wrong config

    try:
        run(
            config,
            settings.config,
            address=settings.address,
            max_errors=settings.max_errors,
            tensorboard=settings.tensorboard,
            overwrite=settings.overwrite,
        )
    except TooManyBadRowsError as error:
        say(Console(stderr=True), str(error), "error: ")
        return errors.DONE_WITH_ERRORS
    return errors.DONE


def check_tensorboard(directory: str | None) -> None:
    """Raises ConfigError where --tensorboard is given and the package tensorboard is not installed."""
    if directory is not None:
        try:
            import tensorboard  # noqa: F401  # optional: the extra `train`
        except ImportError:
            raise ConfigError(missing_packages("--tensorboard", "tensorboard")) from None


if __name__ == "__main__":
    typer.run(command)
