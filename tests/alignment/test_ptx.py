"""PPO-ptx: the mixed-in loss against transformers' own, drawn alike by every start and every split."""

from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from answers import ANSWERS, CPU, PROMPTS, Maker
from tiny import Tiny, conversations

from alignment import ptx
from alignment.ppo_trainer import PPOConfig, PPOTrainer
from finlm import config, data
from finlm.batches import IGNORE
from finlm.errors import MissingInput, UserError
from finlm.generation import pad_right
from finlm.metrics import read_metrics
from finlm.samples import Row, Sample


@pytest.fixture
def mixed(tiny: Tiny, tmp_path: Path) -> dict[str, Any]:
    return {
        "ptx_coef": 0.5,
        "ptx_instructions": [str(tiny.instructions)],
        "ptx_text": [str(tiny.text)],
        "ptx_text_share": 0.3,
        "ptx_test_share": 0.3,
        "ptx_rows": 6,
        "ptx_max_length": 128,
        "ptx_cache": str(tmp_path / "cache"),
    }


def gradients_of(trainer: PPOTrainer, step: int = 0) -> tuple[list[torch.Tensor], dict[str, float]]:
    found: list[torch.Tensor] = []

    def note(name: str, rate: float) -> None:
        if name == "policy":
            found.extend(parameter.grad.clone() for parameter in trainer.gradients.policy)  # type: ignore[union-attr]

    trainer._update = note  # type: ignore[method-assign]
    figures = trainer._step(trainer.credit(trainer.measure(PROMPTS, ANSWERS)), update=1, step=step)
    return found, figures


def samples_of(trainer: PPOTrainer, number: int = 0) -> list[Sample]:
    assert trainer.mixture is not None
    return list(chain.from_iterable(row.samples for row in trainer.mixture.step(number)))


