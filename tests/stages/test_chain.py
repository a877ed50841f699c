"""The stages hold together: what one writes the next reads, counts add up, and what is exported is what was trained."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny import TEST_SHARE, TOO_LONG, conversations
from transformers import AutoTokenizer

from finlm import chat_format, data, jsonl, model, runs, scorer
from finlm.evaluation import AnswerRecord
from finlm.records import Candidates, Conversation, PreferencePair, Prompt, Removal, RolloutRecord
from reward.judged import read_judged

CPU = torch.device("cpu")


def state(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_every_stage_is_finished_and_says_what_it_stands_on(chain) -> None:
    for name in ("sft", "candidates", "preferences", "reward", "prompts", "ppo", "evaluation"):
        found = state(chain.runs / name)
        assert found["status"] == "finished", name
        assert found["seconds"] > 0
        for source, path in found["inputs"].items():
            assert found["input_hashes"][source] == runs.fingerprint(chain.folder / path), (name, source)


def test_nothing_is_left_half_written(chain) -> None:
    assert list(chain.runs.rglob(".*")) == []
    assert [path.name for path in chain.folder.iterdir()] == ["runs"]


# ------------------------------------------------------------------------------------------------ SFT


def test_sft_counts_add_up(chain, tiny) -> None:
    counts = state(chain.runs / "sft")["counts"]
    removed = list(jsonl.read(chain.runs / "sft" / "rejected.jsonl", Removal))
    held_out = [c for c in conversations() if data.is_held_out(c, test_share=TEST_SHARE)]
    assert counts["rows"] == 4 * 8  # steps x batch size
    rules = Counter(removal.rule for removal in removed if "text-" not in removal.reason)
    assert rules == {"too-long": 1, "over-limit": len(held_out) - 8}
    assert counts["set_aside"] == len(removed)
    every = {c.id for c in jsonl.read(tiny.instructions, Conversation)}
    tested = counts["samples"]["instructions-finance"] + 8
    assert tested + sum(removal.record_id in every for removal in removed) == len(every)
    rounds = json.loads((chain.runs / "sft" / "mixture.json").read_text(encoding="utf-8"))
    assert rounds["rows"] == 32
    assert rounds["rounds"][0]["shares"] == {
        "text-general": 0.2, "text-finance": 0.0, "instructions-general": 0.0, "instructions-finance": 0.8,
    }  # fmt: skip


def test_sft_test_loss_is_that_of_base_and_adapter(chain, tiny) -> None:
    """Cross entropy of the held-out answers by torch alone, before and after."""
    counts = state(chain.runs / "sft")["counts"]
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    held_out = [c for c in conversations() if data.is_held_out(c, test_share=TEST_SHARE)]
    rows = [chat_format.encode(tokenizer, one.messages) for one in held_out]
    rows = [row for row in rows if len(row.ids) <= 128]
    chosen = [rows[place * len(rows) // 8] for place in range(8)]
    adapted = model.load_causal(tiny.base, dtype=torch.float32, device=CPU)
    for name, folder in (("test_loss_before", None), ("test_loss", chain.runs / "sft" / "adapter")):
        if folder is not None:
            adapted = PeftModel.from_pretrained(adapted, folder).eval()
        nats, tokens = 0.0, 0
        for row in chosen:
            with torch.inference_mode():
                logits = adapted(input_ids=torch.tensor([row.ids])).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[1:]), reduction="none")
            nats += losses[torch.tensor(row.is_answer[1:])].sum().item()
            tokens += sum(row.is_answer)
        assert counts[name] == pytest.approx(nats / tokens, abs=1e-4), name


def test_text_takes_its_share_of_tokens(chain) -> None:
    drawn = state(chain.runs / "sft")["counts"]["drawn_tokens"]
    # to within one sample, of 128 tokens at most, of some 4,000
    assert drawn["text-general"] / sum(drawn.values()) == pytest.approx(0.2, abs=128 / sum(drawn.values()))


def test_exported_model_is_base_plus_adapter(chain, tiny, tmp_path) -> None:
    """W + B A alpha / r by hand; the stage's own export is the same number rounded to bfloat16."""
    base = load_file(tiny.base / "model.safetensors")
    adapter = load_file(chain.runs / "sft" / "adapter" / "adapter_model.safetensors")
    exported = load_file(chain.runs / "sft" / "model" / "model.safetensors")
    model.export_merged(tiny.base, chain.runs / "sft" / "adapter", tmp_path / "merged", dtype=torch.float32)
    exact = load_file(tmp_path / "merged" / "model.safetensors")
    adapted = 0
    assert exact.keys() == base.keys() == exported.keys()
    for name, weight in base.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        expected = weight
        if f"{key}.lora_A.weight" in adapter:
            low, high = adapter[f"{key}.lora_A.weight"], adapter[f"{key}.lora_B.weight"]
            expected = weight + high @ low * (8 / 4)
            adapted += 1
            assert not torch.equal(expected, weight), f"{name} was not trained"
        assert (exact[name] - expected).abs().max() <= 1e-6, name
        assert exported[name].dtype == torch.bfloat16
        assert torch.equal(exported[name], exact[name].to(torch.bfloat16)), name
    assert adapted == 2 * 7  # two layers, seven linear maps each


