"""The guards on series made by hand, on noise, and on a run whose reward model pays for length."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch

from alignment.guards import GuardConfig, Observed, judge, line_slope, mean_slope, news, worst
from alignment.watch import GuardStop
from finlm.metrics import read_metrics
from finlm.ppo_records import GuardVerdict, HeldOutRecord, read_guards

CALM = Observed(update=1, score=0.0, kl=2.0, tokens=40.0, entropy=0.8, ended=0.9)


def series(count: int, **changed: Callable[[int], float]) -> list[Observed]:
    """Updates 1 to `count`, calm but for the fields that are functions of the update."""
    return [
        replace(CALM, update=update, **{name: of(update) for name, of in changed.items()})
        for update in range(1, count + 1)
    ]


def actions(config: GuardConfig, observed: Sequence[Observed], guard: str) -> dict[int, str]:
    """What one guard says after each update, where it is not content."""
    found = {}
    for count in range(1, len(observed) + 1):
        for verdict in judge(config, observed[:count]):
            assert verdict.update == count
            if verdict.guard == guard and verdict.action != "ok":
                found[count] = verdict.action
    return found


# beyond the default limits from update 26 on
CROSSING: dict[str, tuple[Callable[[int], float], str]] = {
    "kl": (lambda update: 19.0 if update >= 26 else 17.0, "roll back"),  # 3 x 6
    "tokens": (lambda update: 81.0 if update >= 26 else 40.0, "stop"),  # 2 x 40
    "entropy": (lambda update: 0.07 if update >= 26 else 0.8, "stop"),  # 0.1 x 0.8
    "ended": (lambda update: 0.64 if update >= 26 else 0.9, "stop"),  # 0.9 - 0.25
    "disagreement": (lambda update: 0.61 if update >= 26 else 0.3, "roll back"),  # 2 x 0.3
}


@pytest.mark.parametrize("field", list(CROSSING))
def test_warns_at_the_first_update_beyond_and_acts_at_the_fifth(field: str) -> None:
    of, action = CROSSING[field]
    guard = "length" if field == "tokens" else field
    found = actions(GuardConfig(), series(31, **{field: of}), guard)
    assert found == {26: "warn", 27: "warn", 28: "warn", 29: "warn", 30: action, 31: action}


def test_answers_may_not_become_too_short_either() -> None:
    found = actions(GuardConfig(), series(30, tokens=lambda update: 19.9 if update >= 26 else 40.0), "length")
    assert found[30] == "stop"


@pytest.mark.parametrize("field", list(CROSSING))
def test_one_good_update_begins_the_count_anew(field: str) -> None:
    of, action = CROSSING[field]
    guard = "length" if field == "tokens" else field
    found = actions(GuardConfig(), series(36, **{field: lambda update: of(1 if update == 29 else update)}), guard)
    assert 29 not in found
    assert [update for update, said in found.items() if said == action] == [34, 35, 36]


@pytest.mark.parametrize("field", ["tokens", "entropy", "ended", "disagreement"])
def test_nothing_is_measured_against_a_start_that_is_not_over(field: str) -> None:
    wild = series(3, **{field: lambda update: 100.0 / update})
    assert {verdict.guard for verdict in judge(GuardConfig(), wild)} == {"kl"}


def test_a_sentence_names_values_limit_and_way_out() -> None:
    (verdict,) = [v for v in judge(GuardConfig(), series(30, kl=CROSSING["kl"][0])) if v.guard == "kl"]
    assert verdict.sentence == (
        "KL is 19.0, 19.0, 19.0, 19.0, 19.0 nats per answer, the limit is 18 (3 x kl_target 6): go back to the best "
        "checkpoint and raise kl_coef or lower learning_rate."
    )


def test_a_streak_is_news_twice() -> None:
    """At its first update and when the guard acts; after a good update it is news again."""
    observed = series(40, kl=lambda update: 19.0 if update in (*range(26, 33), 35) else 2.0)
    told = {count: news(GuardConfig(), observed[:count]) for count in range(1, 41)}
    found = {count: [(one.guard, one.action, one.since) for one in said] for count, said in told.items() if said}
    # update 26's figures are of the policy after update 25
    assert found == {26: [("kl", "warn", 25)], 30: [("kl", "roll back", 25)], 35: [("kl", "warn", 34)]}


def test_the_worst_verdict_is_acted_on() -> None:
    both = judge(GuardConfig(), series(30, kl=CROSSING["kl"][0], tokens=CROSSING["tokens"][0]))
    found = worst(both)
    assert found is not None
    assert (found.guard, found.action) == ("kl", "roll back")
    assert worst([]) is None
    assert judge(GuardConfig(), []) == []


def test_zero_switches_a_guard_off() -> None:
    ruined = series(40, **{field: of for field, (of, _) in CROSSING.items()})
    off = dict.fromkeys(("kl_target", "length_ratio", "entropy_share", "ended_fall", "disagreement_multiple"), 0.0)
    config = GuardConfig(**off, anchor_evaluations=0)  # type: ignore[arg-type]
    assert judge(config, ruined, evaluations(9, anchor=-0.1)) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patience", 0), ("start_updates", 0), ("kl_target", -1.0), ("kl_multiple", -1.0), ("length_ratio", 0.5),
        ("disagreement_multiple", 0.5),
        ("entropy_share", 1.0), ("ended_fall", -0.1), ("anchor_evaluations", 2), ("anchor_z", 0.0),
        ("roll_backs", -1), ("kl_coef_factor", 0.5), ("learning_rate_factor", 0.0), ("learning_rate_factor", 1.5),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        GuardConfig(**{field: value})


# ---------------------------------------------------------------------------------------------- the anchor


def evaluations(
    count: int, *, anchor: float, prompts: int = 64, noise: float = 0.0, rights: bool = False, seed: int = 0
) -> list[HeldOutRecord]:
    """Evaluations every ten updates whose anchor changes by `anchor` from one to the next.

    Prompts differ by a standard deviation of 1 that stays, and each score by `noise` that does not.
    """
    rng = random.Random(seed)
    hard = [rng.gauss(0, 1) for _ in range(prompts)]
    made = []
    for number in range(count):
        scores = tuple(level + anchor * number + rng.gauss(0, noise) for level in hard)
        made.append(
            HeldOutRecord(
                update=10 * number, reward=0.0, kl_nats=1.0, tokens=40.0, ended=0.9, anchor=None, right=None,
                rewards=scores, anchors=() if rights else scores,
                rights=tuple(score > 0 for score in scores) if rights else (),
            )
        )  # fmt: skip
    return made


def rising(count: int, *, by: float = 0.01, noise: float = 0.1, seed: int = 1) -> list[Observed]:
    rng = random.Random(seed)
    return series(count, score=lambda update: by * update + rng.gauss(0, noise))


def of_anchor(verdicts: Sequence[GuardVerdict]) -> list[GuardVerdict]:
    return [verdict for verdict in verdicts if verdict.guard == "anchor"]


@pytest.mark.parametrize("rights", [False, True])
def test_a_falling_anchor_under_a_rising_reward_rolls_back(rights: bool) -> None:
    # a hundredth a prompt and evaluation is lost in the noise of one prompt; of 64 over five evaluations -0.15 is not
    held_out = evaluations(5, anchor=-0.15, noise=0.3, rights=rights)
    (verdict,) = of_anchor(judge(GuardConfig(), rising(40), held_out))
    assert verdict.action == "roll back"
    assert ("right answers" if rights else "anchor's score") in verdict.sentence
    assert "go back to the best checkpoint" in verdict.sentence


def test_both_falling_or_both_rising_is_no_hacking() -> None:
    for by, change in ((-0.01, -0.15), (0.01, 0.15)):
        held_out = evaluations(5, anchor=change, noise=0.3)
        (verdict,) = of_anchor(judge(GuardConfig(), rising(40, by=by), held_out))
        assert verdict.action == "ok"


def test_fewer_evaluations_than_the_window_say_nothing() -> None:
    assert of_anchor(judge(GuardConfig(), rising(40), evaluations(4, anchor=-0.5))) == []


def test_without_anchor_and_right_answers_there_is_no_guard() -> None:
    blind = [replace(one, anchors=(), rights=()) for one in evaluations(5, anchor=-0.5)]
    assert of_anchor(judge(GuardConfig(), rising(40), blind)) == []


def test_slopes_by_hand() -> None:
    # x 0 1 2 3, y 1 3 2 6: Sxx 5, Sxy -1.5(-2) -0.5(0) 0.5(-1) 1.5(3) = 7; b 1.4; line 0.9 2.3 3.7 5.1;
    # residuals 0.1 0.7 -1.7 0.9: squares 0.01 + 0.49 + 2.89 + 0.81 = 4.2; se = sqrt(4.2 / 2 / 5) = 0.648074
    slope = line_slope([0, 1, 2, 3], [1, 3, 2, 6])
    assert slope.per_update == pytest.approx(1.4)
    assert slope.error == pytest.approx(0.648074, abs=1e-6)
    # mean 2, deviations -1 0 1, sample variance 1, error sqrt(1 / 3)
    assert mean_slope([1.0, 2.0, 3.0]) == (pytest.approx(2.0), pytest.approx(math.sqrt(1 / 3)))
    with pytest.raises(ValueError, match="two different x"):
        line_slope([1, 1], [0, 1])


# ---------------------------------------------------------------------------------------------- noise


def noisy(rng: random.Random, count: int) -> list[Observed]:
    """A healthy run: KL rises to its target, the score rises, length and entropy drift by a fifth; all with noise.

    Noise of one update, as a standard deviation: KL 40 %, length 20 %, entropy 20 %, ended 0.06 (64 answers at 0.7),
    score 0.15. It is larger than that of 64 answers or more in the recorded runs.
    """
    made = []
    for update in range(1, count + 1):
        done = update / count
        made.append(
            Observed(
                update=update,
                score=done + rng.gauss(0, 0.15),
                kl=6 * min(1.0, 2 * done) * max(0.0, rng.gauss(1, 0.4)),
                tokens=40 * (1 + 0.2 * done) * max(0.1, rng.gauss(1, 0.2)),
                entropy=0.8 * (1 - 0.2 * done) * max(0.1, rng.gauss(1, 0.2)),
                ended=min(1.0, max(0.0, rng.gauss(0.7, 0.06))),
            )
        )
    return made


def test_noise_alone_does_not_trip_within_two_hundred_updates() -> None:
    """A hundred healthy runs at the default limits, each with a flat anchor every ten updates (64 prompts, noise 1)."""
    acted = []
    for run in range(100):
        rng = random.Random(f"noise {run}")
        observed, held_out = noisy(rng, 200), evaluations(21, anchor=0.0, noise=1.0, seed=1000 + run)
        for count in range(1, 201):
            # between evaluations the anchor's verdict stays
            known = [one for one in held_out if one.update <= count] if count % 10 == 0 else []
            acted += [v for v in judge(GuardConfig(), observed[:count], known) if v.action not in ("ok", "warn")]
    assert {verdict.guard for verdict in acted} <= {"anchor"}
    # 17 windows of five evaluations, overlapping: 3 standard errors with 63 degrees of freedom have probability 0.2 %
    # each, so at most 3.3 % of runs are rolled back in vain on average; 9 of 100 would be four deviations above
    assert len({verdict.sentence for verdict in acted}) < 9


def test_the_same_noise_does_not_hide_a_ruined_run() -> None:
    """The run above, ruined after update 100 at a rate: each guard finds it before update 200, in every run."""
    for run in range(20):
        observed = noisy(random.Random(f"noise {run}"), 200)
        late = [max(0, one.update - 100) / 100 for one in observed]
        for guard, changed in {
            "kl": [replace(one, kl=one.kl * (1 + 9 * x)) for one, x in zip(observed, late, strict=True)],
            "length": [replace(one, tokens=one.tokens * (1 + 3 * x)) for one, x in zip(observed, late, strict=True)],
            "entropy": [
                replace(one, entropy=one.entropy * max(0.0, 1 - 1.2 * x)) for one, x in zip(observed, late, strict=True)
            ],
            "ended": [replace(one, ended=one.ended * (1 - x)) for one, x in zip(observed, late, strict=True)],
        }.items():
            said = actions(GuardConfig(), changed, guard)
            assert any(action != "warn" for action in said.values()), f"{guard} of run {run}"


# ---------------------------------------------------------------------------------------------- a real run


def test_a_reward_that_pays_for_length_trips_the_length_guard(tmp_path: Path) -> None:
    """PPO on a tiny model whose reward model was fitted to length: the guard must stop it within 20 updates."""
    torch.set_num_threads(1)
    trainer = small.trainer(
        small.base(vocabulary=8, width=16),
        small.tokenizer(8),
        [[2, 3], [4], [5, 6, 7]],
        tmp_path,
        total_episodes=64 * 20,
        per_device_train_batch_size=64,
        local_rollout_forward_batch_size=64,
        num_ppo_epochs=2,
        response_length=24,
        missing_eos_penalty=0.0,
        learning_rate=1e-2,
        critic_learning_rate=1e-2,
        kl_coef=0.0,
        save_steps=1000,
        guards=GuardConfig(kl_target=0, ended_fall=0),
    )
    small.pay_for_length(trainer)
    with pytest.raises(GuardStop, match=r"stopped after update \d+ of 20 by the guard 'length'"):
        trainer.train()
    observed = [Observed.of(line) for line in read_metrics(tmp_path / "ppo" / "metrics.jsonl")]
    assert observed[-1].score > observed[0].score + 0.5, "the reward did not rise: it does not pay for length"
    (warned, stopped) = read_guards(tmp_path / "ppo")
    assert (warned.guard, warned.action, stopped.guard, stopped.action) == ("length", "warn", "length", "stop")
    assert stopped.update == observed[-1].update == warned.update + 4  # patience 5
    # its state is kept, at the very update
    assert (tmp_path / "ppo" / "checkpoints" / f"checkpoint-{stopped.update}").is_dir()
