"""Makes lists of pair rows that have the same group. Which rows come together is decided in `jobs.joins.groups.stage`.

Until then a pair travels as a row with the hash of its group, its place in INPUT, and its document as the struct that
the list will hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.joins.groups.pair_columns import PairColumns
from jobs.joins.keys import column_as_bytes, hashes, mix, shown, without_wrapping
from jobs.table.column_types import is_bytes, is_uuid
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
            "rank": ranks_of(table, columns),
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
    """Bytes (large_binary) as texts, which are not checked to be UTF-8, as shorter bytes, or as integers."""
    return array.cast(data_type) if is_bytes(data_type) else array.view(pa.large_string()).cast(data_type)


def in_one_piece(column: pa.ChunkedArray, data_type: pa.DataType) -> pa.Array:
    """A column as one array of a type."""
    plain = [without_wrapping(chunk) for chunk in column.chunks]
    chunks = [(chunk.storage if is_uuid(chunk.type) else chunk).cast(data_type) for chunk in plain]
    return pa.concat_arrays(chunks) if chunks else pa.nulls(0, data_type)


def ranks_of(table: pa.Table, columns: PairColumns) -> pa.Array:
    """The numbers by which the documents of a list are ordered; nulls where there is no such column."""
    if columns.rank is None:
        return pa.nulls(table.num_rows, columns.rank_type)
    return in_one_piece(table.column(columns.rank), columns.rank_type)


def places_by_rank(ranks: pa.Array) -> np.ndarray:
    """Numbers that are ordered as the ranks are; nulls and NaN come last and are equal."""
    if pa.types.is_floating(ranks.type):
        ranks = ranks.cast(pa.float64())
        ranks = pc.if_else(pc.is_nan(ranks), None, ranks)
    return np.asarray(pc.rank(ranks, "ascending", tiebreaker="dense").to_numpy())


def sizes_of(documents: pa.StructArray, columns: PairColumns) -> np.ndarray:
    """The bytes of each document: those of its text, and an equal share of everything else."""
    position = documents.type.get_field_index(columns.mapping.text_field)
    texts = np.zeros(len(documents), np.int64)
    if position >= 0:
        texts = pc.binary_length(pc.struct_field(documents, [position])).fill_null(0).to_numpy().astype(np.int64)
    return texts + int((documents.nbytes - texts.sum()) / max(1, len(documents)))


def oversize_groups(cells: Callable[[], Iterable[pa.Table]]) -> dict[bytes, Oversize]:
    """The groups of more than GROUP_BYTES, by their key; goes through the cells twice, and holds one at a time.

    A null is a group of one pair, which `grouped` judges by itself.
    """
    hashes_of_many = np.array(sorted(large_hashes(cells())), np.uint64)
    found: dict[bytes, Oversize] = {}
    for cell in cells() if len(hashes_of_many) else ():
        some = cell.filter(pa.array(np.isin(cell.column("hash").to_numpy(), hashes_of_many)))
        codes = column_as_bytes(some.column("group")).dictionary_encode()
        is_key = as_mask(codes.is_valid())
        numbers = codes.indices.fill_null(0).to_numpy()[is_key]
        rows = np.bincount(numbers, minlength=len(codes.dictionary))
        sizes = np.bincount(numbers, some.column("size").to_numpy()[is_key], len(codes.dictionary))
        for key, count, size in zip(codes.dictionary.to_pylist(), rows.tolist(), sizes.tolist(), strict=True):
            before = found.get(key, Oversize(0, 0))
            found[key] = Oversize(before.rows + count, before.bytes + int(size))
    return {key: size for key, size in found.items() if size.bytes > GROUP_BYTES}


def large_hashes(cells: Iterable[pa.Table]) -> set[int]:
    """The hashes whose pairs have more than GROUP_BYTES together, whether they are of one group or of several."""
    found = np.empty(0, np.uint64)
    sizes: np.ndarray = np.empty(0)
    for cell in cells:
        hashed, size = cell.column("hash").to_numpy(), cell.column("size").to_numpy()
        found, at = np.unique(np.concatenate([found, hashed]), return_inverse=True)
        sizes = np.bincount(at, np.concatenate([sizes, size]), len(found))
    return set(found[sizes > GROUP_BYTES].tolist())


def without_oversize(cells: Iterable[pa.Table], oversize: Mapping[bytes, Oversize]) -> list[pa.Table]:
    """The pairs of all groups that are not oversize; of each oversize group its first pair stands for it."""
    keys_left = set(oversize)
    kept = []
    for cell in cells:
        keys = column_as_bytes(cell.column("group"))
        is_kept = ~is_one_of(keys, oversize)
        for row in np.flatnonzero(is_one_of(keys, keys_left)).tolist() if keys_left else ():
            if (key := keys[row].as_py()) in keys_left:
                keys_left.remove(key)
                is_kept[row] = True
        kept.append(cell.filter(pa.array(is_kept)))
    return kept


def is_one_of(keys: pa.Array, some: Iterable[bytes]) -> np.ndarray:
    """For each key whether it is among some others; a null is not."""
    return as_mask(pc.is_in(keys, pa.array(list(some), pa.large_binary()), skip_nulls=True))


def oversize_of_groups(
    pairs: pa.Table, keys: pa.Array, firsts: np.ndarray, oversize: Mapping[bytes, Oversize]
) -> list[Oversize | None]:
    """For each group what it holds if it is oversize, by its key, or, where that is null, by its one pair."""
    sizes = pairs.column("size").to_numpy()[firsts]
    is_null = as_mask(keys.is_null())[firsts]
    found: list[Oversize | None] = [None] * len(firsts)
    for group in np.flatnonzero(is_null & (sizes > GROUP_BYTES)).tolist():
        found[group] = Oversize(1, int(sizes[group]))
    for group in np.flatnonzero(is_one_of(keys.take(pa.array(firsts)), oversize)).tolist():
        found[group] = oversize[keys[int(firsts[group])].as_py()]
    return found


def grouped(
    pairs: pa.Table, columns: PairColumns, paths: Sequence[str], oversize: Mapping[bytes, Oversize]
) -> pa.Table:
    """A row for each group, in the order of their first pairs; `pairs` are in (file, row) order.

    A group that cannot be a list has the reason in PROBLEM, and keeps its documents, unless they are too many.
    """
    pairs = pairs.combine_chunks()
    keys = column_as_bytes(pairs.column("group"))
    codes, firsts = numbered_groups(keys)
    ranks = places_by_rank(pairs.column("rank").combine_chunks())
    order = np.lexsort((np.arange(len(codes)), ranks, codes))
    sizes = oversize_of_groups(pairs, keys, firsts, oversize)
    problems = problems_of(pairs, keys, codes, firsts, columns, paths, sizes)
    is_whole = np.array([size is None for size in sizes], bool)
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
    oversize: Sequence[Oversize | None],
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
    for group, size in enumerate(oversize):
        if size is not None:
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