# ------------------------------------------------------------------------------------------------ candidates, pairs


def test_candidates_hold_every_question_once_or_say_why_not(chain, tiny) -> None:
    asked = {
        c.messages[0].content
        for c in jsonl.read(tiny.instructions, Conversation)
        if c.form == "open-book" and c.kind == "figure"
    }
    answered = list(jsonl.read(chain.runs / "candidates.jsonl", Candidates))
    removed = list(jsonl.read(chain.runs / "candidates" / "rejected.jsonl", Removal))
    assert len(answered) == 24
    assert {item.prompt.messages[0].content for item in answered} < asked
    assert all(len(item.responses) == 3 for item in answered)
    assert len(answered) + len(removed) == len(asked)
    assert Counter(removal.rule for removal in removed) == {"too-long": 1, "over-limit": len(asked) - 24 - 1}
    counts = state(chain.runs / "candidates")["counts"]
    assert counts["ended"] == sum(response.ended for item in answered for response in item.responses)
    assert counts["prompts"] + counts["set_aside"] == len(asked)


def test_preferences_are_marked_as_made_by_rule_and_every_prompt_is_accounted_for(chain) -> None:
    pairs = list(jsonl.read(chain.runs / "preferences.jsonl", PreferencePair))
    without = list(jsonl.read(chain.runs / "preferences" / "rejected.jsonl", Removal))
    candidates = {item.id: item for item in jsonl.read(chain.runs / "candidates.jsonl", Candidates)}
    assert {pair.provenance.maker for pair in pairs} == {"rule:figures"}
    assert all(not pair.votes for pair in pairs)
    parents = {pair.provenance.parents[1] for pair in pairs}
    assert parents | {removal.record_id for removal in without} == set(candidates)
    assert not parents & {removal.record_id for removal in without}
    for pair in pairs:
        prompt_id, candidates_id = pair.provenance.parents
        assert candidates[candidates_id].prompt.id == prompt_id == pair.prompt.id
        sampled = {response.text for response in candidates[candidates_id].responses}
        assert pair.chosen in sampled | {pair.prompt.reference}


# ------------------------------------------------------------------------------------------------ reward model


def test_reward_counts_add_up(chain) -> None:
    counts = state(chain.runs / "reward")["counts"]
    pairs = list(jsonl.read(chain.runs / "preferences.jsonl", PreferencePair))
    test = [pair for pair in pairs if data.is_held_out(pair.prompt, test_share=TEST_SHARE)]
    assert counts["pairs"] + counts["set_aside"] + counts["test_pairs"] == len(pairs)
    assert 20 <= counts["test_pairs"] <= 24 < len(test)
    removed = list(jsonl.read(chain.runs / "reward" / "rejected.jsonl", Removal))
    assert Counter(removal.rule for removal in removed) == {"over-limit": len(test) - counts["test_pairs"]}


