"""One look of a follower at its input: it plans the files that are whole, ranks them in a round, and sums up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from jobs import storage
from jobs.driver.passes import score_everything
from jobs.errors import RefusedError
from jobs.follow.arrivals import Arrivals
from jobs.follow.ledger import Ledger
from jobs.output.attempts import Attempt
from jobs.output.manifest import Manifest
from jobs.records import InputFile, Unit
from jobs.scoring.scorer import LoadScorer
from jobs.screen import say, say_cut_timestamps, say_left_out
from jobs.settings import POLL_SECONDS, RerankSettings
from jobs.workers.assignment import Assignment
from jobs.workers.warm_pool import WarmPool
from pipelines.errors import ConfigError
from pipelines.stores import is_uri

FILES_PER_ROUND = 1_000
"""Files that one round takes at most, so that a backlog is planned, ranked and summed up in steps."""


class Follower:
    """Looks at the input when it is asked to, and ranks what is new."""

    def __init__(
        self,
        ledger: Ledger,
        settings: RerankSettings,
        attempt: Attempt,
        pool: WarmPool,
        load_scorer: LoadScorer,
        console: Console,
        clock: Callable[[], float],
        files_per_round: int = FILES_PER_ROUND,
    ) -> None:
        self.ledger = ledger
        self.settings = settings
        self.attempt = attempt
        self.pool = pool
        self.load_scorer = load_scorer
        self.console = console
        self.clock = clock
        self.files_per_round = files_per_round
        poll_seconds = settings.poll_seconds or POLL_SECONDS
        self.arrivals = Arrivals(0.0 if is_uri(settings.input) else poll_seconds)
        self.left_alone: dict[InputFile, str] = {}
        """Files that are not read as they are now, and why."""
        self.left_out: list[InputFile] = []
        """Files of the last listing that are no Parquet."""
        self.left_out_said: set[str] = set()
        self.seen: dict[str, float] = {}
        """When the files of the round were first seen, by path."""
        self.status: dict[str, Any] = {
            "input": settings.input,
            "poll_seconds": poll_seconds,
            "rounds": 0,
            "last_round": None,
        }
        self.longest_lag = 0.0

    def look(self) -> bool:
        """Lists the input once and ranks the files that are whole; returns whether there was anything to do.

        Raises StoppedError and OSError; the next look goes on from what is on record.
        """
        self.attempt.check_lease()
        now = self.clock()
        found = storage.find_input(self.settings.input)
        self._note_left_out(found.left_out)
        listed = {file.path: file for file in found}
        if not self.ledger.is_loaded:
            self.ledger.load(list(listed.values()))
        self.arrivals.note(self._new(listed), now)
        manifest = self._planned(self.arrivals.whole(now, self.files_per_round), listed)
        self._tell()
        if manifest is None or (manifest is self.ledger.manifest and self.ledger.is_summed_up):
            return False
        self.ledger.is_loaded = False  # until all is well
        self._rank(manifest)
        self.ledger.is_loaded = True
        return True

    def save_attempt(self) -> None:
        """Writes the record of this attempt, unless nothing has begun: until then OUTPUT stays empty."""
        if self.ledger.manifest is not None:
            self.attempt.save()

    def _note_left_out(self, left_out: list[InputFile]) -> None:
        """Says of each file once that it is left out, when it has stood still for a look: it may be half written."""
        still = set(self.left_out)
        new = [file for file in left_out if file in still and file.path not in self.left_out_said]
        say_left_out(self.console, self.settings.input, new)
        self.left_out_said |= {file.path for file in new}
        self.left_out = left_out

    def _new(self, listed: Mapping[str, InputFile]) -> list[InputFile]:
        """Listed files that are to be read: not planned, or changed since and without a part."""
        self.left_alone = {file: why for file, why in self.left_alone.items() if listed.get(file.path) == file}
        new = []
        for file in listed.values():
            planned = self.ledger.planned.get(file.path)
            if file in self.left_alone or (planned is not None and planned.file == file):
                continue
            if planned is not None and self.ledger.has_parts(planned):
                self._leave_alone(file, "has changed after it was ranked; give other content another name")
            else:
                new.append(file)
        return new

    def _planned(self, fresh: Sequence[InputFile], listed: Mapping[str, InputFile]) -> Manifest | None:
        """The manifest with those of the files that fit the job; None while nothing has begun and none can be read.

        Raises ConfigError when the first files do not fit: then it may be the command that is wrong.
        """
        if not fresh:
            return self.ledger.manifest
        try:
            manifest = self.ledger.extended(fresh, listed)
        except (ConfigError, RefusedError):
            if self.ledger.manifest is None:
                raise
            fresh = [file for file in fresh if self._fits(file, listed)]
            manifest = self.ledger.extended(fresh, listed) if fresh else self.ledger.manifest
        if self.ledger.manifest is None and all(one.error for one in manifest.files):
            for one in manifest.files:
                self._leave_alone(one.file, f"cannot be read: {one.error}")
            return None
        new = [one for one in manifest.files if self.ledger.planned.get(one.file.path) is not one]
        for one in new:
            if one.error is not None:
                say(self.console, f"{one.file.path}: {one.error}", "cannot be read: ", "yellow")
        say_cut_timestamps(self.console, new)
        self.seen |= {file.path: self.arrivals.sightings[file.path].first_seen for file in fresh}
        return manifest

    def _fits(self, file: InputFile, listed: Mapping[str, InputFile]) -> bool:
        try:
            self.ledger.extended([file], listed)
        except (ConfigError, RefusedError) as error:
            self._leave_alone(file, str(error))
            return False
        return True

    def _leave_alone(self, file: InputFile, why: str) -> None:
        self.left_alone[file] = why
        say(self.console, f"{file.path}: {why}", "left alone: ", "yellow")

    def _rank(self, manifest: Manifest) -> None:
        """One round: brings every unit that is to do to its part."""
        began = self.clock()
        self.attempt.check_lease()
        self.ledger.begin_round(manifest)
        todo = list(self.ledger.todo)
        if todo:
            self.attempt.enter("start")
            self.pool.start()
        damaged = score_everything(
            todo,
            self._assignment(manifest),
            manifest,
            self.ledger.output,
            self.attempt,
            self.console,
            self.pool.score,
        )
        if self.settings.corpus is not None:
            storage.remove_below(self.ledger.output.texts)
        self._note_round(todo, began)
        self.attempt.enter("wait")
        self.ledger.end_round(damaged, self.attempt, self.left_out)

    def _assignment(self, manifest: Manifest) -> Assignment:
        layout, fingerprint = manifest.options.layout, manifest.fingerprint["hash"]
        return Assignment(self.settings, layout, fingerprint, self.load_scorer, self.ledger.selection)

    def _note_round(self, todo: Sequence[Unit], began: float) -> None:
        now = self.clock()
        lag = max((now - since for since in self.seen.values()), default=0.0)
        self.longest_lag = max(self.longest_lag, lag)
        files = len({unit.path for unit in todo} | self.seen.keys())
        self.seen = {}
        rounds = self.status["rounds"] + 1
        self.status |= {"rounds": rounds, "last_round": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")}
        self.status |= {"lag_seconds": round(lag, 3), "longest_lag_seconds": round(self.longest_lag, 3)}
        self._tell()
        rows = sum(unit.rows for unit in todo)
        told = f"{files:,} file(s), {rows:,} rows in {now - began:,.1f} s, all done {lag:,.1f} s after the first came"
        say(self.console, told, f"round {rounds}: ", "green")

    def _tell(self) -> None:
        """Puts the state of following into the record of this attempt, for `crossray inspect`."""
        taken = {one.file for one in self.ledger.planned.values()} | self.left_alone.keys()
        waiting = sum(one.file not in taken for one in self.arrivals.sightings.values())
        left_alone = {file.path: why for file, why in self.left_alone.items()}
        self.attempt.following = {**self.status, "files_waiting": waiting, "left_alone": left_alone}
