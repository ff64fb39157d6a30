"""Decides which columns the lists have that pair rows become, and refuses pair rows that do not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from jobs.table.column_types import is_bytes, is_uuid, may_be_key, plain_type
from jobs.table.columns import PROBLEM, ColumnMapping, GroupBy
from jobs.table.common_types import NoCommonTypeError, common_type
from pipelines.errors import ConfigError

DEFAULT_RANK = "rank"


@dataclass(frozen=True, slots=True)
class PairColumns:
    """The columns of pairs, and of the lists that they become."""

    group: str
    rank: str | None
    mapping: ColumnMapping
    lists: pa.Schema
    """Group, query, `documents` as structs of all other columns, and PROBLEM."""

    @property
    def sources(self) -> dict[str, str]:
        """The column of each field of a document that has another name."""
        return own_fields(self.mapping)

    @property
    def rank_type(self) -> pa.DataType:
        """The type in which ranks are compared."""
        position = -1 if self.rank is None else self.document_type.get_field_index(self.rank)
        return self.document_type.field(position).type if position >= 0 else pa.float64()

    @property
    def document_type(self) -> pa.StructType:
        return self.lists.field(self.mapping.documents).type.value_type


def pair_columns(files: Mapping[str, pa.Schema], group_by: GroupBy, mapping: ColumnMapping) -> PairColumns:
    """The columns of an input whose files have these schemas; raises ConfigError when its pairs cannot be grouped."""
    schemas = list(files.values())
    for schema in schemas:
        check_group_column(schema, group_by.column)
    rank = rank_column(schemas, group_by.rank_column)
    kinds = {plain_type(schema.field(group_by.column).type) for schema in schemas}
    is_integer = len(kinds) == 1 and pa.types.is_integer(next(iter(kinds)))
    fields = [pa.field(group_by.column, next(iter(kinds)) if is_integer else type_of_texts(kinds))]
    if group_by.column != mapping.query:
        queries = (schema.field(mapping.query).type for schema in schemas if mapping.query in schema.names)
        fields.append(pa.field(mapping.query, type_of_texts(queries)))
    documents = pa.list_(pa.struct(document_fields(files, group_by.column, mapping)))
    lists = pa.schema([*fields, pa.field(mapping.documents, documents), pa.field(PROBLEM, pa.string())])
    if len(set(lists.names)) < len(lists.names):
        raise ConfigError(f"--group-by is {group_by.column!r}, the name that the lists have; give --documents-column")
    return PairColumns(group_by.column, rank, mapping, lists)


def type_of_texts(types: Iterable[pa.DataType]) -> pa.DataType:
    """Bytes where a file has bytes, of which nobody knows whether they are UTF-8; else texts."""
    return pa.binary() if any(is_bytes(plain_type(one)) for one in types) else pa.string()


def check_group_column(schema: pa.Schema, name: str) -> None:
    """Raises ConfigError when the column to group by is missing, occurs twice, or holds neither texts nor integers."""
    if schema.names.count(name) != 1:
        problem = "occurs more than once" if name in schema.names else "is missing in a file"
        listed = ", ".join(f"`{one}`" for one in schema.names)
        raise ConfigError(f"--group-by is {name!r}, which {problem}; there are {listed}")
    if not may_be_key(plain_type(schema.field(name).type)):
        raise ConfigError(f"--group-by is {name!r}, which is {schema.field(name).type}; give texts, integers or UUIDs")


def rank_column(schemas: Sequence[pa.Schema], asked: str | None) -> str | None:
    """The column of numbers that orders a list; None where none was asked for and not all files have the default.

    Raises ConfigError when the one that was asked for is not a column of numbers in all files.
    """
    name = DEFAULT_RANK if asked is None else asked
    if all(schema.names.count(name) == 1 and is_number(schema.field(name).type) for schema in schemas):
        return name
    if asked is None:
        return None
    kinds = sorted({str(schema.field(name).type) if name in schema.names else "missing" for schema in schemas})
    raise ConfigError(f"--rank-column is {name!r}, which is {', '.join(kinds)}; it has to be a number in all files")


def is_number(data_type: pa.DataType) -> bool:
    """Whether a type's values are numbers."""
    plain = plain_type(data_type)
    return bool(pa.types.is_integer(plain) or pa.types.is_floating(plain) or pa.types.is_decimal(plain))


def document_fields(files: Mapping[str, pa.Schema], group: str, mapping: ColumnMapping) -> list[pa.Field]:
    """The fields of a list's documents: id, text, and whatever else a pair has.

    Raises ConfigError when columns do not go together, or have one name.
    """
    own = {column: field for field, column in own_fields(mapping).items()}
    needed = mapping.document_id if mapping.by_id else mapping.document
    if needed in mapping.drop:
        raise ConfigError(f"--drop {needed} with --group-by: it becomes part of `{mapping.documents}`; drop that")
    kinds: dict[str, dict[str, pa.DataType]] = {}
    for path, schema in files.items():
        for field in schema:
            if schema.names.count(field.name) > 1 and field.name not in mapping.drop:
                raise ConfigError(
                    f"column `{field.name}` occurs more than once in {path}, and would be one field of "
                    f"`{mapping.documents}`; rename one, or give --drop {field.name}"
                )
            if field.name not in (group, mapping.query, *mapping.drop):
                kinds.setdefault(field.name, {})[path] = stored_type(field.type)
    fields = [pa.field(own[name], type_of_texts(kinds[name].values())) for name in own if name in kinds]
    for name, types in kinds.items():
        if name in own.values() and name not in own:
            raise ConfigError(
                f"column `{name}` would be twice in `{mapping.documents}`; give --drop {name}, or --id-field and "
                "--text-field to name the id and the text otherwise"
            )
        if name not in own:
            try:
                fields.append(pa.field(name, common_type(types)))
            except NoCommonTypeError as error:
                raise ConfigError(
                    f"column `{name}` {error}, and no type holds the values of both; write it with one type, or give "
                    f"--drop {name}"
                ) from None
    return fields


def own_fields(mapping: ColumnMapping) -> dict[str, str]:
    """The pair columns of a document's id and text, by the names of the fields that they become."""
    text = {} if mapping.by_id else {mapping.text_field: mapping.document}
    return {mapping.id_field: mapping.document_id, **text}


def stored_type(data_type: pa.DataType) -> pa.DataType:
    """A plain type whose values can be taken and concatenated."""
    plain = plain_type(data_type)
    if is_uuid(plain):
        return plain.storage_type
    if pa.types.is_string_view(plain) or pa.types.is_large_string(plain):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(plain) or pa.types.is_large_binary(plain) else plain
