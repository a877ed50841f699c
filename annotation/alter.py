"""Wrong copies of right answers: one figure, period or entity changed, run on, or cut off.

Each returns None where the answer offers nothing to change. Whether a copy is really wrong is for the figure checker.
"""

import random
import re

from finlm.figures import Figure, find_figures

YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")


def _amounts(text: str) -> list[Figure]:
    return [figure for figure in find_figures(text) if not figure.is_date and not figure.is_label]


def other_figure(answer: str, passage: str, rng: random.Random) -> str | None:
    """Put another figure of the same unit in place of one: the passage's if it has one, else one digit changed."""
    mine = _amounts(answer)
    if not mine:
        return None
    figure = rng.choice(mine)
    others = [
        other.text
        for other in _amounts(passage)
        if other.unit == figure.unit and abs(other.value) != abs(figure.value) and len(other.text) >= 3
    ]
    digits = re.search(r"\d[\d,.]*\d|\d", figure.text)
    if digits is None:
        return None
    number = re.search(r"\d[\d,.]*\d|\d", rng.choice(others)) if others and rng.random() < 0.7 else None
    wrong = number.group() if number else _misread(digits.group(), rng)
    changed = figure.text[: digits.start()] + wrong + figure.text[digits.end() :]
    return answer[: figure.start] + changed + answer[figure.end :]


def neighbour(answer: str, passage: str, rng: random.Random) -> str | None:
    """Put the figure beside the right one in its place: in a row or a sentence that is another period's, as a rule.

    It is the mistake of a reader who takes the wrong column, and the hardest to tell: every word and every figure of
    such an answer stands in the passage.
    """
    mine = _amounts(answer)
    places = [
        (figure, abs(other.start - here.start), other.text)
        for line in passage.splitlines()
        for row in [_amounts(line)]
        for figure in mine
        for here in row
        if (here.value, here.unit) == (figure.value, figure.unit)
        for other in row
        if other.unit == here.unit and other.value != here.value
    ]
    if not places:
        return None
    nearest = min(distance for _, distance, _ in places)
    figure, _, wrong = rng.choice([place for place in places if place[1] == nearest])
    return answer[: figure.start] + wrong + answer[figure.end :]


def _misread(number: str, rng: random.Random) -> str:
    """Change one digit, as a careless reader would."""
    places = [place for place, char in enumerate(number) if char.isdigit()]
    place = rng.choice(places)
    digit = rng.choice([d for d in "123456789" if d != number[place]])
    return number[:place] + digit + number[place + 1 :]


def other_period(answer: str, passage: str, rng: random.Random) -> str | None:
    """Put another year in place of the answer's: one that the passage has, else a neighbour."""
    years = YEAR.findall(answer)
    if not years:
        return None
    year = rng.choice(years)
    others = sorted({found for found in YEAR.findall(passage) if found != year})
    wrong = rng.choice(others) if others else str(int(year) + rng.choice((-1, 1)))
    return answer.replace(year, wrong)


def other_entity(answer: str, entity: str, entities: list[str], rng: random.Random) -> str | None:
    """Put another company's name in place of the answer's."""
    others = [name for name in entities if name != entity]
    if not entity or entity not in answer or not others:
        return None
    return answer.replace(entity, rng.choice(others))


def run_on(answer: str, passage: str, rng: random.Random) -> str | None:
    """Let the answer go on with something that was not asked: a line of the passage, or itself again."""
    lines = [line.strip() for line in passage.splitlines() if len(line.strip()) > 20]
    more = rng.choice(lines) if lines and rng.random() < 0.7 else answer
    return f"{answer} {more[:160]}"


def stub(answer: str, rng: random.Random) -> str | None:
    """End the answer before it says anything: its first words, closed as if they were all."""
    pieces = answer.split(" ") if " " in answer else list(answer)
    if len(pieces) < 6:
        return None
    joint = " " if " " in answer else ""
    return joint.join(pieces[: rng.randint(1, len(pieces) // 2)]).rstrip(",.") + ("." if joint else "。")


def cut_off(answer: str, rng: random.Random) -> str | None:
    """Break the answer off in its second half; it then carries no end token."""
    pieces = answer.split(" ") if " " in answer else list(answer)
    if len(pieces) < 6:
        return None
    kept = rng.randint(len(pieces) // 2, len(pieces) - 2)
    return (" " if " " in answer else "").join(pieces[:kept])
