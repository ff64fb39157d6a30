"""Where each file is in the output of a training run."""

from __future__ import annotations

import os

from jobs import storage
from jobs.errors import RefusedError
from jobs.output.directory import MANIFEST, SUMMARY


class RunFiles:
    """The paths of all files in the output of one run."""

    def __init__(self, path: str) -> None:
        def place(name: str) -> str:
            return os.path.join(path, name)

        self.path = path
        self.manifest = place(MANIFEST)
        """What was asked for; written first."""
        self.lists = place("lists")
        """Shards of token lists, each with its report."""
        self.checkpoints = place("checkpoints")
        """Checkpoints of Ray Train."""
        self.news = place("_progress.json")
        """How the run stands, for the line on the terminal."""
        self.curve = place("curve.csv")
        self.plot = place("curve.png")
        self.result = place("_result.json")
        """What worker 0 measured at the end."""
        self.model = place("model")
        self.card = place("model/README.md")
        self.summary = place(SUMMARY)
        """Written last: its presence says that the run is complete."""

    def has_trained(self) -> bool:
        """Whether the run is past the preparation of its rows, which other settings may throw away."""
        return storage.is_directory(self.checkpoints) or storage.exists(self.result) or storage.exists(self.summary)


def base_model(base: str) -> str:
    """The model in the output of another run, or `base` itself; raises RefusedError where that run is not complete."""
    if storage.is_directory(base) and storage.exists(os.path.join(base, MANIFEST)):
        if not storage.exists(os.path.join(base, SUMMARY)):
            raise RefusedError(f"base {base} is a run that is not complete; run its own command again first")
        return RunFiles(base).model
    return base
