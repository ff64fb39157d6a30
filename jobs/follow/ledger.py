"""What a follower remembers of its output between two rounds, so that a round costs no more than what is new in it.

All of it can be read from the output as well: `load` does so after a start, and after a round that failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs import storage
from jobs.driver.planning import continued_manifest, new_manifest, selection_of
from jobs.input.partitions import continued_types, input_root
from jobs.input.selection import Selection
from jobs.input.survey import survey
from jobs.joins.corpus.attaching import bytes_of_texts
from jobs.output.attempts import Attempt, past_attempts
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest
from jobs.output.parts import counts_of
from jobs.output.summary import by_file, compose, read_summary, totals
from jobs.records import Counts, InputFile, PlannedFile, Unit
from jobs.settings import RerankSettings
from jobs.table.columns import why_not_written
from pipelines.errors import ConfigError


class Ledger:
    """The plan, which of its units are done, and the sums over all parts."""

    def __init__(self, settings: RerankSettings, fingerprint: Mapping[str, Any], output: OutputDirectory) -> None:
        self.settings = settings
        self.fingerprint = fingerprint
        self.output = output
        self.is_loaded = False
        self.manifest: Manifest | None = None
        """None until the first file comes that can be read."""
        self.planned: dict[str, PlannedFile] = {}
        """By path."""
        self.todo: list[Unit] = []
        self.damaged: dict[Unit, str] = {}
        """Why units have no part although they were tried."""
        self.counts = Counts()
        """The counts of all parts together."""
        self.parts = 0
        self.is_summed_up = False
        """Whether the summary on disk agrees with this ledger."""
        self.earlier_attempts: list[dict[str, Any]] = []

    def load(self, files: Sequence[InputFile]) -> None:
        """Reads what earlier rounds left, with the input as it is now; raises RefusedError for another job's output."""
        self.earlier_attempts = past_attempts(self.output)
        if self.output.is_begun:
            before = Manifest.read(self.output.manifest)
            paths = {one.file.path for one in before.files}
            known = [file for file in files if file.path in paths]  # others have to settle first
            manifest, changed = continued_manifest(self.output, self.settings, self.fingerprint, known)
            summary = read_summary(self.output) if self.output.is_complete and not changed else None
            if changed or not before.followed:
                self._write(manifest, keep_summary=not changed)
            self._take(manifest)
            self.output.remove_strays({unit.name for unit in manifest.units()})
            finished = self.output.finished()
            done = [unit for unit in manifest.units() if unit.name in finished]
            self.todo = [unit for unit in manifest.units() if unit.name not in finished]
            self.damaged = {}
            self.parts = len(done)
            self.is_summed_up = summary is not None and summary["parts"] == len(done) and not self.todo
            self.counts = (
                sum(counts_of(self.output, manifest, done), Counts())
                if summary is None or not self.is_summed_up
                else replace(Counts.from_dict(summary), rows_left_out=summary["rows_left_out"] - manifest.rows_left_out)
            )
        self.is_loaded = True

    def extended(self, fresh: Sequence[InputFile], listed: Mapping[str, InputFile]) -> Manifest:
        """The manifest with these new files; files that could not be read and are no longer `listed` are left out.

        Raises ConfigError and RefusedError for files that do not fit the job.
        """
        before = self.manifest
        if before is None:
            return new_manifest(self.settings, self.fingerprint, fresh)
        paths, new = list(self.planned), {file.path for file in fresh}
        now = [*paths, *new]
        types = continued_types(input_root(self.settings.input, now), before.options.partitions, paths, now)
        selection = selection_of(self.settings, [one.file for one in before.files] + list(fresh), types)
        kept = [
            one
            for one in before.files
            if one.file.path not in new and (one.error is None or one.ranges or one.file.path in listed)
        ]
        besides = bytes_of_texts(self.settings.corpus, self.settings.mapping)
        found = survey(fresh, selection, besides)
        for plan in found.plans.values():
            why = why_not_written(plan.schema, before.options.mapping, before.options.layout)
            if why is not None:
                raise ConfigError(why)
        planned = found.planned(fresh, None)
        return replace(before, options=replace(before.options, partitions=types)).with_files([*kept, *planned])

    def begin_round(self, manifest: Manifest) -> None:
        """Writes the manifest and removes the summary: from here on the output is not complete."""
        storage.remove(self.output.summary)
        self.is_summed_up = False
        if manifest is not self.manifest:
            new = [one for one in manifest.files if self.planned.get(one.file.path) is not one]
            self._write(manifest, keep_summary=False)
            self._take(manifest)
            self.todo += [unit for file in new for unit in file.units()]
            again = {file.file.path for file in new}
            self.damaged = {unit: why for unit, why in self.damaged.items() if unit.path not in again}

    def end_round(self, damaged: Mapping[Unit, str], attempt: Attempt, left_out: Sequence[InputFile]) -> dict[str, Any]:
        """Writes and returns the summary, to which the counts of the round's parts are added; nothing is to do then."""
        manifest = self.begun
        done = [unit for unit in self.todo if unit not in damaged]
        counts = counts_of(self.output, manifest, done)
        self.counts = sum(counts, self.counts)
        self.parts += len(done)
        self.damaged |= damaged
        self.todo = []
        attempts = [*self.earlier_attempts, attempt.as_dict()]
        sums = totals(manifest, [self.counts]) | {"parts": self.parts}
        summary = compose(manifest, sums, by_file(self.damaged), attempts, left_out)
        attempt.check_lease()
        storage.write_json(self.output.summary, summary)
        self.is_summed_up = True
        return summary

    @property
    def begun(self) -> Manifest:
        """The manifest, for callers who know that there is one."""
        assert self.manifest is not None
        return self.manifest

    @property
    def selection(self) -> Selection:
        """The rows of the files that the job takes."""
        manifest = self.begun
        return selection_of(self.settings, [one.file for one in manifest.files], manifest.options.partitions)

    def has_parts(self, planned: PlannedFile) -> bool:
        """Whether units of the file were finished."""
        return any(unit not in self.damaged for unit in planned.units())

    def _write(self, manifest: Manifest, *, keep_summary: bool) -> None:
        if not keep_summary:
            storage.remove(self.output.summary)
        manifest.write(self.output.manifest)

    def _take(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.planned = {one.file.path: one for one in manifest.files}
