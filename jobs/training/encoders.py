"""Settings of a dense bi-encoder, which finds candidates or teaches, and how workers load it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.flags import Flag, Panel
from jobs.storage import absolute
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.training.dense import DenseEncoder

FLAGS = {
    "query_prefix": Flag(
        'What the encoder wants before queries, such as "query: " for e5; by default what its directory says.',
        Panel.DENSE,
    ),
    "passage_prefix": Flag(
        'What the encoder wants before passages, such as "passage: " for e5; by default what its directory says.',
        Panel.DENSE,
    ),
    "max_length": Flag(
        "The encoder reads so many tokens of a text; by default what its directory says, or 512.",
        Panel.DENSE,
        "--dense-length",
    ),
}
"""By field of EncoderSettings; where a command is told the directory differs."""


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """A bi-encoder of the BERT family in a directory that all nodes see. Raises ConfigError for a length below 3."""

    directory: str
    query_prefix: str | None = None
    passage_prefix: str | None = None
    """None is what the directory says, as of queries."""
    max_length: int | None = None
    """Tokens of a text, at most what the model can read; None is what the directory says."""
    num_cpus: int = 1
    """Threads of the encoder."""
    num_gpus: float = 0
    """With more than 0 the encoder computes on a GPU."""

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 3:
            raise ConfigError(f"--dense-length is {self.max_length}; it is at least 3 tokens")

    def load(self) -> DenseEncoder:
        """The encoder, loaded in the worker that calls this."""
        import torch  # seconds, and not for the driver

        from pipelines.training.dense import DenseEncoder

        torch.set_num_threads(self.num_cpus)
        on_gpu = bool(self.num_gpus)
        return DenseEncoder(
            Path(self.directory),
            self.max_length,
            torch.float16 if on_gpu else torch.float32,
            "cuda" if on_gpu else "cpu",
            self.query_prefix,
            self.passage_prefix,
        )

    def identity(self) -> dict[str, Any]:
        """All that changes the encoder's scores, as JSON types, with a digest of its files.

        Raises ModelError where there is no model, or one of another kind.
        """
        from pipelines.model_sources import find_model
        from pipelines.training.embedding import Pooling, read_embedding

        embedding = read_embedding(Path(self.directory))
        settings = asdict(self) | {"max_length": self.max_length or embedding.max_length}
        for name in ("query_prefix", "passage_prefix"):
            if settings[name] is None:
                settings[name] = getattr(embedding, name)
        settings = {name: value for name, value in settings.items() if name not in ("directory", "num_cpus")}
        if embedding.pooling is not Pooling.MEAN:
            settings["pooling"] = str(embedding.pooling)
        if embedding.lower_case:
            settings["lower_case"] = True
        return {"files": find_model(str(embedding.transformer)).digest(), **settings}


def with_absolute_directory(encoder: EncoderSettings, flag: str) -> EncoderSettings:
    """The settings with an absolute directory.

    Raises ConfigError for what is no directory, and for a relative path in a submitted job.
    """
    from jobs.driver.resolution import JOB_ENVIRONMENT

    directory = absolute(encoder.directory, flag, allow_relative=JOB_ENVIRONMENT not in os.environ)
    if not os.path.isdir(directory):
        raise ConfigError(f"{flag} is {encoder.directory!r}, which is no directory; give the folder of a bi-encoder")
    return replace(encoder, directory=directory)
