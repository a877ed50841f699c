"""What people's blind verdicts on two models come to: good / same / bad for the first, by several judges a prompt.

A prompt counts once, however many judged it: its judges read the same two answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean
from typing import Literal

from finlm.intervals import Interval, bootstrap

Verdict = Literal[-1, 0, 1]
"""1: the first model's answer is better, 0: they are the same, -1: the second's is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Verdicts on some prompts.

    Example:
        Tally(good=41, same=22, bad=17, preference=Interval(mean=0.28, low=0.1, high=0.45), p_value=0.002)
    """

    good: int
    """Prompts on which most judges prefer the first model."""
    same: int
    """Those on which most find no difference, or no verdict has most judges."""
    bad: int
    preference: Interval
    """Mean verdict, -1 to 1, of a prompt's judges on average; the interval draws prompts."""
    p_value: float
    """Of the sign test on good against bad."""

    @property
    def prompts(self) -> int:
        """Prompts that were judged."""
        return self.good + self.same + self.bad


def majority(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of more judges than any other has; 0 where there is none such."""
    counts = sorted(((verdicts.count(one), one) for one in set(verdicts)), reverse=True)
    return counts[0][1] if len(counts) == 1 or counts[0][0] > counts[1][0] else 0


def sign_test(wins: int, losses: int) -> float:
    """Return the chance of a split at least as uneven if both models were as good: two-sided, exact, ties left out.

    Dixon and Mood 1946, "The statistical sign test": 2 x the binomial tail at the larger count, 1 at most.
    """
    count = wins + losses
    tail = sum(comb(count, k) for k in range(max(wins, losses), count + 1))
    splits: int = 2**count
    return min(1.0, 2 * tail / splits)


def tally(verdicts: Mapping[str, Sequence[Verdict]], *, seed: int) -> Tally:
    """Return what verdicts come to.

    Args:
        verdicts: Of each prompt, one a judge.
        seed: Of the interval's draws.

    Raises:
        ValueError: There is no verdict.
    """
    agreed = [majority(its) for its in verdicts.values()]
    good, bad = agreed.count(1), agreed.count(-1)
    return Tally(
        good=good,
        same=agreed.count(0),
        bad=bad,
        preference=bootstrap([fmean(its) for its in verdicts.values()], seed=seed),
        p_value=sign_test(good, bad),
    )
