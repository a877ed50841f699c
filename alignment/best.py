"""Which update of a run was best, by what its held-out evaluations say: pure functions of records."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from finlm.ppo_records import BestPolicy, HeldOutRecord, policy_name


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """When to evaluate, and which update is best."""

    every: int = 20
    """Updates between evaluations; one comes before the first update and one at the end too. 0 never evaluates."""
    batch_size: int = 64
    """Answers sampled at once and process."""
    seed: int = 0
    """Seed of the answers, the same in every evaluation."""
    kl_limit: float = 20.0
    """Nats per answer beyond which an update is never the best; 0 allows any."""
    right_fall: float = 0.05
    """How far the share of right answers may lie below the first evaluation's, 0 to 1."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"every is {self.every}; it must be 0 (never) or a number of updates.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be 1 or more.")
        if self.kl_limit < 0:
            raise ValueError(f"kl_limit is {self.kl_limit}; it must be 0 (any KL) or a number of nats.")
        if not 0 <= self.right_fall <= 1:
            raise ValueError(f"right_fall is {self.right_fall}; it must be 0 to 1.")


def keeps_to_limits(record: HeldOutRecord, first: HeldOutRecord, config: HeldOutConfig) -> bool:
    """True if KL and right answers of an evaluation keep to the limits; `first` is the run's first evaluation."""
    if config.kl_limit and record.kl_nats > config.kl_limit:
        return False
    # a share is a quotient: 0.55 - 0.05 is not 0.5
    return record.right is None or first.right is None or record.right >= first.right - config.right_fall - 1e-9


def best_update(records: Sequence[HeldOutRecord], config: HeldOutConfig) -> int:
    """Return the update with the highest held-out reward among those that kept to the limits.

    The limits: KL at most `kl_limit`, and a share of right answers at most `right_fall` below the first evaluation's.
    Of equal rewards the earlier update is better. The first evaluation is the answer where no other keeps to them.

    Raises:
        ValueError: There are no records.
    """
    if not records:
        raise ValueError("no held-out evaluation to choose from")
    first = min(records, key=lambda record: record.update)
    allowed = [record for record in records if keeps_to_limits(record, first, config)]
    return max(allowed or [first], key=lambda record: (record.reward, -record.update)).update


def best_policy(records: Sequence[HeldOutRecord], config: HeldOutConfig, kept: Collection[int]) -> BestPolicy | None:
    """Return the best among the policies that were kept and evaluated, with the reason; None if there is none.

    Args:
        records: All evaluations of the run, by update.
        config: The limits.
        kept: Updates whose policy was kept.
    """
    candidates = [record for record in records if record.update in kept]
    if not candidates:
        return None
    number = best_update(candidates, config)
    (found,) = [record for record in candidates if record.update == number]
    first = candidates[0]
    beyond = [record for record in candidates if not keeps_to_limits(record, first, config)]
    reason = f"the highest held-out reward of {len(candidates)} kept policies ({len(found.rewards)} prompts)"
    if beyond:
        named = ", ".join(str(record.update) for record in beyond)
        reason += (
            f"; beyond the limits (kl_limit {config.kl_limit:g}, right_fall {config.right_fall:g}) and left out: "
            f"update{'s' if len(beyond) > 1 else ''} {named}"
        )
    if len(beyond) == len(candidates):
        reason = f"the first of {len(candidates)} kept policies, all of which are beyond the limits"
    return BestPolicy(
        update=number,
        policy=policy_name(number),
        reward=found.reward,
        kl_nats=found.kl_nats,
        tokens=found.tokens,
        ended=found.ended,
        anchor=found.anchor,
        right=found.right,
        reason=reason,
    )


def trusted_update(records: Sequence[HeldOutRecord]) -> int | None:
    """Return the update at which what does not train stood highest: the anchor's score, or the share of right answers.

    The earliest of equals; None where an evaluation has neither.
    """
    told = [(record.anchor if record.anchor is not None else record.right, record.update) for record in records]
    known = [(number, -update) for number, update in told if number is not None]
    return -max(known)[1] if known and len(known) == len(told) else None
