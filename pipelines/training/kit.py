"""The kit: one folder with token lists, a recipe and an encoder's weights, to train from wherever torch and numpy are.

    python -m pipelines.training.kit train KIT OUTPUT --minutes 9 --of 18

trains for nine minutes of eighteen in all; the same command again does the rest. Weights travel in half precision and
in files of at most 16 MB. The optimizer's moments do not travel: each call warms up anew.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import pickle
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..encoder import EncoderShape, PackedEncoder
from .batches import PairLayout
from .loop import DivergedError, Progress, Trainer
from .recipe import Recipe
from .token_lists import TokenLists

KIT = "kit.json"
"""The file of a kit that is written last."""
LISTS = "lists.npz"
WEIGHT_FILE_BYTES = 16_000_000
"""Most bytes of one file of weights."""
GPU_MICRO_BATCH_TOKENS = 131_072
STEPS_BETWEEN_LINES = 20
SECONDS_BETWEEN_SAVES = 300
"""The training that is lost at most when the machine goes away."""
INTERRUPTED = 130
"""Exit code."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What the folder of a kit holds, besides the token lists and the weights."""

    shape: EncoderShape
    layout: PairLayout
    recipe: Recipe
    """Its `steps` are replaced by what the time allows."""

    def save(self, folder: Path, lists: TokenLists, weights: Mapping[str, torch.Tensor]) -> None:
        """Writes the folder; `weights` are the state dict of a PackedEncoder."""
        folder.mkdir(parents=True, exist_ok=True)
        lists.save(folder / LISTS)
        save_weights(folder, weights)
        (folder / KIT).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Kit:
        """Raises FileNotFoundError where there is no kit, ValueError for a recipe that cannot be."""
        parts = json.loads((folder / KIT).read_text())
        recipe = parts["recipe"] | {"max_lengths": tuple(parts["recipe"]["max_lengths"])}
        return cls(EncoderShape(**parts["shape"]), PairLayout(**parts["layout"]), Recipe(**recipe))

    def encoder(self, folder: Path) -> PackedEncoder:
        """The encoder with the weights of `folder`: the kit's own, or one that training left."""
        with torch.device("meta"):
            encoder = PackedEncoder(self.shape)
        encoder.load_state_dict(load_weights(folder), assign=True)
        return encoder


