"""What a run says of its evaluations and of its guards, in the terminal."""

from pathlib import Path

from alignment.guards import GuardConfig
from finlm.ppo_records import GuardVerdict, HeldOutRecord, read_best


def told(record: HeldOutRecord, *, is_best: bool) -> str:
    """One line for the terminal."""
    parts = [f"reward {record.reward:+.2f}{' (best so far)' if is_best else ''}"]
    parts += [f"anchor {record.anchor:+.2f}"] if record.anchor is not None else []
    parts += [f"right {record.right:.2f}"] if record.right is not None else []
    parts += [f"KL {record.kl_nats:.2f} nats", f"{record.tokens:.1f} tokens", f"ended {record.ended:.2f}"]
    return f"held out, update {record.update}: {', '.join(parts)}"


def stopped(verdict: GuardVerdict, folder: Path, total: int) -> str:
    """Say that a run was stopped, and how to go on."""
    best = read_best(folder)
    found = f" Best on held-out prompts so far: update {best.update}, {folder / best.policy}." if best else ""
    return (
        f"stopped after update {verdict.update} of {total} by the guard {verdict.guard!r}. {verdict.sentence} The "
        "state is kept: the same command with a wider limit goes on, with --guards.acts false whatever the guards "
        f"say.{found}"
    )


def rolled_back(verdict: GuardVerdict, guards: GuardConfig, *, count: int) -> str:
    """Say that a run was rolled back, for the `count`-th time, and how it goes on."""
    there = f"update {verdict.back_to}" if verdict.back_to else "its start"
    said = f"rolled back from update {verdict.update} to {there} by the guard {verdict.guard!r}. {verdict.sentence}"
    changed = (
        f"with kl_coef x {guards.kl_coef_factor**count:g} and learning rates x {guards.learning_rate_factor**count:g} "
        "(guards.kl_coef_factor, guards.learning_rate_factor)"
    )
    if count <= guards.roll_backs:
        return f"{said} The run goes on from there {changed}."
    return (
        f"{said} The same command goes on from there {changed}; --guards.roll_backs {count + 2} lets it be rolled back "
        f"without stopping, --guards.acts false only warns."
    )
