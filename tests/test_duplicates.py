"""Near duplicates: the fast search finds what comparing all pairs finds, and what tells two texts apart."""

import random

import pytest

from finlm.duplicates import differ_in_substance, jaccard, near_duplicates, normalised, shingles


def by_all_pairs(texts: list[str], threshold: float, words: int) -> dict[int, int]:
    """The definition, without any index."""
    found: dict[int, int] = {}
    sets = [shingles(text, words=words) for text in texts]
    for later in range(len(texts)):
        for earlier in range(later):
            both = sets[later] | sets[earlier]
            if earlier not in found and len(sets[later] & sets[earlier]) >= threshold * len(both):
                found[later] = earlier
                break
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_search_finds_what_comparing_all_pairs_finds(threshold: float) -> None:
    rng = random.Random(7)
    texts: list[str] = []
    for _ in range(300):
        words = (
            rng.choice(texts).split() if texts and rng.random() < 0.6 else [rng.choice("abcdefgh") for _ in range(12)]
        )
        for _ in range(rng.randrange(3)):
            words[rng.randrange(len(words))] = rng.choice("abcdefgh")
        texts.append(" ".join(words))
    found = near_duplicates(texts, threshold=threshold, words=3)
    assert found == by_all_pairs(texts, threshold, 3)
    assert len(found) > 5


def test_shingles_by_hand() -> None:
    assert shingles("One, two three four", words=3) == {"one two three", "two three four"}
    assert shingles("短", characters=4) == {"短"}
    assert shingles("今年 净利润", characters=4) == {"今年净利", "年净利润"}
    assert jaccard({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3)
    assert normalised("  What\tWAS\n\nthe revenue? ") == "what was the revenue?"


APART = [
    ("What was Acme's revenue in fiscal 2024?", "What was Acme's revenue in fiscal 2023?"),  # a year
    ("Is a yield of 4.2% high for a bond?", "Is a yield of 4.3% high for a bond?"),  # a figure
    ("What did the first quarter bring?", "What did the second quarter bring?"),  # a number word
    ("How did sales change from 2023 to 2024?", "How did sales change from 2024 to 2023?"),  # an order
    ("What does Alder Inc. sell to its customers?", "What does Birch Inc. sell to its customers?"),  # a company
    ("What are the rules in the US for this?", "What are the rules for this?"),  # a name that is also a word
    ("How does net income come about?", "How does net loss come about?"),  # a metric
    ("Why did margins rise last year?", "Why did margins fall last year?"),  # a direction
    ("平安银行2024年的净利润是多少？", "招商银行2024年的净利润是多少？"),
    ("公司上半年的收入是多少？", "公司下半年的收入是多少？"),
    ("公司二〇二三年的收入是多少？", "公司二〇二四年的收入是多少？"),
    ("公司2023年的营业收入为多少？", "公司2023年的营业成本为多少？"),
]
ALIKE = [
    ("What was Acme's revenue in fiscal 2024?", "Please tell me what was Acme's revenue in fiscal 2024?"),
    ("How do I save money on rent?", "how do i save money on the rent?"),
    ("公司2023年的净利润是多少？", "请问公司2023年的净利润为多少？"),
    ("Write a polite reply to this angry customer.", "Write a courteous reply to this angry customer."),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_apart(one: str, other: str) -> None:
    assert differ_in_substance(one, other)
    assert differ_in_substance(other, one)


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_alike(one: str, other: str) -> None:
    assert not differ_in_substance(one, other)
    assert not differ_in_substance(other, one)
