"""What a run with a model would come to, before any of it is paid: calls, tokens, time, cost. Upper bounds: every
question survives its filters, and every reply of the second step is as long as allowed at most by a quarter."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from finlm.language import language_of

CHARACTERS_A_TOKEN = {"en": 4.0, "zh": 1.4}
"""Of common tokenizers; a rough measure."""
TASK_TOKENS = 250
"""Of a prompt beside its passage."""
REPLY_SHARE = 0.25
"""Of `max_tokens`: what replies come to on average."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What a call takes.

    Example:
        Rates(seconds=2.1, parallel=64, prompt_price=0.2, reply_price=0.6)
    """

    seconds: float | None
    """Of a typical call; None where nobody knows."""
    parallel: int
    prompt_price: float
    """Per million tokens, in whatever currency."""
    reply_price: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Calls and tokens of a run.

    Example:
        Estimate(calls=1100, prompt_tokens=930000, reply_tokens=280000)
    """

    calls: int
    prompt_tokens: int
    reply_tokens: int

    def seconds(self, rates: Rates) -> float | None:
        """Return the run's time, if a call's is known."""
        return None if rates.seconds is None else self.calls * rates.seconds / rates.parallel

    def cost(self, rates: Rates) -> float:
        """Return the run's cost."""
        return (self.prompt_tokens * rates.prompt_price + self.reply_tokens * rates.reply_price) / 1e6


def tokens_of(text: str) -> int:
    """Return about how many tokens a text has."""
    return round(len(text) / CHARACTERS_A_TOKEN[language_of(text)])


def estimate(passages: Iterable[str], questions: int, calls_a_question: int, max_tokens: int) -> Estimate:
    """Return the calls and tokens about passages.

    Args:
        passages: Their texts, each looked at once.
        questions: Asked about each.
        calls_a_question: Answers of all models, and what is asked about them.
        max_tokens: Of a reply.
    """
    calls_a_passage = 1 + questions * calls_a_question
    prompts = calls = 0
    for text in passages:
        prompts += (tokens_of(text) + TASK_TOKENS) * calls_a_passage
        calls += calls_a_passage
    return Estimate(calls, prompts, round(calls * max_tokens * REPLY_SHARE))


def table_of(found: Estimate, rates: Rates, passages: int) -> Table:
    """Return the estimate as a table for the terminal."""
    table = Table(title="Self-QA would come to at most", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    seconds = found.seconds(rates)
    rows = {
        "passages": f"{passages:,}",
        "calls": f"{found.calls:,}",
        "tokens of prompts, about": f"{found.prompt_tokens:,}",
        "tokens of replies, about": f"{found.reply_tokens:,}",
        "time": "unknown before the first call; give --seconds_per_call" if seconds is None else _spoken(seconds),
        "cost": f"{found.cost(rates):,.2f}" if rates.prompt_price or rates.reply_price else "give --prompt_price",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _spoken(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
