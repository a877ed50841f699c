"""Records as parquet: the schema of their class, a group of rows at a time."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finlm.records import Conversation, Derivation, Message, Provenance
from selfqa.columns import write_parquet


class Watched(Conversation):
    """A record that can be watched while it is in memory."""

    __slots__ = ("__weakref__",)


def turns(number: int) -> tuple[Message, ...]:
    return Message(role="user", content=f"What was item {number}?"), Message(
        role="assistant", content=f"It was {number}."
    )


def records(count: int, alive: "weakref.WeakSet[Watched]", most: list[int]) -> Iterator[Watched]:
    """Records that note how many of them are in memory whenever one is asked for."""
    for number in range(count):
        record = Watched(messages=turns(number))
        alive.add(record)
        most[0] = max(most[0], len(alive))
        yield record


@pytest.mark.parametrize("count", [100, 1000])
def test_only_a_group_of_records_is_in_memory(tmp_path: Path, count: int) -> None:
    """Ten times the records take as much as one time: the group, and the one group before it that is let go."""
    alive: weakref.WeakSet[Watched] = weakref.WeakSet()
    most = [0]
    write_parquet(tmp_path / "a.parquet", records(count, alive, most), Conversation, rows=10)
    assert most[0] <= 20
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert file.metadata.num_rows == count
        assert {file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)} == {10}
        told = [messages[1]["content"] for messages in file.read().column("messages").to_pylist()]
    assert told == [f"It was {number}." for number in range(count)]


def test_a_column_has_its_type_whatever_the_rows_hold(tmp_path: Path) -> None:
    """A first group without provenance and derivation says the same types as a second one with them."""
    found = Provenance(maker="rule:table-row", document_id="9f", start=3, end=9, parents=("a", "b"))
    rows = [
        Conversation(messages=turns(1)),
        Conversation(
            messages=turns(2),
            provenance=found,
            also_from=(found,),
            derivation=Derivation(operation="growth", operands=("384.2", "412.6"), result="7.4%"),
        ),
    ]
    write_parquet(tmp_path / "a.parquet", rows, Conversation, rows=1)
    write_parquet(tmp_path / "empty.parquet", [], Conversation)
    table, empty = pq.read_table(tmp_path / "a.parquet"), pq.read_table(tmp_path / "empty.parquet")
    assert table.schema == empty.schema
    assert "null" not in str(empty.schema)
    first, second = table.to_pylist()
    assert (first["provenance"], first["also_from"], first["derivation"]) == (None, [], None)
    assert second["also_from"][0]["parents"] == ["a", "b"]
    assert second["provenance"]["end"] == 9
    assert second["derivation"]["operands"] == ["384.2", "412.6"]


def test_a_fault_leaves_no_file_behind(tmp_path: Path) -> None:
    """Rows that break off are written nowhere, and what stood there before stays."""

    def broken() -> Iterator[Conversation]:
        yield Conversation(messages=turns(1))
        raise OSError("no space left")

    (tmp_path / "a.parquet").write_bytes(b"before")
    with pytest.raises(OSError, match="no space left"):
        write_parquet(tmp_path / "a.parquet", broken(), Conversation, rows=1)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.parquet", b"before")]
