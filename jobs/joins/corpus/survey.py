"""Looks at the files of a corpus: whether they can be used, how large it is, and how it is cut into segments."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from jobs.errors import UnreadableFileError
from jobs.input.corpus import Corpus, CorpusPlan
from jobs.input.cutting import SAMPLE_ROWS, FilePlan, cut
from jobs.input.sampling import bytes_per_row
from jobs.records import Unit
from jobs.runtime.threads import in_threads
from jobs.storage import list_input, read_parquet
from jobs.table.column_types import may_be_id, may_be_text, plain_type
from jobs.table.faults import ID_RULE
from pipelines.errors import ConfigError

SEGMENT_BYTES = 64 << 20
"""Decoded: what is read and hashed at once."""


def surveyed(corpus: Corpus) -> Corpus:
    """The corpus with its plan; raises ConfigError when it is not there, or a file cannot be used."""
    files = list_input(corpus.path, "--corpus")
    for file in files:
        if file.fault is not None:
            raise ConfigError(f"--corpus: {file.path} cannot be read: {file.fault}")
    plans = in_threads(lambda file: plan_file(corpus, file.path), files)
    segments = tuple(
        Unit(file.path, start, rows)
        for file, plan in zip(files, plans, strict=True)
        for start, rows in cut(plan, SEGMENT_BYTES)
    )
    rows, size = sum(plan.rows for plan in plans), sum(plan.rows * plan.bytes_per_row for plan in plans)
    return replace(corpus, plan=CorpusPlan(tuple(files), segments, rows, size, tuple(files.left_out)))


def plan_file(corpus: Corpus, path: str) -> FilePlan:
    """The plan of one file by its ids and texts alone; raises ConfigError when it cannot be used."""
    columns = [corpus.id_column, corpus.text_column]
    try:
        metadata, schema = read_parquet(path, lambda file: (file.metadata, file.schema_arrow))
        check_columns(corpus, path, schema)
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        kept = list(range(len(groups)))
        size = bytes_per_row(path, metadata, SAMPLE_ROWS, kept, columns)
    except UnreadableFileError as error:
        raise ConfigError(f"--corpus: {error}") from None
    return FilePlan(metadata.num_rows, groups, size, schema)


def check_columns(corpus: Corpus, path: str, schema: pa.Schema) -> None:
    """Raises ConfigError when the ids or texts of a file are not there or of no use."""
    for name, flag, rule, fits in (
        (corpus.id_column, "--corpus-id", ID_RULE, may_be_id),
        (corpus.text_column, "--corpus-text", "text", may_be_text),
    ):
        if schema.names.count(name) != 1:
            problem = "more than one column" if name in schema.names else "no column"
            listed = ", ".join(f"`{one}`" for one in schema.names)
            raise ConfigError(f"--corpus: {path} has {problem} `{name}`; there are {listed}; name another with {flag}")
        if not fits(plain_type(schema.field(name).type)):
            kind = schema.field(name).type
            raise ConfigError(
                f"--corpus: `{name}` of {path} is {kind}, but it has to be {rule}; name another with {flag}"
            )
