"""Records as columns: a parquet file whose schema is the record's own, written a group of rows at a time."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1000
"""Rows of a group: so many records are in memory at a time."""


def write_parquet(path: Path, records: Iterable[Any], kind: type, rows: int = ROWS) -> None:
    """Write records of one class; the file appears only when it is whole.

    The schema comes from the class and not from the rows, so that a column without values has its type as well, and
    every group of rows the same one.

    Args:
        path: The file.
        records: Taken one after the other, each once.
        kind: Their class.
        rows: Most records of a group of rows.
    """
    # only who wants parquet waits for it
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([_field(field) for field in _fields(inspect.type_info(kind))])
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    left = iter(records)
    try:
        with pq.ParquetWriter(aside, schema) as out:
            while group := list(islice(left, rows)):
                out.write_table(pa.Table.from_pylist([msgspec.to_builtins(row) for row in group], schema))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _field(field: inspect.Field) -> "pa.Field":
    import pyarrow as pa

    return pa.field(field.name, _type(field.type))


def _fields(told: inspect.Type) -> tuple[inspect.Field, ...]:
    assert isinstance(told, inspect.DataclassType), told
    return told.fields


def _type(told: inspect.Type) -> "pa.DataType":
    import pyarrow as pa

    match told:
        case inspect.StrType() | inspect.LiteralType():
            return pa.string()
        case inspect.IntType():
            return pa.int64()
        case inspect.DataclassType():
            return pa.struct([_field(field) for field in told.fields])
        case inspect.VarTupleType():
            return pa.list_(_type(told.item_type))
        case inspect.UnionType():
            (one,) = (one for one in told.types if not isinstance(one, inspect.NoneType))
            return _type(one)
        case _:
            raise AssertionError(f"a record's field of {told} has no column yet")
