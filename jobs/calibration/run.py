"""The driver of `crossray calibrate`: labels -> lists -> logits -> scale and bias -> calibration.json.

The model scores the lists as a teacher of `crossray label` does, in a directory beside the result. It goes when all is
done, so that a calibration that is stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from jobs import storage
from jobs.calibration.fit import ScoredPairs, fitted
from jobs.calibration.labels import LabelledList, read_labels
from jobs.calibration.screen import print_fit, print_labels
from jobs.calibration.settings import CalibrateSettings
from jobs.driver.resolution import with_resolved_model
from jobs.errors import RefusedError, StoppedError, disk_failures_as_stops
from jobs.evaluation.run import directory_name, write_lists
from jobs.evaluation.systems import SCORE, read_scores
from jobs.runtime.session import ray_session
from jobs.runtime.signals import signals_as_exceptions
from jobs.screen import OnlyProgress, say
from jobs.settings import RerankSettings
from jobs.training.label.run import job_of, label
from jobs.training.label.settings import LabelSettings
from jobs.training.label.teachers import Kind, Teacher
from pipelines.calibration import CALIBRATION, Calibration
from pipelines.errors import ConfigError, ModelRefusedError
from pipelines.evaluation.sets import LISTS
from pipelines.model_files import EMBEDDED_DIRECTORIES
from pipelines.model_sources import find_model

ROOM = ".scoring"
"""Put behind the name of the result: the directory in which the model scores."""
LISTS_FILE, SYSTEMS = "lists.parquet", "systems"
SUMS = "SHA256SUMS"
DATA_NAMED = 20
"""Files with labels that the result names."""


def calibrate(settings: CalibrateSettings, console: Console | None = None) -> Calibration:
    """Runs or resumes a calibration, prints how far scores can be believed, and returns what it wrote.

    Raises ConfigError, RefusedError, StoppedError or InterruptedBySignal, as `jobs.driver.run` does; RefusedError also
    where the model orders the labels backwards.
    """
    console = console or Console()
    with signals_as_exceptions(), disk_failures_as_stops():
        output = storage.absolute(output_of(settings), "--output")
        check_output(output)
        settings = replace(settings, job=without_misfit(settings, console))
        teacher = Teacher(Kind.RERANKER, settings.model)
        resolved, fingerprint = with_resolved_model(job_of(teacher, settings.job))
        found = read_labels(settings)
        print_labels(console, found)
        check_kinds(found.lists)
        room = f"{output}{ROOM}"
        lists = os.path.join(room, LISTS_FILE)
        write_lists(lists, True, as_table(found.lists))
        place = os.path.join(room, SYSTEMS, f"{directory_name(teacher)}-{fingerprint['hash']}")
        with ray_session(settings.job.address, console):
            job = replace(settings.job, input=lists, output=place)
            summary = label(LabelSettings(job, teacher, SCORE), console=OnlyProgress(console))
        pairs = scored(found.lists, read_scores(place))
        if summary["rows_with_errors"]:
            say(console, f"{summary['rows_with_errors']:,} list(s) got no scores: {summary['errors']}", "note: ")
        made = fitted_calibration(pairs, resolved, fingerprint, settings, console)
        storage.write_text(output, made.as_json())
        renew_sum(output)
        storage.remove_below(room)
    formula = f"score = sigmoid({made.scale:.4g} * logit {'-' if made.bias < 0 else '+'} {abs(made.bias):.4g})"
    say(console, f"{output}: {formula}", "written: ", "green")
    return made


def without_misfit(settings: CalibrateSettings, console: Console) -> RerankSettings:
    """The job, told to score without the calibration in the model's directory where that is of other weights.

    Everything else refuses such a model, and says that it be calibrated anew.
    """
    given = settings.job.reranker
    files = find_model(settings.model, given.revision, given.token)
    try:
        files.calibration()
    except ModelRefusedError as error:
        say(console, f"it is not used here: {error}", "note: ")
        none = Calibration(1.0, 0.0, files.digest(), instruction=given.instruction)
        return replace(settings.job, reranker=replace(given, calibration=none))
    return settings.job


def fitted_calibration(
    pairs: ScoredPairs,
    resolved: RerankSettings,
    fingerprint: Mapping[str, Any],
    settings: CalibrateSettings,
    console: Console,
) -> Calibration:
    """Scale and bias with all that the file says of them; raises RefusedError where the scale is not above 0."""
    fit = fitted(pairs, resolved.reranker.calibration)
    if not fit.scale > 0:
        raise RefusedError(
            f"the scale that fits best is {fit.scale:.4g}: the model orders these labels backwards, or not at all; "
            "look whether a label above 0 means relevant, and whether --label-column is the right one"
        )
    before, after = fit.errors(pairs.relevant)
    made = Calibration(
        fit.scale,
        fit.bias,
        fingerprint["files"],
        instruction=fingerprint.get("instruction"),
        pairs=len(pairs.relevant),
        relevant=float(pairs.relevant.mean()),
        calibration_error_before=before,
        calibration_error_after=after,
        data=names_of_data(settings.labels),
    )
    print_fit(console, fit, pairs.relevant)
    return made


def output_of(settings: CalibrateSettings) -> str:
    """Where the result goes; raises ConfigError for a model that has no directory to put it in."""
    if settings.output is not None:
        return settings.output
    directory = Path(settings.model).expanduser()
    is_embedded = settings.model in EMBEDDED_DIRECTORIES or directory.resolve() in EMBEDDED_DIRECTORIES.values()
    if is_embedded or not directory.is_dir():
        raise ConfigError(
            f"{settings.model} is no directory of yours to write {CALIBRATION} into; give --output FILE, and that to "
            "other commands as --calibration FILE"
        )
    return str(directory / CALIBRATION)


def check_output(output: str) -> None:
    """Raises RefusedError where something else than a calibration is in the place of the result.

    Raises ConfigError for a directory that may not be written into: that is better known before hours of scoring.
    """
    folder = os.path.dirname(output)
    if os.path.isdir(folder) and not os.access(folder, os.W_OK, effective_ids=True):
        raise ConfigError(
            f"nothing can be written into {folder}; let this user, or give --output FILE in another directory, and "
            "that to other commands as --calibration FILE"
        )
    if storage.is_directory(output):
        raise RefusedError(f"--output {output} is a directory; give the name of a file")
    if storage.exists(output):
        try:
            Calibration.from_json(storage.read(output), output)
        except ModelRefusedError as error:
            raise RefusedError(f"{output} is there, and is no calibration to replace: {error}") from None


def check_kinds(lists: Sequence[LabelledList]) -> None:
    """Raises ConfigError where one half of the queries has pairs of one kind only: before anything is scored."""
    for half in (False, True):
        kinds = {kind for one in lists if one.is_in_second_half is half for kind in one.relevant}
        if len(kinds) < 2:
            raise ConfigError(
                "one half of the queries, which are halved by a hash, has no relevant pair, or only such ones; give "
                "labels of more queries, of both kinds"
            )


def as_table(lists: Sequence[LabelledList]) -> pa.Table:
    """The lists as `crossray label` reads them; the ids are numbers."""
    rows = [
        {
            "query_id": str(number),
            "query": one.query,
            "documents": [{"id": str(place), "text": text} for place, text in enumerate(one.passages)],
        }
        for number, one in enumerate(lists)
    ]
    return pa.Table.from_pylist(rows, schema=LISTS)


def scored(lists: Sequence[LabelledList], scores: Mapping[str, Mapping[str, float]]) -> ScoredPairs:
    """The pairs of all lists that have scores; raises StoppedError where none has."""
    pairs = [
        (scores[str(number)][str(place)], is_relevant, one.is_in_second_half)
        for number, one in enumerate(lists)
        if str(number) in scores
        for place, is_relevant in enumerate(one.relevant)
    ]
    if not pairs:
        raise StoppedError("the model gave no scores")
    logits, relevant, halves = zip(*pairs, strict=True)
    return ScoredPairs(np.asarray(logits, np.float64), np.asarray(relevant, bool), np.asarray(halves, bool))


def names_of_data(labels: str) -> tuple[str, ...]:
    """The names of the files with labels, without their folders; of many the first."""
    files = storage.list_input(storage.absolute(labels, "LABELS"))
    return tuple(os.path.basename(file.path) for file in files)[:DATA_NAMED]


def renew_sum(output: str) -> None:
    """Notes the new file in the SHA256SUMS beside it, where there is such a list."""
    directory, name = os.path.split(output)
    sums = os.path.join(directory, SUMS)
    if name != CALIBRATION or not storage.exists(sums):
        return
    others = [line for line in storage.read(sums).decode().splitlines() if line.partition("  ")[2] != name]
    digest = hashlib.sha256(storage.read(output)).hexdigest()
    lines = sorted([*others, f"{digest}  {name}"], key=lambda line: line.partition("  ")[2])
    storage.write_text(sums, "".join(f"{line}\n" for line in lines))
