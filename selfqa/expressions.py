"""Arithmetic that an answer lists, recomputed by code: "(1,452.4 - 1,146.2) / 1,146.2"."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, DivisionByZero, InvalidOperation

from finlm.errors import UserError
from finlm.figures import narrow


@dataclass(frozen=True, slots=True)
class Expression:
    """A listed computation.

    Example:
        Expression(operands=(Decimal("44.1"), Decimal("56.7")), result=Decimal("-12.6"),
                   degree=1, has_percent=False, is_difference=True, zeros=0)
    """

    operands: tuple[Decimal, ...]
    """Figures of the evidence, unsigned, in order; small whole divisors and factors are none."""
    result: Decimal
    degree: int | None
    """1 for a sum or difference of figures (it has their unit), 0 for a ratio, None for anything else."""
    has_percent: bool
    is_difference: bool
    """It takes figures from each other."""
    zeros: int
    """Bare zeros: what a table shows as a dash."""


def parse_expression(text: str, figures: frozenset[Decimal] = frozenset()) -> Expression:
    """Read and compute a listed computation: + - * /, parentheses, figures with separators, signs and `%`.

    Args:
        text: The computation; what follows a "=" is left out.
        figures: Numbers that are figures here even where they could be a constant, as 82 in "(95 - 82) / 82".

    Raises:
        UserError: It is no such computation, or it divides by zero.
    """
    plain = narrow(text).replace("−", "-").replace("–", "-").replace("×", "*").replace("÷", "/").replace("[", "(")
    plain = re.sub(r"(?<=[\d.])\s*[xX]\s*(?=[\d.])", "*", plain.replace("]", ")")).split("=")[0]
    has_percent = "%" in plain
    plain = re.sub(r"(?<=[-+])(\s*)\(\s*([$\d,.]+)\s*\)", r"\1(-\2)", plain)  # "3 + (13)", as a table writes -13
    plain = re.sub(r"\d{1,3}(?:,\d{3})+(?![,.]?\d)", lambda found: found[0] + ".0", plain)  # "1,975" is no year
    bare = re.sub(r"[$€£¥,%]|million|billion|thousand|[万亿]?元", "", plain).strip()
    try:
        tree = ast.parse(bare, mode="eval").body
        leaves: list[_Leaf] = []
        value, degree = _evaluate(tree, leaves, figures)
    except (SyntaxError, ValueError, DivisionByZero, InvalidOperation, ZeroDivisionError) as error:
        raise UserError(f"{text!r} is no computation of + - * / over figures ({error})") from error
    operands = tuple(leaf.number for leaf in leaves if not leaf.is_constant)
    return Expression(
        operands, value, degree, has_percent, "-" in bare.lstrip("-"), sum(not leaf.number for leaf in leaves)
    )


@dataclass(frozen=True, slots=True)
class _Leaf:
    number: Decimal
    is_constant: bool


_Value = tuple[Decimal, int | None]


def _evaluate(node: ast.expr, leaves: list[_Leaf], figures: frozenset[Decimal], *, is_factor: bool = False) -> _Value:
    """Return value and degree; a whole number up to 100 beside * or /, a 0, a 1 and a year are constants."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        number = Decimal(str(node.value))
        may_be = number <= 1 or 1900 <= number <= 2099 or (is_factor and number <= 100)
        is_constant = isinstance(node.value, int) and may_be and number not in figures
        leaves.append(_Leaf(number, is_constant))
        return number, 0 if is_constant else 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value, degree = _evaluate(node.operand, leaves, figures, is_factor=is_factor)
        return (-value if isinstance(node.op, ast.USub) else value), degree
    if isinstance(node, ast.BinOp):
        return _binary(node, leaves, figures)
    raise ValueError(f"{type(node).__name__} is not allowed")


def _binary(node: ast.BinOp, leaves: list[_Leaf], figures: frozenset[Decimal]) -> _Value:
    left, degree = _evaluate(node.left, leaves, figures, is_factor=isinstance(node.op, ast.Mult))
    right, other = _evaluate(node.right, leaves, figures, is_factor=isinstance(node.op, ast.Mult | ast.Div))
    if isinstance(node.op, ast.Add | ast.Sub):
        value = left + right if isinstance(node.op, ast.Add) else left - right
        is_zero = (degree == 0 and not left) or (other == 0 and not right)
        return value, max(degree or 0, other or 0) if is_zero else degree if degree == other else None
    known = degree is not None and other is not None
    if isinstance(node.op, ast.Mult):
        return left * right, (degree or 0) + (other or 0) if known else None
    if isinstance(node.op, ast.Div):
        return left / right, (degree or 0) - (other or 0) if known else None
    raise ValueError(f"{type(node.op).__name__} is not allowed")


def texts_of(operation: str, operands: Sequence[str]) -> str:
    """Write a listed operation as the computation that it stands for: growth of a to b is (b - a) / a.

    Operands of unlike scales ("$412.6 million" and "$1.2 billion") give no computation: an empty string.
    """
    if len({re.sub(r"[\d.,\s]", "", narrow(operand)) for operand in operands}) > 1:
        return ""
    numbers = ["".join(re.findall(r"[\d.,]", narrow(operand))) for operand in operands]
    if operation == "sum":
        return " + ".join(numbers)
    first, second = numbers[0], numbers[1]
    return {
        "difference": f"{second} - {first}",
        "growth": f"({second} - {first}) / {first}",
        "ratio": f"{first} / {second}",
    }[operation]
