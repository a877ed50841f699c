"""What PPO measures on answers, and one step of learning: equal to the bit where it must be, to rounding elsewhere."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, CPU, PROMPTS, Maker

from alignment import rollout
from alignment.ppo_trainer import PPOTrainer
from finlm import likelihood, scorer
from finlm.grouping import grouped


def spread_out(numbers: Sequence[Any], batches: Sequence[rollout.MicroBatch]) -> dict[int, torch.Tensor]:
    """Each answer's own numbers, by its place in the rollout."""
    return {
        index: row[mask]
        for number, batch in zip(numbers, batches, strict=True)
        for index, row, mask in zip(batch.index, number, batch.is_answer_BA, strict=True)
    }


def test_micro_batches_hold_every_answer_once(make: Maker) -> None:
    batches = rollout.micro_batches(make().roles, PROMPTS, ANSWERS, size=3, pad=0, device=CPU)
    assert sorted(index for batch in batches for index in batch.index) == list(range(8))
    assert [len(batch.index) for batch in batches] == [3, 3, 2]
    for batch in batches:
        for row, index in enumerate(batch.index):
            prompt, ids = PROMPTS[index], list(ANSWERS[index].ids)
            assert batch.ids_BT[row][batch.is_token_BT[row]].tolist() == prompt + ids
            assert batch.answer_BA[row][batch.is_answer_BA[row]].tolist() == ids
            # the state before a token is that of the token to its left: the prompt's last for the answer's first
            before = batch.before_BA[row][batch.is_answer_BA[row]].tolist()
            assert before == list(range(len(prompt) - 1, len(prompt) - 1 + len(ids)))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_equal_the_softmax_of_the_logits(make: Maker, temperature: float) -> None:
    trainer = make()
    batches = rollout.micro_batches(trainer.roles, PROMPTS, ANSWERS, size=4, pad=0, device=CPU)
    with torch.no_grad(), trainer.roles("policy"):
        found = [
            rollout.log_probs(
                trainer.roles, batch, likelihood.output_head(trainer.roles.model), temperature=temperature
            )
            for batch in batches
        ]
        logp, entropy = (spread_out(numbers, batches) for numbers in zip(*found, strict=True))
        for place, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
            ids = list(answer.ids)
            logits = trainer.roles.model(input_ids=torch.tensor([prompt + ids])).logits[0] / temperature
            every = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
            wanted = every[torch.arange(len(ids)), torch.tensor(ids)]
            torch.testing.assert_close(logp[place], wanted, atol=1e-5, rtol=0)
            torch.testing.assert_close(entropy[place], -(every.exp() * every).sum(dim=-1), atol=1e-4, rtol=0)


def test_an_answer_does_not_feel_its_neighbours(make: Maker) -> None:
    trainer = make()
    with torch.no_grad():
        found = []
        for size in (1, 8):
            batches = rollout.micro_batches(trainer.roles, PROMPTS, ANSWERS, size=size, pad=0, device=CPU)
            with trainer.roles("policy"):
                logp = [
                    rollout.log_probs(trainer.roles, b, likelihood.output_head(trainer.roles.model), temperature=1.0)[0]
                    for b in batches
                ]
            value = [rollout.values(trainer.roles, batch, trainer.critic_head) for batch in batches]
            score = [rollout.scores(trainer.roles, batch, trainer.reward_head) for batch in batches]
            scores = {
                i: s for batch, row in zip(batches, score, strict=True) for i, s in zip(batch.index, row, strict=True)
            }
            found.append((spread_out(logp, batches), spread_out(value, batches), scores))
    for alone, together in zip(*found, strict=True):
        for index in range(8):
            torch.testing.assert_close(together[index], alone[index], atol=1e-5, rtol=0)


def test_the_score_is_read_at_the_last_token_and_values_before_each(make: Maker) -> None:
    trainer = make()
    (batch,) = rollout.micro_batches(trainer.roles, PROMPTS[:1], ANSWERS[:1], size=1, pad=0, device=CPU)
    with torch.no_grad():
        with trainer.roles("reward"):
            hidden = scorer.last_hidden(trainer.roles.model, batch.ids_BT, batch.is_token_BT)[0]
        weight, bias = trainer.reward_head.weight[0], trainer.reward_head.bias[0]
        score = rollout.scores(trainer.roles, batch, trainer.reward_head)
        # the critic begins as a copy of the reward model
        value = rollout.values(trainer.roles, batch, trainer.critic_head)
    torch.testing.assert_close(score[0], hidden[5] @ weight + bias, atol=1e-6, rtol=0)
    torch.testing.assert_close(value[0], hidden[2:5] @ weight + bias, atol=1e-6, rtol=0)


