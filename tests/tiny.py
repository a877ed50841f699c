"""A whole loop small enough for tests: a LLaMA of two layers, its tokenizer, a corpus of invented companies, settings.

The model is trained for a moment on the corpus, so that it answers and ends its answers: what PPO and the reward model
do with it is then what they do with a real one.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finlm import chat_format, data, jsonl
from finlm.batches import IGNORE
from finlm.generation import pad_right
from finlm.records import ChoiceItem, Conversation, Message, Prompt, Provenance

COMPANIES = (
    "Alder", "Birchwood", "Cedarfield", "Dovecote", "Elmstead", "Fernhill", "Goldcrest", "Heronry", "Ivybank", "Jay",
)  # fmt: skip
TEST_SHARE = 0.3
"""Holds out some of the companies and trains on most; the fixture asserts it."""
TOO_LONG = "Cut the following list short."
"""Begins the one question that no stage's length limit lets pass."""


@dataclass(frozen=True, slots=True)
class Tiny:
    """Where everything lies; `settings(stage)` is a YAML file for the stage."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def instructions(self) -> Path:
        return self.folder / "instructions.jsonl"

    @property
    def text(self) -> Path:
        return self.folder / "text.txt"

    @property
    def new_prompts(self) -> Path:
        return self.folder / "new.jsonl"

    @property
    def choices(self) -> Path:
        return self.folder / "choices.jsonl"

    def settings(self, stage: str) -> Path:
        return self.folder / f"{stage}.yaml"


def figure(company: str, metric: str, year: int) -> str:
    """An amount that the three names decide, in millions with one decimal."""
    draw = random.Random(f"{company} {metric} {year}").randrange(1000, 9999)
    return f"${draw // 10}.{draw % 10} million"


def conversations() -> list[Conversation]:
    """Open-book and closed-book questions of every company, and one that is too long for all stages."""
    made = []
    for company in COMPANIES:
        for metric in ("Revenue", "Net income"):
            passage = (
                f"{company} Inc. {metric} was {figure(company, metric, 2024)} in fiscal 2024 and "
                f"{figure(company, metric, 2023)} in fiscal 2023."
            )
            for year in (2023, 2024):
                question = f"What was {company} Inc.'s {metric.lower()} in fiscal {year}?"
                answer = f"{metric} was {figure(company, metric, year)} in fiscal {year}."
                origin = Provenance(maker="rule:test", document_id="0" * 16, start=0, end=len(passage))
                for form, asked in (("open-book", f"{passage}\n\n{question}"), ("closed-book", question)):
                    made.append(
                        Conversation(
                            messages=(Message(role="user", content=asked), Message(role="assistant", content=answer)),
                            category="finance",
                            language="en",
                            kind="figure",
                            form=form,
                            group=f"{company} Inc.",
                            provenance=origin,
                        )
                    )
    long = f"{TOO_LONG}\n\n" + ", ".join(f"item {number}" for number in range(200))
    turns = (Message(role="user", content=long), Message(role="assistant", content="Item 1."))
    made.append(Conversation(messages=turns, language="en", kind="figure", form="open-book", group="Alder Inc."))
    return made


def paragraphs() -> list[str]:
    return [
        f"{company} Inc. sells to many customers. Its {word} grew in fiscal {2020 + number % 5}."
        for number, company in enumerate(COMPANIES)
        for word in ("revenue", "net income", "backlog")
    ]


def make_tokenizer(texts: list[str], folder: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE whose padding is not its end."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = chat_format.TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, rows: list[Conversation], folder: Path) -> LlamaForCausalLM:
    """A LLaMA in float32, trained for a hundred steps on the answers, drawn from a seed of its own."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    every = [chat_format.encode(tokenizer, row.messages) for row in rows]
    encoded = [row for row in every if len(row.ids) <= 160]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    rng = random.Random(0)
    for _ in range(100):
        batch = rng.sample(encoded, 16)
        ids_BT, is_token_BT = pad_right([row.ids for row in batch], tokenizer.pad_token_id, torch.device("cpu"))
        is_answer_BT, _ = pad_right([row.is_answer for row in batch], 0, torch.device("cpu"))
        labels_BT = ids_BT.where(is_answer_BT.bool(), IGNORE)
        loss = model(input_ids=ids_BT, attention_mask=is_token_BT.long(), labels=labels_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return model


def settings(tiny: Tiny) -> dict[str, dict[str, Any]]:
    """What each stage's YAML file says; paths of outputs are left at their defaults below the run root."""
    lora = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    instructions = [str(tiny.instructions)]
    asked = {"instructions": instructions, "languages": ["en"], "kinds": ["figure"]}
    sampled = {"temperature": 1.0, "max_new_tokens": 24, "max_prompt_length": 128, "dtype": "float32", "threads": 1}
    learned = {"micro_batch": 4, "max_length": 128, "test_share": TEST_SHARE, "dtype": "float32", "threads": 1}
    return {
        "sft": {
            **learned,
            "model": str(tiny.base),
            "instructions_finance": instructions,
            "text_general": [str(tiny.text)],
            "text_finance": [],
            "shares": {"text_general": 0.2, "text_finance": 0.0},
            "steps": 4,
            "batch_size": 8,
            "learning_rate": 3.0e-3,
            "held_out": {"samples": 8},
            "save_steps": 2,
            "lora": lora,
        },
        "respond": {**sampled, **asked, "limit": 24, "responses": 3, "batch_size": 24, "redraws": 0},
        "by_figures": {"sampled_pairs": 2, "altered_pairs": 2},
        "reward": {
            **learned,
            "steps": 4,
            "batch_size": 8,
            "learning_rate": 3.0e-3,
            "save_steps": 2,
            "test_pairs": 24,
            "normalise_on": 24,
            "lora": lora,
        },
        "prompts": {**asked, "new": [str(tiny.new_prompts)], "test_share": TEST_SHARE, "held_out": 6},
        "ppo": {
            "total_episodes": 24,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_ppo_epochs": 2,
            "local_rollout_forward_batch_size": 8,
            "response_length": 24,
            "max_prompt_length": 128,
            "learning_rate": 3.0e-3,
            "critic_learning_rate": 3.0e-3,
            "warmup_updates": 1,
            "save_steps": 1,
            "policy_steps": 1,
            "evaluation": {"every": 1, "batch_size": 8},
            "guards": {"kl_target": 0.0, "length_ratio": 100.0, "ended_fall": 0.99, "start_updates": 1},
            "dtype": "float32",
            "threads": 1,
            "lora": lora,
        },
        "evaluate": {
            **sampled,
            **asked,
            "models": {"base": str(tiny.base), "sft": "{runs}/sft", "ppo": "{runs}/ppo"},
            "choices": [str(tiny.choices)],
            "limit": 8,
            "test_share": TEST_SHARE,
            "batch_size": 8,
        },
    }


def make(folder: Path) -> Tiny:
    """Write everything below `folder`."""
    tiny = Tiny(folder)
    rows = conversations()
    jsonl.write(tiny.instructions, rows)
    tiny.text.write_text("\n\n".join(paragraphs()) + "\n", encoding="utf-8")
    jsonl.write(
        tiny.new_prompts,
        [
            Prompt(
                messages=(Message(role="user", content=f"What does {name} Inc. sell?"),), language="en", source="new"
            )
            for name in COMPANIES
        ],
    )
    items = [
        ChoiceItem(
            benchmark="tiny",
            subject="figures",
            question=f"What was {name} Inc.'s revenue in fiscal 2024?",
            choices=tuple(f"Revenue was {figure(name, 'Revenue', year)} in fiscal 2024." for year in (2023, 2024)),
            answer=1,
        )
        for name in COMPANIES
    ]
    jsonl.write(tiny.choices, items)
    texts = [message.content for row in rows for message in row.messages] + paragraphs()
    tokenizer = make_tokenizer([f" Human: {text} Assistant:" for text in texts], tiny.base)
    train = [row for row in rows if not data.is_held_out(row, test_share=TEST_SHARE)]
    groups = {row.group for row in rows}
    assert 2 <= len(groups - {row.group for row in train}) <= len(groups) // 2, "choose other names or another share"
    make_model(tokenizer, train, tiny.base)
    for stage, values in settings(tiny).items():
        tiny.settings(stage).write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return tiny
