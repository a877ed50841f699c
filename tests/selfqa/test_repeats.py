"""MinHash only proposes: what is dropped is what exact similarity drops."""

import random

from finlm.duplicates import near_duplicates
from selfqa.repeats import Signatures


def texts(number: int) -> list[str]:
    """Random passages in both languages; every third repeats an earlier one with some words changed."""
    draw = random.Random(7)
    words = [f"word{number}" for number in range(400)]
    hans = [chr(0x4E00 + number) for number in range(500)]
    made: list[str] = []
    for at in range(number):
        if at % 3 == 2:
            source = draw.choice(made)
            parts = source.split(" ") if " " in source else list(source)
            for _ in range(draw.choice([0, 1, 2, 6, 20])):
                parts[draw.randrange(len(parts))] = draw.choice(words) if " " in source else draw.choice(hans)
            made.append((" " if " " in source else "").join(parts))
        elif at % 3 == 1:
            made.append("".join(draw.choice(hans) for _ in range(300)))
        else:
            made.append(" ".join(draw.choice(words) for _ in range(150)))
    return made


def test_it_finds_what_exact_comparison_finds() -> None:
    made = texts(900)
    signatures = Signatures()
    for start in range(0, len(made), 50):
        signatures.add(made[start : start + 50])
    signatures.add([])
    found, exact = signatures.repeats(made.__getitem__), near_duplicates(made)
    assert len(exact) > 150
    assert set(found) <= set(exact)
    assert len(found) >= 0.98 * len(exact)
    assert all(earlier < later and earlier not in found for later, earlier in found.items())


def test_nothing_repeats_nothing() -> None:
    assert Signatures().repeats(str) == {}
