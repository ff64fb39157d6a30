"""What each worker of Ray Train does: joins the shards on its machine, trains, validates, leaves checkpoints.

Worker 0 also writes the learning curve and how the run stands, and at the end the model.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.collective
import ray.train.torch
import torch
import torch.distributed
from filelock import FileLock

from jobs import storage
from jobs.training.train.config import TrainConfig, Validation
from jobs.training.train.paths import RunFiles
from jobs.training.train.shards import ShardReport, read_shard, source_numbers
from pipelines.calibration import Calibration
from pipelines.model_files import ModelFiles
from pipelines.training.base import load_base, write_model
from pipelines.training.calibration import FOLDED_IN, Reliability, calibration, fold_in, platt
from pipelines.training.loop import DivergedError, Progress, Trainer
from pipelines.training.mapped_lists import join, load_mapped
from pipelines.training.token_lists import TokenLists
from pipelines.training.validation import (
    ScoredLists,
    labelled_pairs,
    means_by,
    measure_of,
    score_lists,
    validation_lists,
)

SECONDS_BETWEEN_NEWS = 2.0
STEPS_BETWEEN_LINES = 10
CALIBRATED_BY = 4
"""So many times the lists of a validation, at most, calibrate the model: figures of single sources need more lists."""
CURVE = ("step", "loss", "best label first", "pairs per second", "learning rate")


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told."""

    config: TrainConfig
    output: RunFiles
    reports: tuple[ShardReport, ...]
    """Reports of the shards, in the order of the shards."""
    shards: tuple[str, ...]
    source_names: tuple[str, ...]
    vocab_size: int
    lists_id: str
    """In the name of the folder that workers of one machine share."""
    tensorboard: str | None


@dataclass(slots=True)
class History:
    """What was measured since the run began; each checkpoint holds it."""

    lines: list[list[str]] = field(default_factory=list)
    """Lines of the learning curve."""
    window: list[Progress] = field(default_factory=list)
    """The steps since the last of these lines."""
    validations: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = -1
    best: float = -math.inf
    """Value of the best validation, or of the last one where its weights are kept."""
    seconds: float = 0.0
    pairs: int = 0

    def without_gain(self) -> int:
        """Validations since the best one."""
        return sum(one["step"] > self.best_step for one in self.validations)


def train_worker(task: Task) -> None:
    """Trains from the last checkpoint on; returns when the run is over and the model is written."""
    run = TrainingWorker(task, map_lists(task, ray.train.collective.barrier))
    try:
        run.go()
    except DivergedError as error:  # no failure that another process would mend
        if run.rank == 0:
            storage.write_json(task.output.result, {"failed": str(error)})


