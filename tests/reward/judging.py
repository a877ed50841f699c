"""Judged pairs for tests, from few words."""

from finlm.records import Message, PreferencePair, Prompt, Provenance, Vote
from reward.judged import Judged


def votes(sides: str, strength: int = 1) -> tuple[Vote, ...]:
    """`++-0`: two annotators for the better answer, one for the other, one for neither; a, b, c … by their place."""
    return tuple(
        Vote(
            annotator=f"person:{chr(97 + place)}",
            annotation_id=f"{place}",
            side="rejected" if side == "-" else "chosen",
            strength=0 if side == "0" else strength,
        )
        for place, side in enumerate(sides)
    )


def judged(
    name: str,
    lead: float,
    *,
    prompt: str = "",
    source: str = "s",
    strength: int = 1,
    tokens: tuple[int, int] = (10, 10),
    sides: str = "",
    worse: float = 0.0,
    category: str = "general",
    language: str = "en",
) -> Judged:
    return Judged(
        pair_id=name,
        prompt_id=prompt or f"prompt of {name}",
        group="",
        category=category,
        language=language,
        source=source,
        strength=strength,
        votes=votes(sides),
        better_tokens=tokens[0],
        worse_tokens=tokens[1],
        better=worse + lead,
        worse=worse,
    )


def pair(
    chosen: str, rejected: str, *, language: str = "en", question: str = "Why?", strength: int = 1
) -> PreferencePair:
    return PreferencePair(
        prompt=Prompt(messages=(Message(role="user", content=question),), language=language, group="g"),
        chosen=chosen,
        rejected=rejected,
        strength=strength,
        source="s",
        provenance=Provenance(maker="person:a"),
    )