def save_weights(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors in half precision as weights-0.bin, weights-1.bin and so on, in place of an earlier call's."""
    content = io.BytesIO()
    torch.save({key: tensor.detach().cpu().half() for key, tensor in tensors.items()}, content)
    whole = content.getvalue()
    paths = [folder / f"weights-{i}.bin" for i in range(-(-len(whole) // WEIGHT_FILE_BYTES))]
    for i, path in enumerate(paths):
        path.with_suffix(".tmp").write_bytes(whole[i * WEIGHT_FILE_BYTES : (i + 1) * WEIGHT_FILE_BYTES])
    for path in paths:
        path.with_suffix(".tmp").rename(path)
    for path in set(folder.glob("weights-*.bin")) - set(paths):
        path.unlink()


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Reads what `save_weights` wrote, as float32.

    Raises FileNotFoundError where there is no file, ValueError where one is damaged or missing.
    """
    paths = sorted(folder.glob("weights-*.bin"), key=lambda path: int(path.stem.rpartition("-")[2]))
    if not paths:
        raise FileNotFoundError(f"{folder} has no weights-0.bin")
    content = io.BytesIO(b"".join(path.read_bytes() for path in paths))
    try:
        tensors = torch.load(content, weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"the weights in {folder} are damaged; copy them again ({error})") from None
    return {key: tensor.float() for key, tensor in tensors.items()}


class Clock:
    """Measures how much of a run's time is over, and estimates how many steps the whole run will have."""

    def __init__(self, minutes: float, total_minutes: float, spent_seconds: float = 0) -> None:
        self.began = time.perf_counter()
        self.spent_before = spent_seconds
        self.limit = min(minutes * 60, max(0.0, total_minutes * 60 - spent_seconds))
        self.total = total_minutes * 60

    def this_call(self) -> float:
        """Seconds since this call began to train."""
        return time.perf_counter() - self.began

    def is_over(self) -> bool:
        return self.this_call() >= self.limit

    def steps_in_all(self, steps_before: int, steps_now: int) -> int:
        """Steps of the whole run, judged by the speed of this call."""
        seconds_per_step = self.this_call() / max(1, steps_now - steps_before)
        left = max(0.0, self.total - self.spent_before - self.this_call())
        return max(steps_now + 1, steps_now + int(left / seconds_per_step))


def train(folder: Path, output: Path, minutes: float, total_minutes: float, device: torch.device) -> Progress | None:
    """Trains from a kit, or goes on from OUTPUT, and leaves weights, learning curve and progress there.

    Returns the last step's progress, None where the time of the whole run was over already. Raises FileNotFoundError
    where there is no kit, ValueError where OUTPUT was begun with another.
    """
    kit = Kit.load(folder)
    with (folder / LISTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "lists": digest}
    if (output / "progress.json").exists():
        state |= json.loads((output / "progress.json").read_text())
    if state["lists"] != digest:
        raise ValueError(f"{output} was begun with another kit than {folder}; give another OUTPUT")
    encoder = kit.encoder(output if state["step"] else folder)
    recipe = kit.recipe
    if device.type == "cuda":
        recipe = replace(recipe, micro_batch_tokens=max(recipe.micro_batch_tokens, GPU_MICRO_BATCH_TOKENS))
    trainer = Trainer(encoder, TokenLists.load(folder / LISTS), kit.layout, recipe, device)
    trainer.step = trainer.moments_since = state["step"]
    output.mkdir(parents=True, exist_ok=True)
    clock = Clock(minutes, total_minutes, state["seconds"])

    def save() -> None:
        save_weights(output, trainer.encoder.state_dict())
        progress = {"step": trainer.step, "seconds": state["seconds"] + clock.this_call(), "lists": digest}
        unfinished = output / "progress.tmp"
        unfinished.write_text(json.dumps(progress) + "\n")
        unfinished.rename(output / "progress.json")

    try:
        return run_steps(trainer, clock, output / "curve.csv", save)
    finally:  # a step that fails, or Ctrl-C, costs that step and not the minutes before it
        if trainer.step > state["step"]:
            save()


def run_steps(trainer: Trainer, clock: Clock, curve_file: Path, save: Callable[[], None]) -> Progress | None:
    """Trains until the clock's time is over, reports and saves on the way, and returns the last step's progress."""
    steps_before, last, saved_at = trainer.step, None, 0.0
    with curve_file.open("a", newline="", buffering=1) as file:
        curve = csv.writer(file)
        window: list[Progress] = []
        trainer.recipe = replace(trainer.recipe, steps=max(trainer.recipe.steps, trainer.step + 1))
        for last in trainer.run(clock.is_over):
            window.append(last)
            trainer.recipe = replace(trainer.recipe, steps=clock.steps_in_all(steps_before, last.step))
            if len(window) == STEPS_BETWEEN_LINES:
                report_steps(window, trainer, curve)
                window = []
            if clock.this_call() - saved_at > SECONDS_BETWEEN_SAVES:
                saved_at = clock.this_call()
                save()
        if window:
            report_steps(window, trainer, curve)
    return last


def report_steps(window: list[Progress], trainer: Trainer, curve: Any) -> None:
    """One line on the terminal and one of the learning curve, over the last steps."""
    loss = float(np.mean([one.loss for one in window]))
    labelled = [one.positive_first for one in window if not math.isnan(one.positive_first)]
    first = float(np.mean(labelled)) if labelled else math.nan
    pairs_per_second = sum(one.pairs for one in window) / sum(one.seconds for one in window)
    step, rate = window[-1].step, trainer.optimizer.param_groups[0]["lr"]
    curve.writerow([step, f"{loss:.4f}", f"{first:.4f}", f"{pairs_per_second:.0f}", f"{rate:.2e}"])
    print(
        f"step {step} of about {trainer.recipe.steps}, loss {loss:.4f}, best label first {first:.3f}, "
        f"{pairs_per_second:.0f} pairs/s",
        flush=True,
    )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help="train from a kit, or go on where OUTPUT stands")
    command.add_argument("kit", type=Path)
    command.add_argument("output", type=Path)
    command.add_argument("--minutes", type=float, required=True, help="of this call")
    command.add_argument("--of", type=float, help="minutes of all calls together; this call's without it")
    command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    try:
        last = train(args.kit, args.output, args.minutes, args.of or args.minutes, torch.device(args.device))
    except FileNotFoundError as error:
        parser.error(f"{error}; give a folder that make_kit wrote")
    except (ValueError, DivergedError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("stopped; what was trained is saved, and the same command goes on from there")
        raise SystemExit(INTERRUPTED) from None
    print("the time of the whole run is over" if last is None else f"saved step {last.step} in {args.output}")


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell lets its background jobs ignore the first
        signal.signal(number, signal.default_int_handler)
    main()
