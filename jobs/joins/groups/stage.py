"""`--group-by`: the stage before scoring, in which pair rows of any order become files of lists, below OUTPUT.

    _grouped/ID/plan.json   the pieces of INPUT, the number of buckets, the lists' columns: written first, and binding
    _grouped/ID/pairs/      per piece a file with a cell for each bucket (`jobs.joins.cells`); until lists are there
    _grouped/ID/lists.json  which list files there are to be: written when all pieces are cut
    _grouped/ID/lists/      the input of the job proper

ID is drawn when a job begins and stands in its manifest. So what another job left there, or what a worker of another
job writes late, is never taken for this job's.

Each file is whole or not there and says the same whoever writes it, so the stage goes on where it was stopped.
"""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace

import pyarrow as pa
from rich.console import Console

from jobs import storage
from jobs.input.conditions import check_condition_columns
from jobs.input.selection import Selection
from jobs.input.survey import Survey, survey
from jobs.joins.cells import CellSize, cell_sizes
from jobs.joins.groups.pair_columns import PairColumns, pair_columns
from jobs.joins.groups.steps import BUCKET_BYTES, CuttingStage, Grouping, GroupingStage, ListFile
from jobs.records import InputFile, Unit
from jobs.runtime.stages import run_stage
from jobs.runtime.threads import in_threads
from jobs.screen import say_cut_timestamps
from jobs.settings import RerankSettings
from jobs.table.columns import Layout, check_dropped_columns, check_output_names, check_reserved_names
from jobs.table.faults import why_unusable
from pipelines.errors import ConfigError

PIECE_BYTES = 32 << 20
"""Decoded: what is read and cut into cells at once."""
MAX_BUCKETS = 1024
"""Cells of a file; more bytes than these buckets should hold are grouped bucket by bucket in shares."""


# What is asked for.


def check_groupable(found: Survey, settings: RerankSettings) -> None:
    """Raises ConfigError when INPUT is not made of pair rows that can be grouped."""
    for file, error in found.errors.items():
        raise ConfigError(f"{file.path} cannot be read ({error}), and groups would lack its pairs; repair or remove it")
    schemas = [plan.schema for plan in found.plans.values()]
    for schema in schemas:
        check_reserved_names(schema)
    for file, plan in found.plans.items():
        unusable = why_unusable(plan.schema, settings.mapping, Layout.PAIRS)
        if unusable:
            raise ConfigError(f"--group-by takes pair rows, and {file.path} has none: {unusable}")
    lists = columns_of(found, settings).lists
    check_dropped_columns([*schemas, lists], settings.mapping)
    check_condition_columns(settings.where, schemas)
    check_output_names(lists, settings.mapping, Layout.LISTS)


def columns_of(found: Survey, settings: RerankSettings) -> PairColumns:
    """The columns that the lists will have."""
    assert settings.group_by is not None
    schemas = {file.path: plan.schema for file, plan in found.plans.items()}
    return pair_columns(schemas, settings.group_by, settings.mapping)


# The stage.


def group_input(
    settings: RerankSettings, files: Sequence[InputFile], selection: Selection, directory: str, console: Console
) -> str:
    """Brings all pairs into list files; returns their directory. Needs a Ray session.

    Raises StoppedError when a piece cannot be read or a file not be written; the same call goes on.
    """
    for name in ("pairs", "lists"):
        storage.make_directory(os.path.join(directory, name))
        storage.remove_temporaries(os.path.join(directory, name))
    grouping = planned_grouping(settings, files, selection, directory, console)
    lists = missing = planned_lists(directory)
    if lists is not None:
        missing = missing_lists(grouping, lists)
    if missing is None or missing:
        cut_pieces(grouping, console)
    if lists is None or missing is None:
        lists = plan_lists(grouping, console)
        missing = missing_lists(grouping, lists)
    run_stage(GroupingStage, grouping, [asdict(file) for file in missing])
    storage.remove_below(os.path.join(directory, "pairs"))
    return os.path.join(directory, "lists")


def planned_grouping(
    settings: RerankSettings, files: Sequence[InputFile], selection: Selection, directory: str, console: Console
) -> Grouping:
    """The plan of an earlier run, or a new one, which depends on the input alone."""
    path = os.path.join(directory, "plan.json")
    if not storage.exists(path):
        found = survey(files, replace(selection, shard=None))
        columns = columns_of(found, settings)
        planned_files = found.planned(files, PIECE_BYTES)
        say_cut_timestamps(console, planned_files)
        pieces = [unit for file in planned_files for unit in file.units()]
        plan = {
            "pieces": [asdict(piece) for piece in pieces],
            "buckets": min(max(1, -(-int(found.total_bytes) // BUCKET_BYTES)), MAX_BUCKETS),
            "rank": columns.rank,
            "lists": base64.b64encode(columns.lists.serialize().to_pybytes()).decode(),
        }
        storage.write_json(path, plan)
    plan = storage.read_json(path)
    assert settings.group_by is not None
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(plan["lists"])))
    columns = PairColumns(settings.group_by.column, plan["rank"], settings.mapping, schema)
    pieces = [Unit(**piece) for piece in plan["pieces"]]
    return Grouping(directory, tuple(pieces), plan["buckets"], columns, selection)


def cut_pieces(grouping: Grouping, console: Console) -> None:
    """Brings every piece into cells."""
    there = set(storage.names(os.path.join(grouping.directory, "pairs")))
    todo = [piece for piece in grouping.pieces if piece.name not in there]
    console.print(f"grouping: {len(grouping.pieces):,} piece(s) of INPUT, {len(todo):,} to be read")
    run_stage(CuttingStage, grouping, [asdict(piece) for piece in todo])


def planned_lists(directory: str) -> list[ListFile] | None:
    """Which list files there are to be; None before all pieces are cut."""
    path = os.path.join(directory, "lists.json")
    return [ListFile(**file) for file in storage.read_json(path)["lists"]] if storage.exists(path) else None


def plan_lists(grouping: Grouping, console: Console) -> list[ListFile]:
    """Decides which list files there are to be, by the sizes of the cells, and writes that down."""
    sizes = in_threads(lambda piece: cell_sizes(grouping.cells(piece)), grouping.pieces)
    lists = shares_of_buckets(sizes)
    pairs = sum(size.rows for cells in sizes for size in cells.values())
    storage.write_json(
        os.path.join(grouping.directory, "lists.json"), {"pairs": pairs, "lists": [asdict(file) for file in lists]}
    )
    console.print(f"grouping: {pairs:,} pairs into {len(lists):,} file(s) of lists")
    return lists


def missing_lists(grouping: Grouping, lists: Sequence[ListFile]) -> list[ListFile]:
    """The list files that are not there yet."""
    there = set(storage.names(os.path.join(grouping.directory, "lists")))
    return [file for file in lists if file.name not in there]


def shares_of_buckets(sizes: Sequence[dict[int, CellSize]]) -> list[ListFile]:
    """The list files of all buckets: for each bucket as many as it takes to group one in memory."""
    totals: dict[int, int] = defaultdict(int)
    for cells in sizes:
        for bucket, size in cells.items():
            totals[bucket] += size.bytes
    lists = [
        ListFile(bucket, share, shares, total)
        for bucket, total in sorted(totals.items())
        for shares in [max(1, round(total / BUCKET_BYTES))]
        for share in range(shares)
    ]
    return lists or [ListFile(0, 0, 1, 0)]  # a job without pairs has a list file, too