def test_what_is_added_is_the_gradient_of_transformers_own_loss(make: Maker, mixed: dict[str, Any]) -> None:
    """Of each sample in a padded row of its own."""
    trainer = make(**mixed, max_grad_norm=0.0)
    with_it, figures = gradients_of(trainer)
    without, _ = gradients_of(make(max_grad_norm=0.0))
    samples = samples_of(trainer)
    assert {sample.stream for sample in samples} == {"instructions-finance", "text-finance"}
    assert len(samples) > 6
    ids, is_token = pad_right([sample.ids.tolist() for sample in samples], 0, CPU)
    labels = [np.where(sample.is_learned, sample.ids, IGNORE).tolist() for sample in samples]
    other = make()
    with other.roles("policy"):
        padded, _ = pad_right(labels, IGNORE, CPU)
        loss = other.roles.model(input_ids=ids, attention_mask=is_token.long(), labels=padded).loss
    assert figures["rollout/ptx_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    wanted = torch.autograd.grad(0.5 * loss, other.gradients.policy)
    for one, another, part in zip(with_it, without, wanted, strict=True):
        torch.testing.assert_close(one - another, part, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("layers", [None, [1]])
def test_the_split_does_not_matter(make: Maker, mixed: dict[str, Any], layers: list[int] | None) -> None:
    one, _ = gradients_of(make(**mixed, layers=layers, per_device_train_batch_size=1, gradient_accumulation_steps=8))
    eight, _ = gradients_of(make(**mixed, layers=layers, per_device_train_batch_size=8, gradient_accumulation_steps=1))
    for a, b in zip(one, eight, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_each_step_draws_its_own_rows_and_the_same_ones_again(make: Maker, mixed: dict[str, Any]) -> None:
    trainer, other = make(**mixed), make(**mixed)
    drawn = [[sample.record_id for sample in samples_of(trainer, number)] for number in (0, 1, 2, 1, 2)]
    assert drawn[1] == drawn[3]
    assert drawn[2] == drawn[4]
    assert drawn[0] != drawn[1] != drawn[2]
    # one that begins in the middle, and one of another seed
    assert [sample.record_id for sample in samples_of(other, 2)] == drawn[2]
    assert [sample.record_id for sample in samples_of(make(**mixed, seed=1))] != drawn[0]


def test_rows_are_filled_and_text_takes_its_share_of_their_tokens(make: Maker, mixed: dict[str, Any]) -> None:
    trainer = make(**mixed)
    assert trainer.mixture is not None
    rows = [row for number in range(20) for row in trainer.mixture.step(number)]
    assert len(rows) == 20 * 6
    assert all(len(row) <= 128 for row in rows)
    tokens = sum(map(len, rows))
    assert tokens > 0.85 * 20 * 6 * 128
    text = sum(len(sample) for row in rows for sample in row.samples if sample.stream == "text-finance")
    assert text / tokens == pytest.approx(0.3, abs=0.02)


def test_two_processes_share_the_rows_of_a_step(make: Maker, mixed: dict[str, Any]) -> None:
    trainer = make(**mixed)

    class Two:
        count = 2

        def __init__(self, index: int) -> None:
            self.index = index

    def drawn() -> list[str]:
        return [sample.record_id for one in trainer._mixed_in(1, 0) for sample in one.all]

    every = drawn()
    shares = []
    for index in (0, 1):
        trainer.processes = Two(index)  # type: ignore[assignment]
        assert len(trainer._mixed_in(1, 0)) == 3  # rows, one at a time
        shares.append(drawn())
    assert sorted(shares[0] + shares[1]) == sorted(every)
    trainer.processes = Two(0)  # type: ignore[assignment]
    rows = trainer.mixture.step(0) if trainer.mixture else []
    assert shares[0] == [sample.record_id for row in rows[::2] for sample in row.samples]


def test_no_step_is_drawn_twice(make: Maker, mixed: dict[str, Any]) -> None:
    """Two epochs of two mini-batches: update 2 goes on where the four steps of update 1 ended."""
    trainer = make(**mixed, num_ppo_epochs=2, num_mini_batches=2, gradient_accumulation_steps=4)
    for update, step, number in ((1, 0, 0), (1, 3, 3), (2, 0, 4), (3, 1, 9)):
        drawn = [sample.record_id for one in trainer._mixed_in(update, step) for sample in one.all]
        assert drawn == [sample.record_id for sample in samples_of(trainer, number)]


def test_held_out_and_too_long_records_are_set_aside_and_counted(make: Maker, mixed: dict[str, Any]) -> None:
    trainer = make(**mixed)
    held_out = {each.id for each in conversations() if data.is_held_out(each, test_share=0.3)}
    ids = {each.id for each in conversations()}
    rules = {removal.record_id: removal.rule for removal in trainer.removals if removal.record_id in ids}
    assert {name for name, rule in rules.items() if rule == "held-out"} == held_out
    assert "too-long" in rules.values()
    kept = {sample.record_id for number in range(30) for sample in samples_of(trainer, number)} & ids
    assert not kept & {*rules}
    assert kept | {*rules} == ids


def test_without_a_coefficient_no_file_is_read(make: Maker) -> None:
    assert make(ptx_instructions=["nowhere.jsonl"]).mixture is None


def test_files_that_are_not_there_or_empty_are_named(make: Maker, mixed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"nowhere\.jsonl: no such file"):
        make(**{**mixed, "ptx_instructions": ["nowhere.jsonl"]})
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"empty\.txt has no text"):
        make(**{**mixed, "ptx_text": [str(tmp_path / "empty.txt")]})
    words = r"ptx_instructions has a share of 0\.7 and no samples to train on \(.*too-long\); raise ptx_max_length"
    with pytest.raises(UserError, match=words):
        make(**{**mixed, "ptx_max_length": 4})
    with pytest.raises(
        UserError, match=r"ptx_instructions .* held-out, .*; raise ptx_max_length, lower ptx_test_share"
    ):
        make(**{**mixed, "ptx_test_share": 1.0})


def sample(*learned: bool) -> Sample:
    return Sample("text-finance", np.arange(2, 2 + len(learned), dtype=np.int32), np.array(learned), "a", "en", "f:1")


def test_rows_that_pass_together_are_cut_between_samples() -> None:
    rows = [Row((sample(False, True, True), sample(False, False))), Row((sample(False, True),))]
    assert [one.learned for one in ptx.micro_batches(rows, size=1)] == [2, 1]
    (both,) = ptx.micro_batches(rows, size=2)
    assert (len(both), both.tokens, both.learned) == (3, 7, 3)
    assert [len(both.rows(0, 1)), both.rows(1, 3).tokens] == [1, 4]


def test_samples_without_a_learned_token_give_no_gradient(make: Maker, mixed: dict[str, Any]) -> None:
    trainer = make(**mixed)
    part = ptx.gradients(
        trainer.roles, ptx.Mixed((sample(False, False),)), trainer.gradients.policy, coefficient=1.0, learned_tokens=0.0
    )
    assert part.totals.ptx == 0.0
    assert all(one is None or not one.any() for one in part.gradients)


@pytest.mark.parametrize(("tokens", "rows"), [(0, 32), (8192, 8), (500, 1), (65536, 32)])
def test_a_pass_holds_no_more_tokens_than_the_settings_allow(tokens: int, rows: int) -> None:
    assert PPOConfig(per_device_train_batch_size=32, micro_batch_tokens=tokens).ptx_micro_batch == rows


def test_a_run_keeps_its_language_better(make: Maker, mixed: dict[str, Any], tmp_path: Path) -> None:
    """With a large weight the mixed-in loss falls over a run."""
    settings = {**mixed, "ptx_coef": 5.0, "total_episodes": 96, "learning_rate": 1e-2, "ptx_rows": 16}
    make(**settings, output_dir=str(tmp_path)).train()
    losses = [line["rollout/ptx_loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert fmean(losses[-4:]) < 0.7 * losses[0]


@pytest.mark.parametrize("size", ["demo", "6b"])
def test_shipped_settings_hold_out_what_sft_holds_out(size: str) -> None:
    from alignment.ppo import PPOSettings
    from alignment.sft import SFTSettings

    ppo = config.parse(PPOSettings, "", ["--config", f"ppo_{size}"])
    sft = config.parse(SFTSettings, "", ["--config", f"sft_{size}"])
    assert ppo.ptx_coef == 0
    assert ppo.ptx_test_share == sft.test_share
    assert ppo.ptx_cache == sft.cache
    assert set(ppo.ptx_instructions) <= {*sft.instructions_general, *sft.instructions_finance}
