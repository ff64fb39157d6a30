"""Makes lists of pair rows that have the same group. Which rows come together is decided in `jobs.joins.groups.stage`.

Until then a pair travels as a row with the hash of its group, its place in INPUT, and its document as the struct that
the list will hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.joins.groups.pair_columns import PairColumns
from jobs.joins.keys import column_as_bytes, hashes, mix, shown, without_wrapping
from jobs.table.columns import PROBLEM, Layout
from jobs.table.faults import why_unusable
from jobs.table.reasons import Reason

GROUP_BYTES = 64 << 20
"""Decoded: a group is held whole where it is ranked."""


class Oversize(NamedTuple):
    """What a group holds that is too large for memory."""

    rows: int
    bytes: int


def numbered_pairs(table: pa.Table, file: int, rows: np.ndarray, columns: PairColumns) -> pa.Table:
    """Rows of the input as pairs; `rows` says where in the file they are, and `file` which one it is.

    Raises ValueError when the file lacks columns that it was planned with.
    """
    unusable = why_unusable(table.schema, columns.mapping, Layout.PAIRS)
    if unusable:
        raise ValueError(unusable)
    groups = column_as_bytes(table.column(columns.group))
    documents = documents_of(table, columns)
    return pa.table(
        {
            "hash": group_hashes(groups, file, rows),
            "file": np.full(len(rows), file, np.int32),
            "row": rows.astype(np.int64),
            "size": sizes_of(documents, columns),
            "group": groups,
            "query": column_as_bytes(table.column(columns.mapping.query)),
            "rank": ranks_of(table, columns.rank),
            "document": documents,
        }
    )


def group_hashes(groups: pa.Array, file: int, rows: np.ndarray) -> np.ndarray:
    """A hash of each row's group. A null is a group of its own, so its hash is made of its place."""
    places = mix(rows.astype(np.uint64) ^ mix(np.full(1, file + 1, np.uint64)))
    return np.where(as_mask(groups.is_null()), places, hashes(groups))


def documents_of(table: pa.Table, columns: PairColumns) -> pa.Array:
    """The document of each pair, as an element of a list."""
    arrays = []
    for field in columns.document_type:
        name = columns.sources.get(field.name, field.name)
        if name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, field.type))
        elif field.name in columns.sources:
            arrays.append(as_text(column_as_bytes(table.column(name)), field.type))
        else:
            arrays.append(in_one_piece(table.column(name), field.type))
    return pa.StructArray.from_arrays(arrays, fields=list(columns.document_type))


