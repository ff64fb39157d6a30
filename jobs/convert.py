"""`crossray convert`: writes a reranker that Crossray loads as a directory that transformers loads by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs import errors
from jobs.screen import say
from pipelines.errors import ConfigError, ModelError

EXAMPLES = (
    "crossray convert embedded plain-embedded/",
    "crossray convert jinaai/jina-reranker-v2-base-multilingual plain-jina/ --dtype bfloat16",
)
WRITTEN_DTYPES = ("float16", "float32", "bfloat16")


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The reranker: `embedded`, a directory, a uri or a hub name.")
    ],
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="The directory for the result; it must not exist yet.")
    ],
    dtype: Annotated[
        str, typer.Option(help="How the numbers are stored: float16, float32 or bfloat16.")
    ] = WRITTEN_DTYPES[0],
    revision: Annotated[str | None, typer.Option(help="The branch, tag or commit of a hub model.")] = None,
    token: Annotated[
        str | None, typer.Option(help="The access token for a gated model of the hub.", envvar="HF_TOKEN")
    ] = None,
) -> None:
    """Write MODEL as a directory that transformers loads: jina-reranker-v2's layout, and embeddings in 8 bits, undone.

    Exit codes: 0 done, 2 usage, also where nothing can be written, 3 refused (DIRECTORY is there already).
    """
    import torch  # seconds, spared to --help

    from pipelines.training.plain import convert

    console = Console(stderr=True)
    try:
        if dtype not in WRITTEN_DTYPES:
            raise ConfigError(f"--dtype is {dtype!r}; it is one of {', '.join(WRITTEN_DTYPES)}")
        convert(model, directory, getattr(torch, dtype), revision=revision, token=token)
    except FileExistsError as error:
        say(console, str(error), "refused: ")
        raise typer.Exit(errors.REFUSED) from None
    except (ConfigError, ModelError, OSError) as error:
        say(console, str(error), "error: ")
        raise typer.Exit(errors.USAGE) from None
    say(Console(), f"{directory}; AutoModelForSequenceClassification.from_pretrained loads it", "written: ", "green")