class TrainingWorker:
    """One worker's part of a run."""

    def __init__(self, task: Task, lists: TokenLists) -> None:
        config = self.config = task.config
        self.task = task
        self.lists = lists
        device = ray.train.torch.get_device()
        torch.set_num_threads(max(1, int(config.workers.cpus)))
        self.base = load_base(config.base, seed=config.recipe.seed)
        self.trainer = Trainer(self.base.encoder, lists, self.base.layout, config.recipe, device)
        self.rank, self.workers = self.trainer.rank, self.trainer.workers
        self.measure = measure_of(lists)
        self.numbers = validation_lists(self.measure.lists(lists), config.validation.lists, config.recipe.seed)
        self.sources = source_numbers(task.reports)
        self.history = History()
        self.best_weights = self.weights()
        self.news_at = -math.inf
        self.board: Any = None
        if task.tensorboard and self.rank == 0:
            from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import

            self.board = SummaryWriter(task.tensorboard)

    def go(self) -> None:
        """Trains to the end, with validations and checkpoints in between, and writes the model."""
        if not self.resume() and self.base.has_head:
            self.trainer.scale_head()
            self.best_weights = self.weights()
        every, patience = self.config.validation.every, self.config.validation.patience
        if not self.history.validations:
            self.validate()
        began, seconds_before = time.perf_counter(), self.history.seconds
        is_over = self.is_over(patience)
        while self.trainer.step < self.config.recipe.steps and not is_over:
            progress = self.trainer.train_step()
            self.history.window.append(progress)
            self.history.pairs += progress.pairs
            self.history.seconds = seconds_before + time.perf_counter() - began
            last = progress.step == self.config.recipe.steps
            if progress.step % STEPS_BETWEEN_LINES == 0 or last:
                self.add_line()
            if progress.step % every == 0 or last:
                self.validate()
                is_over = self.is_over(patience)
                self.leave_checkpoint()
            self.tell(progress)
        self.finish()

    def is_over(self, patience: int) -> bool:
        """Whether the run ends early; all workers know all validations, so they all say the same."""
        return 0 < patience <= self.history.without_gain()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the encoder's weights, in main memory."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.trainer.encoder.state_dict().items()}

    def validate(self) -> None:
        """Measures the order of lists that are held back; keeps the best weights."""
        values = self.measure.values(self.score(self.numbers))
        by_source = means_by(values, self.sources[self.numbers], self.task.source_names)
        mean = float(np.mean(list(by_source.values()))) if by_source else math.nan
        self.history.validations.append({"step": self.trainer.step, "value": mean, "by_source": by_source})
        if keeps(self.config.validation, mean, self.history.best):
            self.history.best = -math.inf if math.isnan(mean) else mean
            self.history.best_step = self.trainer.step
            self.best_weights = self.weights()
        if self.board and not math.isnan(mean):
            self.board.add_scalar(f"validation/{self.measure.name}", mean, self.trainer.step)

    def score(self, numbers: np.ndarray) -> ScoredLists:
        """Scores all passages of some lists: each worker a share of the pairs, and all of them know the logits."""
        trainer, recipe = self.trainer, self.config.recipe
        trainer.refresh_passing()
        longest, longest_query = max(recipe.max_lengths), recipe.max_query_length
        scored = score_lists(
            trainer.passing, trainer.batches, self.lists, numbers, longest, longest_query, self.rank, self.workers
        )
        if self.workers == 1:
            return scored
        logits_LC = torch.from_numpy(scored.logits_LC).to(trainer.device)
        torch.distributed.all_reduce(logits_LC)
        return replace(scored, logits_LC=logits_LC.cpu().numpy())

    def add_line(self) -> None:
        """Adds a line to the learning curve: the mean of the last steps."""
        window, self.history.window = self.history.window, []
        firsts = [one.positive_first for one in window if not math.isnan(one.positive_first)]
        loss = float(np.mean([one.loss for one in window]))
        first = float(np.mean(firsts)) if firsts else math.nan
        speed = sum(one.pairs for one in window) / sum(one.seconds for one in window)
        step = window[-1].step
        rate = self.config.recipe.rate(step - 1)
        share = "" if math.isnan(first) else f"{first:.4f}"
        self.history.lines.append([str(step), f"{loss:.4f}", share, f"{speed:.0f}", f"{rate:.3e}"])
        if self.board:
            values = {"loss": loss, "best label first": first, "pairs per second": speed}
            for name, value in ((name, value) for name, value in values.items() if not math.isnan(value)):
                self.board.add_scalar(f"train/{name}", value, step)

    def tell(self, progress: Progress) -> None:
        """Writes how the run stands, for the driver's line on the terminal, and the curve so far."""
        now = time.perf_counter()
        if self.rank or now - self.news_at < SECONDS_BETWEEN_NEWS:
            return
        self.news_at = now
        history, steps = self.history, self.config.recipe.steps
        done_here = max(1, progress.step)
        value = history.validations[-1]["value"]
        news = {
            "step": progress.step,
            "steps": steps,
            "loss": progress.loss,
            "measure": self.measure.name,
            "value": None if math.isnan(value) else value,
            "pairs_per_second": progress.pairs / progress.seconds,
            "seconds_left": history.seconds / done_here * (steps - progress.step),
        }
        storage.write_json(self.task.output.news, news)
        write_text(self.task.output.curve, curve_csv(history, self.measure.name))

    def leave_checkpoint(self) -> None:
        """Leaves a checkpoint; all workers call this at the same steps, and worker 0 has the files."""
        metrics = {"step": self.trainer.step, "value": self.history.validations[-1]["value"]}
        if self.rank:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            self.trainer.save(Path(folder) / "trainer.pt")
            torch.save(self.best_weights, Path(folder) / "best.pt")
            (Path(folder) / "history.json").write_text(json.dumps(asdict(self.history)))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def resume(self) -> bool:
        """Loads the last checkpoint; False where there is none."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return False
        with checkpoint.as_directory() as folder:
            self.trainer.resume(Path(folder) / "trainer.pt")
            self.best_weights = torch.load(Path(folder) / "best.pt", map_location="cpu", weights_only=True)
            history = History(**json.loads((Path(folder) / "history.json").read_text()))
        self.history = replace(history, window=[Progress(*one) for one in history.window])
        return True

    def finish(self) -> None:
        """Scores lists with the best weights; with these worker 0 calibrates the model.

        It also writes the model, and the result for the driver's card and summary.
        """
        self.trainer.encoder.load_state_dict(self.best_weights)
        most, seed = CALIBRATED_BY * self.config.validation.lists, self.config.recipe.seed
        scored = self.score(validation_lists(self.lists.measurable(), most, seed))
        if self.rank:
            return
        logits, labels, numbers = labelled_pairs(scored)
        result: dict[str, Any] = {
            "history": asdict(self.history),
            "measure": self.measure.name,
            "validation_lists": len(self.numbers),
            "platt": None,
        }
        fitted_on, folded = of_every_second(numbers), None
        if calibration(logits[fitted_on], labels[fitted_on]):
            scale, bias = result["platt"] = platt(
                torch.from_numpy(logits[fitted_on]), torch.from_numpy(labels[fitted_on])
            )
            if scale > 0:  # else it would turn the order round
                fold_in(self.trainer.encoder, scale, bias)
                folded = self.folded(labels[fitted_on])
                logits, labels, numbers = (values[~fitted_on] for values in (logits, labels, numbers))
                result["calibration"] = self.calibrations(logits * scale + bias, labels, numbers)
        with tempfile.TemporaryDirectory() as folder:
            write_model(self.trainer.encoder.cpu(), self.base, Path(folder) / "model", calibration=folded)
            result["digest"] = ModelFiles(self.config.name, Path(folder) / "model").digest()
            storage.make_directory(self.task.output.model)
            for path in sorted((Path(folder) / "model").iterdir()):
                location = f"{self.task.output.model}/{path.name}"
                storage.store_of(location).write(location, path.read_bytes())
        write_text(self.task.output.curve, curve_csv(self.history, self.measure.name))
        storage.write_json(self.task.output.result, result)
        if self.board:
            self.board.close()

    def folded(self, labels: np.ndarray) -> Calibration:
        """What the model says of its scores: scale and bias, fitted on pairs with these labels, are in its weights."""
        data = tuple(self.task.source_names)
        return Calibration(1, 0, "", pairs=len(labels), relevant=float((labels > 0).mean()), data=data, note=FOLDED_IN)

    def calibrations(self, logits: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> dict[str, Any]:
        """Calibration of all sources together and of each with both classes, on lists that the fit did not see."""
        found: dict[str, Reliability | None] = {"all": calibration(logits, labels)}
        for number, name in enumerate(self.task.source_names):
            of_source = self.sources[numbers] == number
            if of_source.any():
                found[name] = calibration(logits[of_source], labels[of_source])
        return {name: asdict(one) for name, one in found.items() if one}


def of_every_second(numbers: np.ndarray) -> np.ndarray:
    """Whether each pair belongs to the first, third, fifth ... of the lists whose numbers the pairs have; bool [P]."""
    is_first: np.ndarray = np.unique(numbers, return_inverse=True)[1] % 2 == 0
    return is_first


def keeps(validation: Validation, value: float, best: float) -> bool:
    """Whether the weights of a validation replace those that were kept so far; without lists it is NaN, and they do."""
    return validation.keep == "last" or math.isnan(value) or value > best


def curve_csv(history: History, measure: str) -> str:
    """The learning curve as CSV; a validation is in the line of its step, or in a line of its own."""
    lines = {int(line[0]): [*line, ""] for line in history.lines}
    for one in history.validations:
        value = "" if math.isnan(one["value"]) else f"{one['value']:.4f}"
        lines.setdefault(one["step"], [str(one["step"]), "", "", "", "", ""])[5] = value
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([*CURVE, f"validation {measure}"])
    writer.writerows(lines[step] for step in sorted(lines))
    return content.getvalue()


def write_text(location: str, text: str) -> None:
    """Writes a small file, whole or not at all."""
    storage.store_of(location).write(location, text.encode())


def map_lists(task: Task, wait: Callable[[], None]) -> TokenLists:
    """The lists of all shards, mapped from a folder on this machine that the first of its workers writes.

    `wait` returns when all workers are here. Then the folder goes: what is mapped stays readable until the last process
    that has it ends, in whatever way.
    """
    folder = lists_folder(task)
    try:
        with FileLock(f"{folder}.lock"):
            if not (folder / "dtypes.json").exists():
                join((read_shard(shard) for shard in task.shards), folder, task.vocab_size)
            lists = load_mapped(folder)
        wait()
    finally:
        remove_lists(task)
    return lists


def lists_folder(task: Task) -> Path:
    """Where workers of the task write the joined lists, on each machine."""
    return Path(tempfile.gettempdir()) / f"crossray-lists-{task.lists_id}"


def remove_lists(task: Task) -> None:
    """Removes what workers of the task may have left on this machine when they were killed."""
    folder = lists_folder(task)
    shutil.rmtree(folder, ignore_errors=True)
    Path(f"{folder}.lock").unlink(missing_ok=True)