def test_a_closing_token_is_read_for_the_score_alone(make: Maker) -> None:
    trainer = make()
    ended = [replace(answer, ids=(*answer.ids, 1), ended=True) if not answer.ended else answer for answer in ANSWERS]
    found: list[Any] = []
    with torch.no_grad():
        for answers, closing in ((ANSWERS, None), (ANSWERS, 1), (ended, None)):
            batches = rollout.micro_batches(trainer.roles, PROMPTS, answers, size=3, pad=0, device=CPU, closing=closing)
            order = torch.tensor([index for batch in batches for index in batch.index]).argsort()
            read = [rollout.values_and_after(trainer.roles, batch, trainer.critic_head) for batch in batches]
            values = spread_out([value for value, _ in read], batches)
            after = torch.cat([after for _, after in read])[order]
            scores = torch.cat([rollout.scores(trainer.roles, batch, trainer.reward_head) for batch in batches])[order]
            found.append((values, after, scores))
    (values, after, scores), (same_values, same_after, closed), (_, _, wanted) = found
    was_cut = torch.tensor([not answer.ended for answer in ANSWERS])
    torch.testing.assert_close(closed, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(closed[~was_cut], scores[~was_cut], atol=1e-5, rtol=0)
    assert ((closed - scores).abs()[was_cut] > 1e-3).all()
    torch.testing.assert_close(same_after, after, atol=1e-5, rtol=0)
    for index in range(8):
        torch.testing.assert_close(same_values[index], values[index], atol=1e-5, rtol=0)


@pytest.mark.parametrize("learned", [True, False])
def test_cut_answers_are_closed_for_a_reward_model_that_never_saw_one(
    make: Maker, reward_model: Path, tmp_path: Path, learned: bool
) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(reward_model, folder)
    described = json.loads((folder / "reward.json").read_text(encoding="utf-8"))
    (folder / "reward.json").write_text(json.dumps(described | {"learned_from_cut": learned}), encoding="utf-8")
    trainer = make(scored_by=folder)
    for item in trainer.measure(PROMPTS, ANSWERS):
        for row, index in enumerate(item.batch.index):
            ids = item.batch.ids_BT[row][item.batch.is_token_BT[row]].tolist()
            assert ids == [*PROMPTS[index], *ANSWERS[index].ids, *([] if learned or ANSWERS[index].ended else [1])]


def test_before_learning_every_ratio_is_one_to_the_bit(make: Maker) -> None:
    trainer = make(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    measured = trainer.measure(PROMPTS, ANSWERS)
    for item in measured:
        with trainer.roles("policy"):
            head = likelihood.output_head(trainer.roles.model)
            again, _ = rollout.log_probs(trainer.roles, item.batch, head, temperature=1.0)  # this time with a graph
        assert torch.equal(again.detach(), item.old_BA)
    metrics = trainer._step(trainer.credit(measured), update=1)
    assert metrics["val/ratio"] == 1.0
    assert metrics["val/ratio_var"] == 0.0
    assert metrics["policy/approxkl_avg"] == 0.0
    assert metrics["policy/clipfrac_avg"] == 0.0


def test_an_answer_cut_off_pays_the_penalty_and_scores_are_clipped(make: Maker) -> None:
    free = make(score_clip=0.0, missing_eos_penalty=0.0).measure(PROMPTS, ANSWERS)
    held = make(score_clip=0.1, missing_eos_penalty=2.0).measure(PROMPTS, ANSWERS)
    beyond = 0
    for one, other in zip(free, held, strict=True):
        for index, score, changed in zip(one.batch.index, one.score_B.tolist(), other.score_B.tolist(), strict=True):
            beyond += abs(score) > 0.1
            wanted = max(-0.1, min(0.1, score)) - (0.0 if ANSWERS[index].ended else 2.0)
            assert changed == pytest.approx(wanted, abs=1e-6)
    assert beyond


def test_advantages_are_whitened_over_the_whole_rollout(make: Maker) -> None:
    trainer = make(per_device_train_batch_size=3)
    lessons = trainer.credit(trainer.measure(PROMPTS, ANSWERS))
    every = torch.cat([lesson.advantage_BA[lesson.measured.batch.is_answer_BA] for lesson in lessons]).double()
    assert len(every) == sum(len(answer.ids) for answer in ANSWERS)
    assert float(every.mean()) == pytest.approx(0, abs=1e-5)
    assert float(every.var(correction=0)) == pytest.approx(1, abs=1e-4)


def stepped(trainer: PPOTrainer, *, is_shared: bool = True) -> dict[str, torch.Tensor]:
    """Move the policy off the measured one, so that ratios matter, then take one step; return what it learned with."""
    measured: list[rollout.Measured] = [
        replace(item, old_BA=item.old_BA - 0.1 * item.batch.is_answer_BA) for item in trainer.measure(PROMPTS, ANSWERS)
    ]
    if not is_shared:
        measured = [replace(item, batch=replace(item.batch, lower_BTD=None)) for item in measured]
    gradients: dict[str, torch.Tensor] = {}
    trainer._update = lambda name, rate: gradients.update(  # type: ignore[method-assign]
        {f"{name} {n}": p.grad.clone() for n, p in enumerate(trainer.optimizers[name].param_groups[0]["params"])}
    )
    metrics = trainer._step(trainer.credit(measured), update=1)
    return gradients | {f"metric {name}": torch.tensor(number) for name, number in metrics.items()}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_by_one_equals_eight_at_once(make: Maker, checkpointing: bool) -> None:
    one = stepped(make(per_device_train_batch_size=1, gradient_accumulation_steps=8))
    eight = stepped(
        make(
            per_device_train_batch_size=8,
            gradient_accumulation_steps=1,
            gradient_checkpointing=checkpointing,
        )
    )
    assert set(one) == set(eight)
    for name, number in one.items():
        torch.testing.assert_close(
            eight[name], number, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name} {text}"
        )


def test_a_step_on_shared_lower_layers_is_the_step_on_all_of_them(make: Maker) -> None:
    shared, whole = stepped(make(layers=[1])), stepped(make(layers=[1]), is_shared=False)
    assert {name for name, number in shared.items() if not torch.equal(number, whole[name])} == set()


def test_lower_states_are_kept_only_where_there_are_layers_below(make: Maker) -> None:
    for layers, is_kept in (([1], True), (None, False)):
        measured = make(layers=layers).measure(PROMPTS, ANSWERS)
        assert all((item.batch.lower_BTD is not None) is is_kept for item in measured)


def test_learning_moves_policy_and_critic_and_nothing_else(make: Maker) -> None:
    trainer = make()
    before = {name: parameter.clone() for name, parameter in trainer.roles.model.named_parameters()}
    reward_head = [parameter.clone() for parameter in trainer.reward_head.parameters()]
    trainer.learn(trainer.credit(trainer.measure(PROMPTS, ANSWERS)), update=1)
    moved = {
        name for name, parameter in trainer.roles.model.named_parameters() if not torch.equal(parameter, before[name])
    }
    assert moved & set(trainer.roles.adapter("policy"))
    assert moved & set(trainer.roles.adapter("critic"))
    assert moved <= set(trainer.roles.adapter("policy")) | set(trainer.roles.adapter("critic"))
    assert all(torch.equal(*pair) for pair in zip(trainer.reward_head.parameters(), reward_head, strict=True))


def test_prompts_too_long_are_set_aside_and_counted(make: Maker) -> None:
    trainer = make(texts=["Short.", "Long " * 60], max_prompt_length=32)
    assert len(trainer.prompts) == 1
    assert [removal.rule for removal in trainer.prompts.removals] == ["too-long"]


def test_each_prompt_comes_once_before_any_comes_again(make: Maker) -> None:
    trainer = make(texts=[f"Number {n}." for n in range(12)])
    drawn = [tuple(ids) for update in (1, 2, 3) for ids in trainer.prompts_of(update)]
    assert len(set(drawn[:12])) == len(set(drawn[12:])) == 12
    assert drawn[:12] != drawn[12:]


def test_ppo_learns_to_write_what_is_paid_for(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bandit: answers of one token, one token is paid for; its share must rise well above where it began."""
    trainer = make(
        texts=["Choose."],
        total_episodes=32 * 12,
        per_device_train_batch_size=32,
        gradient_accumulation_steps=1,
        local_rollout_forward_batch_size=32,
        num_ppo_epochs=4,
        response_length=1,
        missing_eos_penalty=0.0,
        learning_rate=1e-2,
        critic_learning_rate=1e-2,
        kl_coef=0.01,
    )
    prompt = trainer.prompts.take(0, 1)[0]
    with torch.no_grad(), trainer.roles("policy"):
        begun = torch.softmax(trainer.roles.model(input_ids=torch.tensor([prompt])).logits[0, -1], dim=-1)
    paid = int(begun.argsort(descending=True)[2])

    def pay(roles: Any, batch: rollout.MicroBatch, head: Any) -> torch.Tensor:
        return (batch.answer_BA[:, 0] == paid).float()

    monkeypatch.setattr(rollout, "scores", pay)
    trainer.train()
    with torch.no_grad(), trainer.roles("policy"):
        ended = torch.softmax(trainer.roles.model(input_ids=torch.tensor([prompt])).logits[0, -1], dim=-1)
    assert float(begun[paid]) < 0.3
    assert float(ended[paid]) > 0.8


def test_micro_batches_hold_so_many_answers_and_so_many_tokens() -> None:
    lengths = [5, 3, 9, 3, 4, 20]
    assert grouped(lengths, size=2) == [[1, 3], [4, 0], [2, 5]]
    assert grouped(lengths, size=9, tokens=12) == [[1, 3, 4], [0], [2], [5]]  # 20 tokens have no room anywhere
    assert grouped(lengths, size=2, tokens=18) == [[1, 3], [4, 0], [2], [5]]
    assert grouped([], size=2, tokens=3) == []