def test_reward_report_is_what_the_exported_scorer_says(chain) -> None:
    """Accuracy, margin, mean and deviation by another way than the stage's: text in, one answer at a time."""
    report = json.loads((chain.runs / "reward" / "report.json").read_text(encoding="utf-8"))
    judge = scorer.Scorer.load(chain.runs / "reward", dtype=torch.float32, device=CPU)
    tested = {record.pair_id for record in read_judged(chain.runs / "reward")}
    pairs = [pair for pair in jsonl.read(chain.runs / "preferences.jsonl", PreferencePair) if pair.id in tested]
    assert len(pairs) == report["test_pairs"]
    assert all(data.is_held_out(pair.prompt, test_share=TEST_SHARE) for pair in pairs)
    chosen, rejected = [], []
    for pair in pairs:
        chosen += judge.score([(pair.prompt.messages, pair.chosen, pair.chosen_ended)])
        rejected += judge.score([(pair.prompt.messages, pair.rejected, pair.rejected_ended)])
    right = sum(one > other for one, other in zip(chosen, rejected, strict=True)) / len(pairs)
    # an answer of several pairs is one answer
    every = {(p.prompt.id, p.chosen, p.chosen_ended): score for p, score in zip(pairs, chosen, strict=True)}
    every |= {(p.prompt.id, p.rejected, p.rejected_ended): score for p, score in zip(pairs, rejected, strict=True)}
    both = list(every.values())
    mean = sum(both) / len(both)
    assert report["test_accuracy"] == pytest.approx(right, abs=1e-9)
    assert report["margin"] == pytest.approx((sum(chosen) - sum(rejected)) / len(pairs), abs=1e-4)
    assert report["mean"] == pytest.approx(mean, abs=1e-4)
    deviation = (sum((one - mean) ** 2 for one in both) / (len(both) - 1)) ** 0.5
    assert report["std"] == pytest.approx(deviation, abs=1e-4)
    longer = sum(
        0.5 if one == other else float(one > other)
        for one, other in (
            (
                len(chat_format.encode_answer(judge.tokenizer, pair.chosen, ended=pair.chosen_ended)),
                len(chat_format.encode_answer(judge.tokenizer, pair.rejected, ended=pair.rejected_ended)),
            )
            for pair in pairs
        )
    )
    assert report["longer_accuracy"] == pytest.approx(longer / len(pairs), abs=1e-9)


def test_scores_are_normalised_on_the_models_own_ended_answers(chain) -> None:
    description = scorer.load_description(chain.runs / "reward")
    assert description.normalised_on == "24 ended answers of runs/candidates.jsonl"
    learned = [
        pair
        for pair in jsonl.read(chain.runs / "preferences.jsonl", PreferencePair)
        if not data.is_held_out(pair.prompt, test_share=TEST_SHARE)
    ]
    assert description.learned_from_cut is any(not (pair.chosen_ended and pair.rejected_ended) for pair in learned)
    judge = scorer.Scorer.load(chain.runs / "reward", dtype=torch.float32, device=CPU)
    answers = [
        (item.prompt.messages, response.text, True)
        for item in jsonl.read(chain.runs / "candidates.jsonl", Candidates)
        if not data.is_held_out(item.prompt, test_share=TEST_SHARE)
        for response in item.responses
        if response.ended
    ]
    scores = torch.tensor(judge.score(answers[:24]))
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert scores.std().item() == pytest.approx(1.0, abs=1e-3)


# ------------------------------------------------------------------------------------------------ prompts, PPO


