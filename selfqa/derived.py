"""How a model came by a figure that its quotes do not hold: recomputed from two figures that they do."""

from collections.abc import Callable, Iterator
from decimal import Decimal, DivisionByZero, InvalidOperation
from itertools import permutations

from finlm.figure_grammar import Figure, find_figures
from finlm.figures import amounts_in, unsupported
from finlm.records import Derivation, Operation
from selfqa.matching import half_digit

COMPUTED: dict[Operation, Callable[[Decimal, Decimal], Decimal]] = {
    "difference": lambda old, new: abs(new - old),
    "growth": lambda old, new: abs(new - old) / abs(old) * 100,
    "ratio": lambda part, whole: part / whole,
    "sum": lambda old, new: old + new,
}
MOST = 40
"""Amounts of the evidence beyond which nothing is tried: some pair of so many gives any figure."""


def derivation_of(answer: str, evidence: str, question: str) -> Derivation | None:
    """Return how the one figure of an answer that stands nowhere follows from two of its evidence; None if it does not.

    A difference has the operands' unit, growth is in percent, a ratio has no unit or is in percent.
    """
    strange = unsupported(answer, evidence, question)
    figures = [figure for figure in find_figures(answer) if any(number in figure.text for number in strange)]
    if len(strange) != 1 or len(figures) != 1:
        return None
    amounts = amounts_in(evidence)
    if len(amounts) > MOST:
        return None
    found = list(_found(figures[0], amounts))
    return found[0] if found else None


def _found(result: Figure, amounts: list[Figure]) -> Iterator[Derivation]:
    for old, new in permutations(amounts, 2):
        if old.unit != new.unit or old.currency != new.currency:
            continue
        for operation, compute in COMPUTED.items():
            if not _is_in_unit(operation, result, old):
                continue
            try:
                value = compute(old.value, new.value)
            except (DivisionByZero, InvalidOperation):
                continue
            value *= 100 if operation == "ratio" and result.unit == "percent" else 1
            if abs(value - abs(result.value)) <= half_digit(result):
                yield Derivation(operation=operation, operands=(old.text, new.text), result=result.text)


def _is_in_unit(operation: Operation, result: Figure, operand: Figure) -> bool:
    if operation in {"difference", "sum"}:
        return result.unit == operand.unit and result.currency in {operand.currency, ""}
    if operation == "growth":
        return result.unit == "percent" and operand.unit != "percent"
    return not result.currency and (result.unit == "percent") != (operand.unit == "percent")
