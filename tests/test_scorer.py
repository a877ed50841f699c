"""A reward model as files and as a number."""

import copy
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from finlm import chat_format, scorer
from finlm.errors import MissingInput, UserError
from finlm.model import load_causal
from finlm.records import Message
from finlm.tokenizer import load_tokenizer, tokenizer_fingerprint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny: Any) -> LlamaForCausalLM:
    model = load_causal(Path(tiny.base), dtype=torch.float32, device=CPU)
    assert isinstance(model, LlamaForCausalLM)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny.base)


@pytest.fixture(scope="module")
def made(base: LlamaForCausalLM) -> PeftModel:
    """An adapter with drawn weights."""
    model = get_peft_model(
        copy.deepcopy(base), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def weight() -> torch.Tensor:
    return torch.randn(48, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def folder(
    tiny: Any, made: PeftModel, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run's folder; the files lie in its `model`."""
    run = tmp_path_factory.mktemp("reward")
    out = run / "model"
    made.peft_config["default"].base_model_name_or_path = os.path.relpath(tiny.base, out)
    made.save_pretrained(out, save_embedding_layers=False)
    description = scorer.RewardDescription(
        mean=0.3, std=2.0, normalised_on="answers", tokenizer=tokenizer_fingerprint(tokenizer)
    )
    scorer.save_description(out, scorer.fold(weight(), mean=0.3, std=2.0), description)
    return run


def drawn_rows() -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(2, 400) for _ in range(rng.randrange(1, 30))] for _ in range(13)]


def test_scores_depend_on_neither_batches_nor_order(made: PeftModel) -> None:
    rows, head = drawn_rows(), scorer.fold(weight(), mean=0.0, std=1.0)
    alone = scorer.score_rows(made, head, rows, pad=0, batch_size=1)
    for batch_size in (4, 13):
        torch.testing.assert_close(
            scorer.score_rows(made, head, rows, pad=0, batch_size=batch_size), alone, atol=1e-5, rtol=0
        )
    backwards = scorer.score_rows(made, head, rows[::-1], pad=0, batch_size=5)
    torch.testing.assert_close(backwards.flip(0), alone, atol=1e-5, rtol=0)


def test_a_score_is_the_heads_reading_of_the_last_state(made: PeftModel) -> None:
    rows = drawn_rows()
    scores = scorer.score_rows(made, scorer.fold(weight(), mean=0.3, std=2.0), rows, pad=0, batch_size=4)
    for row, score in zip(rows, scores, strict=True):
        with torch.no_grad():
            states = made(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
        assert float(score) == pytest.approx((float(states[-1][0, -1] @ weight()) - 0.3) / 2.0, abs=1e-5)


def test_folding_normalises() -> None:
    hidden = torch.randn(5, 7, 48, generator=torch.Generator().manual_seed(1))
    got = scorer.fold(weight(), mean=-1.5, std=0.25)(hidden)
    torch.testing.assert_close(got, (hidden @ weight() + 1.5) / 0.25, atol=1e-4, rtol=1e-5)
    assert scorer.fold(weight(), mean=0, std=1)(hidden.bfloat16()).dtype == torch.float32


def test_a_spread_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        scorer.RewardDescription(mean=0.0, std=0.0, normalised_on="x", tokenizer="x")


def test_files_read_back_as_they_were_written(
    folder: Path, made: PeftModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    description = scorer.load_description(folder)
    assert (description.mean, description.std, description.normalised_on) == (0.3, 2.0, "answers")
    head = scorer.load_head(folder, width=48)
    torch.testing.assert_close(head.weight[0], weight() / 2)
    assert float(head.bias.detach()) == pytest.approx(-0.15)
    loaded = scorer.Scorer.load(folder, dtype=torch.float32, device=CPU)
    rows = drawn_rows()
    wanted = scorer.score_rows(made, scorer.fold(weight(), mean=0.3, std=2.0), rows, pad=0, batch_size=4)
    assert torch.equal(scorer.score_rows(loaded.model, loaded.head, rows, pad=0, batch_size=4), wanted)

    question = (Message(role="user", content="What was it?"),)
    got = loaded.score([(question, "It was 7.", True), (question, "It was 7.", False), (question, "", True)])
    prompt = list(chat_format.encode(tokenizer, question).ids)
    plain = [
        prompt + tokenizer(" It was 7.</s>")["input_ids"],
        prompt + tokenizer(" It was 7.")["input_ids"],
        prompt + tokenizer(" </s>")["input_ids"],
    ]
    assert got == pytest.approx(
        scorer.score_rows(loaded.model, loaded.head, plain, pad=0, batch_size=1).tolist(), abs=1e-5
    )


def test_a_model_that_never_saw_a_cut_answer_reads_it_as_if_it_ended(folder: Path, tmp_path: Path, tiny: Any) -> None:
    other = tmp_path / "model"
    shutil.copytree(folder / "model", other)
    adapter = json.loads((other / "adapter_config.json").read_text(encoding="utf-8"))
    adapter["base_model_name_or_path"] = os.path.relpath(tiny.base, other)
    (other / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    described = json.loads((other / "reward.json").read_text(encoding="utf-8"))
    assert described.pop("learned_from_cut")
    question = (Message(role="user", content="What was it?"),)
    for said, is_alike in (({}, False), ({"learned_from_cut": False}, True)):  # files of before do not say
        (other / "reward.json").write_text(json.dumps(described | said), encoding="utf-8")
        judge = scorer.Scorer.load(other, dtype=torch.float32, device=CPU)
        ended, cut = judge.score([(question, "It was 7.", True), (question, "It was 7.", False)])
        assert (ended == pytest.approx(cut, abs=1e-5)) is is_alike


def test_another_tokenizer_is_refused(folder: Path, tiny: Any) -> None:
    same, other = load_tokenizer(tiny.base), load_tokenizer(tiny.base)
    same.chat_template = "another template, the same vocabulary"
    scorer.check_same_tokenizer(folder, same)
    other.add_tokens([AddedToken("<new>")])
    with pytest.raises(UserError, match="trained with another vocabulary"):
        scorer.check_same_tokenizer(folder, other)


def test_a_folder_without_a_reward_model_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(MissingInput, match="holds no reward model"):
        scorer.Scorer.load(tmp_path, dtype=torch.float32, device=CPU)
    assert scorer.reward_folder(folder) == scorer.reward_folder(folder / "model") == folder / "model"


def test_an_adapter_of_another_shape_is_refused(folder: Path, base: LlamaForCausalLM) -> None:
    for change in ({"r": 8}, {"target_modules": ["q_proj"]}):
        config = LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **change})  # type: ignore[arg-type]
        model = PeftModel(copy.deepcopy(base), config, adapter_name="reward")
        with pytest.raises(UserError, match="does not fit this base"):
            scorer.load_adapter_weights(model, folder, "reward")
