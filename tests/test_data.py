"""What is held out in every stage, what is asked, and that nothing is lost in silence."""

from pathlib import Path

from finlm import data, jsonl
from finlm.records import Conversation, Message, Prompt


def talk(*contents: str, group: str = "") -> Conversation:
    turns = tuple(Message(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(contents))
    return Conversation(messages=turns, group=group, language="en", kind="figure", form="closed-book")


def test_a_group_is_held_out_or_not_in_every_stage() -> None:
    talks = [talk(f"Question {n}?", "Answer.", group=f"Company {n // 5}") for n in range(1000)]
    held = {one.group for one in talks if data.is_held_out(one, test_share=0.2)}
    for one in talks:
        prompt = data.as_prompt(one, source="selfqa")
        assert data.is_held_out(one, test_share=0.2) == (one.group in held)
        assert data.is_held_out(prompt, test_share=0.2) == (one.group in held)
    # 200 groups, share 0.2: 40 expected, standard deviation 5.7
    assert 40 - 23 <= len(held) <= 40 + 23
    assert not any(data.is_held_out(one, test_share=0.0) for one in talks)
    assert all(data.is_held_out(one, test_share=1.0) for one in talks)
    wider = {one.group for one in talks if data.is_held_out(one, test_share=0.4)}
    assert held < wider


def test_records_without_a_group_stand_for_themselves() -> None:
    alone = [talk(f"Question {n}?", "Answer.") for n in range(400)]
    held = sum(data.is_held_out(one, test_share=0.25) for one in alone)
    assert 100 - 35 <= held <= 100 + 35  # four standard deviations of 8.7


def test_a_draw_is_spread_over_groups() -> None:
    talks = [
        talk(f"Question {n}?", "A", group=name) for name, size in (("a", 90), ("b", 8), ("c", 2)) for n in range(size)
    ]
    talks = [talk(f"{one.group} {one.messages[0].content}", "A", group=one.group) for one in talks]
    drawn = data.spread(talks, 12, seed=0)
    counts = {name: sum(one.group == name for one in drawn) for name in "abc"}
    assert counts == {"a": 5, "b": 5, "c": 2}
    assert len({one.id for one in drawn}) == 12
    assert data.spread(talks, 12, seed=0) == drawn != data.spread(talks, 12, seed=1)
    assert sorted(one.id for one in data.spread(talks, 0, seed=0)) == sorted(one.id for one in talks)
    assert len(data.spread(talks, 1000, seed=0)) == 100
    rest = data.beyond(talks, drawn, rule="beyond-limit", reason="the limit is 12")
    assert len(rest) + len(drawn) == len(talks)


def test_questions_are_chosen_by_form_language_and_kind_and_equal_ones_are_read_once(tmp_path: Path) -> None:
    one, two = talk("Q?", "A.", group="g"), talk("Q2?", "A2.")
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    jsonl.write(first, [one, two])
    jsonl.write(second, [two])
    asked = data.questions([first, second], forms=["closed-book"], languages=["en"], kinds=[])
    assert [(p.messages[-1].content, p.reference, p.group) for p in asked] == [("Q?", "A.", "g"), ("Q2?", "A2.", "")]
    assert all(isinstance(prompt, Prompt) for prompt in asked)
    for other in ({"forms": ["open-book"]}, {"languages": ["zh"]}, {"kinds": ["change"]}):
        chosen = {"forms": ["closed-book"], "languages": ["en"], "kinds": ["figure"], **other}
        assert data.questions([first, second], **chosen) == []
