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
        Expression(operands=(Decimal("44.1"), Decimal("56.7")), percents=(False, False), result=Decimal("-12.6"),
                   degree=1)
    """

    operands: tuple[Decimal, ...]
    """Figures of the evidence, unsigned, in order; small whole divisors and factors are none."""
    result: Decimal
    degree: int | None
    """1 for a sum or difference of figures (it has their unit), 0 for a ratio, None for anything else."""
    has_percent: bool


def parse_expression(text: str) -> Expression:
    """Read and compute a listed computation: + - * /, parentheses, figures with separators, signs and `%`.

    Raises:
        UserError: It is no such computation, or it divides by zero.
    """
    plain = narrow(text).replace("−", "-").replace("–", "-").replace("×", "*").replace("÷", "/").replace("[", "(")
    plain = re.sub(r"(?<=[\d.])\s*[xX]\s*(?=[\d.])", "*", plain.replace("]", ")")).split("=")[0]
    has_percent = "%" in plain
    plain = re.sub(r"(?<=[-+])(\s*)\(\s*([$\d,.]+)\s*\)", r"\1(-\2)", plain)  # "3 + (13)", as a table writes -13
    bare = re.sub(r"[$€£¥,%]|million|billion|thousand|[万亿]?元", "", plain).strip()
    try:
        tree = ast.parse(bare, mode="eval").body
        leaves: list[_Leaf] = []
        value, degree = _evaluate(tree, leaves)
    except (SyntaxError, ValueError, DivisionByZero, InvalidOperation, ZeroDivisionError) as error:
        raise UserError(f"{text!r} is no computation of + - * / over figures ({error})") from error
    operands = tuple(leaf.number for leaf in leaves if not leaf.is_constant)
    return Expression(operands, value, degree, has_percent)


@dataclass(frozen=True, slots=True)
class _Leaf:
    number: Decimal
    is_constant: bool


_Value = tuple[Decimal, int | None]


def _evaluate(node: ast.expr, leaves: list[_Leaf], *, may_be_constant: bool = False) -> _Value:
    """Return value and degree; whole numbers up to 100 beside * or / and bare 1 are constants of the computation."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        number = Decimal(str(node.value))
        is_constant = (may_be_constant and number == int(number) and number <= 100) or number == 1
        leaves.append(_Leaf(number, is_constant))
        return number, 0 if is_constant else 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value, degree = _evaluate(node.operand, leaves, may_be_constant=may_be_constant)
        return (-value if isinstance(node.op, ast.USub) else value), degree
    if isinstance(node, ast.BinOp):
        return _binary(node, leaves)
    raise ValueError(f"{type(node).__name__} is not allowed")


def _binary(node: ast.BinOp, leaves: list[_Leaf]) -> _Value:
    is_scaling = isinstance(node.op, ast.Mult | ast.Div)
    left, degree = _evaluate(node.left, leaves, may_be_constant=is_scaling and isinstance(node.op, ast.Mult))
    right, other = _evaluate(node.right, leaves, may_be_constant=is_scaling)
    joint = None if degree is None or other is None else degree
    if isinstance(node.op, ast.Add | ast.Sub):
        value = left + right if isinstance(node.op, ast.Add) else left - right
        return value, degree if degree == other else None
    if isinstance(node.op, ast.Mult):
        return left * right, None if joint is None or other is None else joint + other
    if isinstance(node.op, ast.Div):
        return left / right, None if joint is None or other is None else joint - other
    raise ValueError(f"{type(node.op).__name__} is not allowed")


def texts_of(operation: str, operands: Sequence[str]) -> str:
    """Write a listed operation as the computation that it stands for: growth of a to b is (b - a) / a."""
    numbers = ["".join(re.findall(r"[\d.]", narrow(operand))) for operand in operands]
    if operation == "sum":
        return " + ".join(numbers)
    first, second = numbers[0], numbers[1]
    return {
        "difference": f"{second} - {first}",
        "growth": f"({second} - {first}) / {first}",
        "ratio": f"{first} / {second}",
    }[operation]