def test_prompts_leave_out_held_out_companies_and_count_them(chain, tiny) -> None:
    prompts = list(jsonl.read(chain.runs / "prompts.jsonl", Prompt))
    removed = list(jsonl.read(chain.runs / "prompts" / "rejected.jsonl", Removal))
    counts = state(chain.runs / "prompts")["counts"]
    preferred = {p.prompt.id for p in jsonl.read(chain.runs / "preferences.jsonl", PreferencePair)}
    asked = {p.id for p in data.questions([tiny.instructions], forms=["open-book"], languages=["en"], kinds=["figure"])}
    new = {prompt.id for prompt in jsonl.read(tiny.new_prompts, Prompt)}
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert not any(data.is_held_out(prompt, test_share=TEST_SHARE) for prompt in prompts)
    assert counts["new"] == counts["from_preferences"] == len({prompt.id for prompt in prompts} & preferred)
    assert {prompt.id for prompt in prompts} | {removal.record_id for removal in removed} == preferred | asked | new
    assert len(prompts) + len(removed) == len(preferred | asked | new)


def test_ppo_logs_one_line_per_episode(chain) -> None:
    files = sorted((chain.runs / "ppo" / "rollouts").iterdir())
    assert [file.name for file in files] == [f"update-{update:05d}.jsonl" for update in (1, 2, 3)]
    known = {prompt.id for prompt in jsonl.read(chain.runs / "prompts.jsonl", Prompt)}
    for update, file in enumerate(files, 1):
        lines = list(jsonl.read(file, RolloutRecord))
        assert len(lines) == 8  # 4 answers x 2 forward passes x 1 mini-batch
        assert {line.update for line in lines} == {update}
        assert {line.prompt_id for line in lines} <= known
    counts = state(chain.runs / "ppo")["counts"]
    assert counts["prompts"] + counts["set_aside"] == len(known)
    assert counts["updates"] == 3