def as_text(array: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Bytes (large_binary) as texts, which are not checked to be UTF-8, or as integers."""
    return array.view(pa.large_string()).cast(data_type)


def in_one_piece(column: pa.ChunkedArray, data_type: pa.DataType) -> pa.Array:
    """A column as one array of a type."""
    chunks = [without_wrapping(chunk).cast(data_type, safe=False) for chunk in column.chunks]
    return pa.concat_arrays(chunks) if chunks else pa.nulls(0, data_type)


def ranks_of(table: pa.Table, name: str | None) -> pa.Array:
    """The numbers by which the documents of a list are ordered; nulls where there is no such column."""
    return pa.nulls(table.num_rows, pa.float64()) if name is None else in_one_piece(table.column(name), pa.float64())


def sizes_of(documents: pa.StructArray, columns: PairColumns) -> np.ndarray:
    """The bytes of each document: those of its text, and an equal share of everything else."""
    position = documents.type.get_field_index(columns.mapping.text_field)
    texts = np.zeros(len(documents), np.int64)
    if position >= 0:
        texts = pc.binary_length(pc.struct_field(documents, [position])).fill_null(0).to_numpy().astype(np.int64)
    return texts + int((documents.nbytes - texts.sum()) / max(1, len(documents)))


def oversize_groups(cells: Iterable[pa.Table]) -> dict[int, Oversize]:
    """The groups of more than GROUP_BYTES, by their hash; holds one cell at a time."""
    found = np.empty(0, np.uint64)
    rows: np.ndarray = np.empty(0)
    sizes: np.ndarray = np.empty(0)
    for cell in cells:
        hashed, size = cell.column("hash").to_numpy(), cell.column("size").to_numpy()
        found, at = np.unique(np.concatenate([found, hashed]), return_inverse=True)
        rows = np.bincount(at, np.concatenate([rows, np.ones(len(hashed))]))
        sizes = np.bincount(at, np.concatenate([sizes, size]))
    return {int(found[i]): Oversize(int(rows[i]), int(sizes[i])) for i in np.flatnonzero(sizes > GROUP_BYTES).tolist()}


def without_oversize(cells: Iterable[pa.Table], oversize: Mapping[int, Oversize]) -> list[pa.Table]:
    """The pairs of all groups that are not oversize; of each oversize group its first pair stands for it."""
    hashes_left = np.array(sorted(oversize), np.uint64)
    kept = []
    for cell in cells:
        hashed = cell.column("hash").to_numpy()
        first = np.zeros(len(hashed), bool)
        seen, at = np.unique(hashed, return_index=True)
        first[at[np.isin(seen, hashes_left)]] = True
        kept.append(cell.filter(pa.array(first | ~np.isin(hashed, np.array(sorted(oversize), np.uint64)))))
        hashes_left = hashes_left[~np.isin(hashes_left, seen)]
    return kept


def grouped(pairs: pa.Table, columns: PairColumns, paths: Sequence[str], oversize: Mapping[int, Oversize]) -> pa.Table:
    """A row for each group, in the order of their first pairs; `pairs` are in (file, row) order.

    A group that cannot be a list has the reason in PROBLEM, and keeps its documents, unless they are too many.
    """
    pairs = pairs.combine_chunks()
    keys = column_as_bytes(pairs.column("group"))
    codes, firsts = numbered_groups(keys)
    ranks = np.asarray(pairs.column("rank").to_numpy(), np.float64)  # null is NaN, which comes last
    order = np.lexsort((np.arange(len(codes)), ranks, codes))
    problems = problems_of(pairs, keys, codes, firsts, columns, paths, oversize)
    is_whole = ~np.isin(pairs.column("hash").to_numpy()[firsts], np.array(sorted(oversize), np.uint64))
    order = order[is_whole[codes[order]]]
    ends = np.cumsum(np.bincount(codes[order], minlength=len(firsts)))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32(), mask=np.append(~is_whole, False))
    ordered = in_one_piece(pairs.column("document"), columns.document_type).take(pa.array(order))
    mapping = columns.mapping
    arrays = {columns.group: keys, mapping.query: column_as_bytes(pairs.column("query"))}
    firsts_of = pa.array(firsts)
    table = {name: as_text(array.take(firsts_of), columns.lists.field(name).type) for name, array in arrays.items()}
    table[mapping.documents] = pa.ListArray.from_arrays(
        offsets, ordered, type=columns.lists.field(mapping.documents).type
    )
    table[PROBLEM] = pa.array(problems, pa.string())
    return pa.table(table, schema=columns.lists)


def numbered_groups(keys: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(number of each key's group, position of each group's first key).

    Groups are numbered in the order of their first keys, and each null is a group for itself.
    """
    encoded = keys.dictionary_encode()
    codes = encoded.indices.fill_null(0).to_numpy().astype(np.int64)
    is_null = as_mask(keys.is_null())
    codes[is_null] = len(encoded.dictionary) + np.arange(is_null.sum())
    _, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
    by_place = np.argsort(firsts)
    numbers = np.empty(len(by_place), np.int64)
    numbers[by_place] = np.arange(len(by_place))
    return numbers[inverse], firsts[by_place]


def problems_of(
    pairs: pa.Table,
    keys: pa.Array,
    codes: np.ndarray,
    firsts: np.ndarray,
    columns: PairColumns,
    paths: Sequence[str],
    oversize: Mapping[int, Oversize],
) -> list[str | None]:
    """For each group why it cannot be ranked; None where it can."""
    problems: list[str | None] = [None] * len(firsts)

    def place(row: int) -> str:
        return f"row {pairs.column('row')[row]} of {paths[pairs.column('file')[row].as_py()]}"

    for row, other in different_queries(column_as_bytes(pairs.column("query")), codes, firsts):
        problems[codes[row]] = (
            f"{Reason.DIFFERENT_QUERIES}: {columns.group} {shown(keys[row])} has different queries in {place(row)} "
            f"and {place(other)}"
        )
    for group in np.flatnonzero(as_mask(keys.is_null())[firsts]).tolist():
        problems[group] = f"{Reason.NULL_GROUP}: {columns.group} is null in {place(int(firsts[group]))}"
    if oversize:
        hashed = pairs.column("hash").to_numpy()[firsts]
        for group in np.flatnonzero(np.isin(hashed, np.array(sorted(oversize), np.uint64))).tolist():
            size = oversize[int(hashed[group])]
            problems[group] = (
                f"{Reason.GROUP_TOO_LARGE}: {columns.group} {shown(keys[int(firsts[group])])} has {size.rows} pairs of "
                f"{size.bytes} bytes in all, and a group may have {GROUP_BYTES}"
            )
    return problems


def different_queries(queries: pa.Array, codes: np.ndarray, firsts: np.ndarray) -> list[tuple[int, int]]:
    """For each group with several queries its first row, and the first row that has another query."""
    of_first = queries.take(pa.array(firsts[codes]))
    both_null = pc.and_(queries.is_null(), of_first.is_null())
    others = np.flatnonzero(~as_mask(pc.or_(both_null, pc.equal(queries, of_first).fill_null(False))))
    _, at = np.unique(codes[others], return_index=True)
    return [(int(firsts[codes[other]]), int(other)) for other in others[at].tolist()]


def as_mask(array: pa.Array) -> np.ndarray:
    """An Arrow array of booleans as a numpy array."""
    return np.asarray(array.to_numpy(zero_copy_only=False), bool)
