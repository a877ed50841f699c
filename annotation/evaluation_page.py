"""The page of `finlm annotate evaluate`: verdicts by category, and what each model lost most clearly."""

from collections.abc import Iterable, Mapping, Sequence

from annotation.logged import Pair
from finlm import report
from finlm.verdicts import Tally, Verdict

ALL = "all"
HEAD = ("prompts", "number", "good", "same", "bad", "mean verdict", "sign test, p")
SHOWN = 8
"""Prompts on the page, of those that each model lost most clearly."""


def rows_of(tallies: Mapping[str, Tally]) -> Iterable[tuple[str, ...]]:
    """Return a row a category."""
    for name, one in tallies.items():
        counts = (f"{count:,}" for count in (one.prompts, one.good, one.same, one.bad))
        yield name, *counts, _interval(one), f"{one.p_value:.3g}"


def page_of(
    title: str,
    models: tuple[str, str],
    tallies: Mapping[str, Tally],
    verdicts: Mapping[str, Sequence[Verdict]],
    pairs: Mapping[str, Pair],
) -> report.Page:
    """Return the page.

    Args:
        title: What was judged.
        models: The one that verdicts are told of, and the other.
        tallies: By category; `ALL` first.
        verdicts: By pair.
        pairs: With who wrote which answer.
    """
    first, second = models
    sections: list[report.Section] = [
        _headline(first, second, tallies[ALL]),
        report.Table("By category", HEAD, tuple(rows_of(tallies))),
    ]
    for model, sign in ((first, -1), (second, 1)):
        lost = [name for name, its in verdicts.items() if sum(its) * sign > 0]
        lost.sort(key=lambda name: (-abs(sum(verdicts[name])) / len(verdicts[name]), name))
        if lost:
            other = second if model == first else first
            samples = tuple(_sample(pairs[name], model, verdicts[name]) for name in lost[:SHOWN])
            sections.append(report.Samples(f"Where {model} lost", (model, other), samples))
    return report.Page("Blind comparison", title, tuple(sections))


def _headline(first: str, second: str, whole: Tally) -> report.Figures:
    said = "Nothing is shown beyond chance."
    if whole.preference.low > 0 or whole.preference.high < 0:
        said = f"{first if whole.preference.low > 0 else second} is preferred, beyond chance."
    return report.Figures(
        f"{first} against {second}",
        (
            report.Figure("prompts", whole.prompts),
            report.Figure("good", whole.good),
            report.Figure("same", whole.same),
            report.Figure("bad", whole.bad),
            report.Figure(
                "mean verdict",
                f"{whole.preference.mean:+.2f}",
                remark=f"95 %: {whole.preference.low:+.2f} to {whole.preference.high:+.2f}",
            ),
            report.Figure("sign test", f"{whole.p_value:.3g}", remark="two-sided p"),
        ),
        f"{said} Good: most judges of a prompt prefer the answer of {first}; same: most see no difference, or no "
        "verdict has most judges. The mean verdict lies between -1 and 1, its 95 % interval draws prompts; the sign "
        "test is exact and leaves out what is the same.",
    )


def _interval(one: Tally) -> str:
    return f"{one.preference.mean:+.2f} [{one.preference.low:+.2f}, {one.preference.high:+.2f}]"


def _sample(pair: Pair, model: str, verdicts: Sequence[Verdict]) -> report.Sample:
    shown = pair.comparison
    own, other = sorted(shown.shown, key=lambda response: response.model != model)
    counts = f"good {verdicts.count(1)}, same {verdicts.count(0)}, bad {verdicts.count(-1)}"
    return report.Sample(
        prompt="\n\n".join(turn.content for turn in shown.prompt.messages),
        answers=(report.Answer(own.text, ended=own.ended), report.Answer(other.text, ended=other.ended)),
        label=counts,
    )