def test_ppo_begins_at_the_reference(chain) -> None:
    """Before the first step the policy's adapter is zero: no KL, and the score alone is the reward."""
    first = json.loads((chain.runs / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["objective/kl"] == 0.0
    assert first["objective/rlhf_reward"] == first["objective/scores"]
    lines = list(jsonl.read(chain.runs / "ppo" / "rollouts" / "update-00001.jsonl", RolloutRecord))
    assert {line.kl_nats for line in lines} == {0.0}


def test_ppo_scores_are_the_reward_models(chain) -> None:
    """A rollout's logged score, recomputed from its text with the exported reward model; none was cut off."""
    judge = scorer.Scorer.load(chain.runs / "reward", dtype=torch.float32, device=CPU)
    prompts = {prompt.id: prompt for prompt in jsonl.read(chain.runs / "prompts.jsonl", Prompt)}
    lines = list(jsonl.read(chain.runs / "ppo" / "rollouts" / "update-00001.jsonl", RolloutRecord))
    ended = [line for line in lines if line.ended]
    assert len(ended) >= 4
    scores = judge.score([(prompts[line.prompt_id].messages, line.response, True) for line in ended])
    for line, score in zip(ended, scores, strict=True):
        ids = chat_format.encode_answer(judge.tokenizer, line.response)
        if len(ids) == line.tokens:  # BPE need not encode its own text as it was sampled
            assert line.score == pytest.approx(max(-5.0, min(5.0, score)), abs=2e-3)


def test_policy_loads_and_differs_from_its_reference_by_its_adapter_alone(chain) -> None:
    policy, tokenizer = model.load_policy(chain.runs / "ppo", dtype=torch.float32, device=CPU)
    reference, _ = model.load_policy(chain.runs / "sft", dtype=torch.float32, device=CPU)
    ids = torch.tensor([chat_format.encode(tokenizer, conversations()[0].messages).ids])
    with torch.inference_mode():
        trained, frozen = policy(input_ids=ids).logits, reference(input_ids=ids).logits
        assert not torch.equal(trained, frozen)
        with policy.disable_adapter():
            assert torch.equal(policy(input_ids=ids).logits, frozen)


# ------------------------------------------------------------------------------------------------ evaluation


def test_evaluation_is_of_held_out_companies_and_recomputes_from_its_answers(chain, tiny) -> None:
    summary = json.loads((chain.runs / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    records = list(jsonl.read(chain.runs / "evaluation" / "answers.jsonl", AnswerRecord))
    held_out = {
        prompt.id
        for prompt in data.questions([tiny.instructions], forms=["open-book"], languages=["en"], kinds=["figure"])
        if data.is_held_out(prompt, test_share=TEST_SHARE)
    }
    removed = list(jsonl.read(chain.runs / "evaluation" / "rejected.jsonl", Removal))
    asked = {record.prompt_id for record in records}
    assert len(asked) == 8
    assert asked | {removal.record_id for removal in removed} == held_out
    assert len(asked) + len(removed) == len(held_out)
    by_model = {name: [record for record in records if record.model == name] for name in ("base", "sft", "ppo")}
    assert list(summary) == list(by_model)
    for name, answers in by_model.items():
        assert len(answers) == summary[name]["answers"] == 8
        assert [a.prompt_id for a in answers] == [b.prompt_id for b in by_model["sft"]]
        assert summary[name]["right"] == sum(a.is_right for a in answers) / 8
        assert summary[name]["ended"] == sum(a.ended for a in answers) / 8
        assert summary[name]["tokens"] == sum(a.tokens for a in answers) / 8
        assert summary[name]["reward"] == pytest.approx(sum(a.score for a in answers) / 8)
        if name == "sft":
            assert "win_rate" not in summary[name]
            continue
        beside = list(zip(answers, by_model["sft"], strict=True))
        assert summary[name]["win_rate"] == sum((a.score > b.score) + (a.score == b.score) / 2 for a, b in beside) / 8
        gain = summary[name]["reward_gain"]
        assert gain["mean"] == pytest.approx(sum(a.score - b.score for a, b in beside) / 8)
        assert gain["low"] <= gain["mean"] <= gain["high"]
        assert summary[name]["kl_nats"] == pytest.approx(sum(a.kl_nats for a in answers) / 8)


def test_too_long_questions_reach_no_model(chain) -> None:
    for path in [*chain.runs.glob("*.jsonl"), *chain.runs.rglob("rollouts/*.jsonl"), chain.runs / "evaluation"]:
        if path.is_file() and path.name != "prompts.jsonl":
            assert TOO_LONG not in path.read_text(encoding="utf-8"), path


# ------------------------------------------------------------------------------------------------ engines


def test_candidates_and_evaluation_take_another_engine(chain, warm, tiny, tmp_path) -> None:
    folder = chain.before("respond", tmp_path / "run")
    run = ("alignment.respond", "--config", tiny.settings("respond"))
    done = warm.run(*run, "--engine", "fast", cwd=folder)
    assert (done.returncode, "engine is 'fast'; it must be auto, generate, compiled or vllm." in done.stderr) == (
        2,
        True,
    )
    done = warm.run(*run, "--engine", "compiled", cwd=folder)
    assert done.returncode == 0, done.said
    ours, others = (list(jsonl.read(at / "candidates.jsonl", Candidates)) for at in (folder / "runs", chain.runs))
    assert [item.prompt.id for item in ours] == [item.prompt.id for item in others]
    assert all(len(item.responses) == 3 for item in ours)
    assert any(len({one.text for one in item.responses}) > 1 for item in ours)

    folder = chain.before("evaluate", tmp_path / "evaluated")
    greedy = ("finlm.evaluate", "--config", tiny.settings("evaluate"), "--temperature", "0")
    told = {}
    for name in ("generate", "compiled"):
        done = warm.run(*greedy, "--engine", name, "--output", f"runs/{name}", cwd=folder)
        assert done.returncode == 0, done.said
        answers = list(jsonl.read(folder / "runs" / name / "answers.jsonl", AnswerRecord))
        told[name] = [(answer.model, answer.text, answer.ended) for answer in answers]
    assert told["generate"] == told["compiled"]
