"""Tables as Arrow streams: bytes that keep every type, and text that is not valid UTF-8."""

from __future__ import annotations

import pyarrow as pa


def to_stream(table: pa.Table) -> pa.Buffer:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def from_stream(content: pa.Buffer) -> pa.Table:
    """The inverse of `to_stream`, without copying."""
    return pa.ipc.open_stream(content).read_all()
