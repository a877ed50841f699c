"""A list on disk is a list."""

import pytest

from finlm.records import Conversation, Message, Provenance, Removal
from selfqa import spool
from selfqa.spool import Spool


def removal(number: int) -> Removal:
    return Removal(record_id=str(number), rule="营业收入" * (number % 3), reason=f"reason {number}", text="x" * number)


@pytest.mark.parametrize("in_memory", [32_000_000, 100])
def test_it_is_the_list_of_its_records(in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", in_memory)
    records = [removal(number) for number in range(50)]
    spooled: Spool[Removal] = Spool(Removal)
    assert list(spooled) == []
    spooled.append(records[0])
    assert list(spooled) == records[:1]
    spooled += records[1:]
    walk = iter(spooled)
    assert next(walk) == records[0]
    assert spooled[-1] == records[-1]  # looking elsewhere does not move a walk
    assert next(walk) == records[1]
    assert len(spooled) == 50
    assert list(spooled) == list(reversed(list(reversed(spooled)))) == records
    assert spooled[3:40:7] == records[3:40:7]
    assert spooled[-5:] == records[-5:]
    with pytest.raises(IndexError):
        spooled[50]


def test_a_conversation_comes_back_whole() -> None:
    row = Conversation(
        messages=(Message(role="user", content="营业收入？"), Message(role="assistant", content="5万元。")),
        category="finance",
        provenance=Provenance(
            maker="rule:table-row", document_id="9f", start=3, end=9, page=7, section="第二节 > 数据"
        ),
    )
    spooled = Spool(Conversation)
    spooled += [row]
    assert spooled[0] == row
    assert spooled[0].id == row.id
