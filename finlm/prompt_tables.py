"""What `finlm prompts` prints: the rules' counts, the thresholds, the quotas and the decisions of a round."""

import difflib
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from finlm.confidence import Filtered
from finlm.mixture_rounds import Decision
from finlm.prompt_mixture import OTHERS, Drawn, Quota


def show(
    drawn: Sequence[Drawn],
    decisions: Sequence[Decision],
    filtered: Filtered,
    rules: Mapping[str, int],
    *,
    kept: int,
    read: int,
) -> None:
    """Print the tables that have something to say."""
    console = Console()
    if rules:
        console.print(_rules(rules, kept=kept, read=read))
    if filtered.limits:
        console.print(_limits(filtered))
    if decisions:
        console.print(_decisions(decisions))
        console.print(settled(decisions))
    quotas = [quota for one in drawn for quota in one.quotas]
    if quotas:
        console.print(_quotas(quotas))
        prompts = [prompt for one in drawn for prompt in one.prompts]
        known = {prompt.subfield for prompt in prompts if prompt.subfield}
        for line in complaints(quotas, known):
            console.print(line, soft_wrap=True)


def _rules(rules: Mapping[str, int], *, kept: int, read: int) -> Table:
    table = Table(title=f"{read} prompts read")
    table.add_column("rule")
    table.add_column("prompts", justify="right")
    for rule, count in sorted(rules.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(rule, str(count))
    table.add_row("[bold]kept[/bold]", f"[bold]{kept}[/bold]")
    return table


def _limits(filtered: Filtered) -> Table:
    table = Table(title=f"confidence filter, in score units ({filtered.unscored} prompts without scores)")
    for name in ("category", "scored", "least deviation", "lowest mean", "highest mean"):
        table.add_column(name, justify="left" if name == "category" else "right")
    for one in filtered.limits:
        table.add_row(
            one.category,
            str(one.scored),
            f"{one.least_deviation:.3f}",
            f"{one.lowest_mean:+.3f}",
            f"{one.highest_mean:+.3f}",
        )
    return table


def _decisions(decisions: Sequence[Decision]) -> Table:
    table = Table(title="next mixture")
    for name in ("category", "sub-field", "gain", "agreement", "share", "before", "after"):
        table.add_column(name, justify="right" if name in ("before", "after") else "left")
    for one in decisions:
        table.add_row(
            one.category,
            one.subfield,
            one.gain_grade if one.gain is None else f"{one.gain:+.3f} {one.gain_grade}",
            one.agreement_grade if one.agreement is None else f"{one.agreement:.3f} {one.agreement_grade}",
            one.change,
            f"{one.before:.3f}",
            f"{one.after:.3f}",
        )
    return table


def settled(decisions: Sequence[Decision]) -> str:
    """Say whether another round would change anything."""
    largest = max(abs(one.after - one.before) for one in decisions)
    if largest < 1e-9:
        return "No share changes: the rounds are at their end."
    return f"The largest change of a share is {largest:.3f}; train the next round on this mixture."


def _quotas(quotas: Sequence[Quota]) -> Table:
    table = Table(title="quotas")
    for name in ("category", "sub-field", "source", "share", "wanted", "found", "taken", "short"):
        table.add_column(name, justify="left" if name in ("category", "sub-field", "source") else "right")
    for one in quotas:
        short = f"[bold red]{one.short}[/bold red]" if one.short else "0"
        numbers = (str(one.wanted), str(one.available), str(one.taken), short)
        table.add_row(one.category, one.subfield, one.source, f"{one.share:.3f}", *numbers)
    return table


def complaints(quotas: Sequence[Quota], known: set[str]) -> list[str]:
    """Say of each cell that has no prompt at all what may be meant, and how many prompts are missing in all."""
    lines = []
    for category, subfield in dict.fromkeys((one.category, one.subfield) for one in quotas):
        own = [one for one in quotas if (one.category, one.subfield) == (category, subfield)]
        if subfield != OTHERS and any(one.wanted for one in own) and not any(one.available for one in own):
            near = difflib.get_close_matches(subfield, known, n=1)
            hint = f"; perhaps {near[0]!r} is meant" if near else ""
            lines.append(f"No prompt has the sub-field {subfield!r} of {category}{hint}.")
    short = sum(one.short for one in quotas)
    if short:
        wanted = sum(one.wanted for one in quotas)
        lines.append(
            f"{short} of {wanted} prompts are missing; the shares that were met are not filled up with others."
        )
    return lines
