"""Rows as a `datasets.Dataset`, for TRL's trainer."""

from collections.abc import Sequence

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from finlm.records import content_id


def as_dataset(columns: dict[str, Sequence[Sequence[int]]]) -> Dataset:
    """Return a dataset of integer columns, named by its content.

    `Dataset.from_dict` would name it by pickling the whole table, which some pairs of dill and pyarrow cannot do.
    """
    table = pa.table({name: pa.array([list(row) for row in rows]) for name, rows in columns.items()})
    return Dataset(InMemoryTable(table), fingerprint=content_id({name: list(rows) for name, rows in columns.items()}))
