"""PPO-ptx: the mixed-in loss against transformers' own, drawn alike by every start and every split."""

from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, CPU, PROMPTS, Maker
from tiny import Tiny

from alignment import ptx
from alignment.ppo_trainer import PPOTrainer
from finlm import config, data
from finlm.errors import MissingInput, UserError
from finlm.generation import pad_right
from finlm.metrics import read_metrics


@pytest.fixture
def mixed(tiny: Tiny) -> dict[str, Any]:
    return {
        "ptx_coef": 0.5,
        "ptx_instructions": [str(tiny.instructions)],
        "ptx_text": [str(tiny.text)],
        "ptx_text_share": 0.3,
        "ptx_test_share": 0.3,
        "ptx_rows": 6,
        "ptx_max_length": 96,
    }


def gradients_of(trainer: PPOTrainer, step: int = 0) -> tuple[list[torch.Tensor], dict[str, float]]:
    found: list[torch.Tensor] = []

    def note(name: str, rate: float) -> None:
        if name == "policy":
            found.extend(parameter.grad.clone() for parameter in trainer.gradients.policy)  # type: ignore[union-attr]

    trainer._update = note  # type: ignore[method-assign]
    figures = trainer._step(trainer.credit(trainer.measure(PROMPTS, ANSWERS)), update=1, step=step)
    return found, figures


def test_what_is_added_is_the_gradient_of_transformers_own_loss(make: Maker, mixed: dict[str, Any]) -> None:
    trainer = make(**mixed, max_grad_norm=0.0)
    with_it, figures = gradients_of(trainer)
    without, _ = gradients_of(make(max_grad_norm=0.0))
    assert trainer.mixture is not None
    rows = trainer.mixture.take(6, seed=trainer._seed("ptx", 1, 0))
    assert {row.stream for row in rows} == {"instructions", "text"}
    ids, is_token = pad_right([row.ids for row in rows], 0, CPU)
    labels, _ = pad_right([row.labels for row in rows], data.IGNORE, CPU)
    other = make()
    with other.roles("policy"):
        loss = other.roles.model(input_ids=ids, attention_mask=is_token.long(), labels=labels).loss
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
    one, other = make(**mixed).mixture, make(**mixed).mixture
    assert one is not None
    assert other is not None
    drawn = [[row.record_id for row in one.take(6, seed=seed)] for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] == [row.record_id for row in other.take(6, seed=1)]
    assert drawn[0] != drawn[1]


def test_two_processes_share_the_rows_of_a_step(make: Maker, mixed: dict[str, Any]) -> None:
    trainer = make(**mixed)

    class Two:
        count = 2

        def __init__(self, index: int) -> None:
            self.index = index

    every = [row.record_id for rows in trainer._mixed_in(1, 0) for row in rows.all]
    shares = []
    for index in (0, 1):
        trainer.processes = Two(index)  # type: ignore[assignment]
        shares.append([row.record_id for rows in trainer._mixed_in(1, 0) for row in rows.all])
    assert [len(share) for share in shares] == [3, 3]
    assert sorted(shares[0] + shares[1]) == sorted(every)


def test_held_out_and_too_long_rows_are_set_aside_and_counted(make: Maker, mixed: dict[str, Any], tiny: Tiny) -> None:
    trainer = make(**mixed)
    assert trainer.mixture is not None
    found = data.read_conversations([tiny.instructions])
    held_out = {each.id for each in found if data.is_held_out(each, test_share=0.3)}
    rules = {removal.record_id: removal.rule for removal in trainer.removals}
    assert {name for name, rule in rules.items() if rule == "held-out"} == held_out
    assert "too-long" in rules.values()
    kept = {row.record_id for row in trainer.mixture.instructions}
    assert not kept & held_out
    assert len(kept) + len(rules) == len(found)


def test_without_a_coefficient_no_file_is_read(make: Maker) -> None:
    assert make(ptx_instructions=["nowhere.jsonl"]).mixture is None


def test_files_that_are_not_there_or_empty_are_named(make: Maker, mixed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"nowhere\.jsonl: no such file"):
        make(**{**mixed, "ptx_instructions": ["nowhere.jsonl"]})
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(UserError, match="there is no text"):
        make(**{**mixed, "ptx_text": [str(tmp_path / "empty.txt")]})
    with pytest.raises(UserError, match="No instruction fits the length limit"):
        make(**{**mixed, "ptx_max_length": 4})


def test_rows_learn_every_token_but_the_first() -> None:
    text = data.Row(stream="text", ids=(5, 6, 7), labels=(5, 6, 7), record_id="a")
    asked = data.Row(stream="instructions", ids=(5, 6, 7, 8), labels=(-100, -100, 7, 8), record_id="b")
    assert [rows.learned for rows in ptx.micro_batches([text, asked], size=1)] == [2, 2]
    assert ptx.micro_batches([asked, text], size=2)[0].tokens == 8


def test_a_run_keeps_its_language_better(make: Maker, mixed: dict[str, Any], tmp_path: Path) -> None:
    """With a large weight the mixed-in loss falls over a run."""
    settings = {**mixed, "ptx_coef": 5.0, "total_episodes": 64, "learning_rate": 1e-2, "ptx_rows": 16}
    make(**settings, output_dir=str(tmp_path)).train()
    losses = [line["rollout/ptx_loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("size", ["demo", "6b"])
def test_shipped_settings_hold_out_what_sft_holds_out(size: str) -> None:
    from alignment.ppo import PPOSettings
    from alignment.sft import SFTSettings

    ppo = config.parse(PPOSettings, "", ["--config", f"ppo_{size}"])
    sft = config.parse(SFTSettings, "", ["--config", f"sft_{size}"])
    assert ppo.ptx_coef == 0
    assert ppo.ptx_test_share == sft.test_share
    assert set(ppo.ptx_instructions) <= {*sft.instructions_general, *sft.instructions_finance}
