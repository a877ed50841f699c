"""Bad input ends with one sentence that names the thing and the way out, exit code 2, and nothing made."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from chain import STAGES, Chain
from pypdf import PdfWriter
from safetensors.torch import load_file, save_file
from tiny import Tiny
from transformers import LlamaConfig, LlamaForCausalLM
from warm import Done, Warm

from finlm import jsonl, model, runs
from finlm.errors import UserError
from finlm.records import Removal


def refused(done: Done, *words: str) -> None:
    """Exit code 2 and a last line `error: …` with these words; before it only progress, and never a traceback."""
    assert done.returncode == 2, done.said
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), done.stderr
    assert last.endswith((".", ")", "filings/", ".py")), last
    for word in words:
        assert word in last, last
    assert "Traceback" not in done.said


def made(folder: Path) -> list[str]:
    """Files below a folder, but for what a run writes before it begins, and encoded files, each of which is whole."""
    preparing = {"run.json", "config.yaml", "rejected.jsonl", "lock"}
    cached = [path for path in folder.glob("runs/cache/tokens/*") if path.is_dir()]
    assert [runs.damage(one) for one in cached] == [None] * len(cached)
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in preparing]
    return sorted(path.relative_to(folder).as_posix() for path in found if not {*path.parents} & {*cached})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


# ------------------------------------------------------------------------------------------------ a corpus

GOOD = "Acme Ltd\n\nRevenue was $412.6 million in fiscal 2024, compared with $384.2 million in fiscal 2023.\n"


def unreadable_files(corpus: Path) -> None:
    corpus.mkdir()
    (corpus / "broken.pdf").write_text("%PDF-1.4 and no more", encoding="utf-8")
    locked = PdfWriter()
    locked.add_blank_page(200, 200)
    locked.encrypt("secret", algorithm="RC4-128")
    locked.write(corpus / "locked.pdf")
    (corpus / "latin.txt").write_bytes(b"\xbe\xff\xfe\x00caf\xe9 \xff")


def test_missing_and_empty_corpus(warm: Warm, folder: Path) -> None:
    refused(warm.run("selfqa.generate", "--corpus", "nowhere", cwd=folder), "--corpus nowhere", "no such folder")
    (folder / "filings").mkdir()
    (folder / "filings" / "notes.xyz").write_text("", encoding="utf-8")
    refused(warm.run("selfqa.generate", "--corpus", "filings", cwd=folder), "--corpus filings", ".html", ".pdf")
    refused(warm.run("selfqa.generate", cwd=folder), "corpus")
    assert made(folder) == ["filings/notes.xyz"]


def test_corpus_of_files_that_cannot_be_read(warm: Warm, folder: Path) -> None:
    unreadable_files(folder / "filings")
    done = warm.run("selfqa.generate", "--corpus", "filings", cwd=folder)
    refused(done, "none of its 3 files", "broken.pdf", "latin.txt", "UTF-8", "locked.pdf", "password")
    kept = "runs/parsed/"  # what became of a file is remembered too
    assert [path for path in made(folder) if not path.startswith(kept)] == [
        "filings/broken.pdf",
        "filings/latin.txt",
        "filings/locked.pdf",
    ]


def test_one_good_file_among_them_goes_on_and_the_others_are_counted(warm: Warm, folder: Path) -> None:
    unreadable_files(folder / "filings")
    (folder / "filings" / "acme.txt").write_text(GOOD, encoding="utf-8")
    done = warm.run("selfqa.generate", "--corpus", "filings", cwd=folder)
    assert done.returncode == 0, done.said
    summary = json.loads((folder / "runs" / "selfqa" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["files"], summary["files_unread"], summary["documents"]) == (4, 3, 1)
    for name in ("broken.pdf", "latin.txt", "locked.pdf"):
        assert name in done.said


# ------------------------------------------------------------------------------------------------ records and text


def test_rows_that_cannot_be_trained_on_are_set_aside_with_file_and_line(tiny: Tiny, warm: Warm, folder: Path) -> None:
    lines = tiny.instructions.read_bytes().splitlines(keepends=True)
    bad = [
        lines[2][:40] + b"\n",
        b'{"messages": []}\n',
        b'{"instruction": "Say.", "input": "", "output": " "}\n',
        b'{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}\n',
        '{"messages": "净利润"}\n'.encode("gb18030"),
        b'{"question": " ", "answer": "a"}\n',
        b'{"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]}\n',
        b'{"instruction": "Say."}\n',
        json.dumps({"prompt": "Count.", "response": "one two " * 200}).encode() + b"\n",
        b'["Say.", "a"]\n',
    ]
    (folder / "bad.jsonl").write_bytes(b"".join([*bad, *lines]))
    flags = ("--instructions_finance", '["bad.jsonl"]', "--steps", "1", "--save_steps", "1")
    done = warm.run("alignment.sft", "--config", tiny.settings("sft"), *flags, cwd=folder)
    assert done.returncode == 0, done.said
    removals = jsonl.read(folder / "runs" / "sft" / "rejected.jsonl", Removal)
    found = {removal.reason.partition(": ")[0]: removal.rule for removal in removals if "bad.jsonl" in removal.reason}
    line = len(bad) + len(lines)  # the tiny corpus ends with a conversation that is too long
    assert found == {
        "bad.jsonl:1": "not-json",
        "bad.jsonl:2": "empty",
        "bad.jsonl:3": "no-answer",
        "bad.jsonl:4": "roles",
        "bad.jsonl:5": "not-utf8",
        "bad.jsonl:6": "empty",
        "bad.jsonl:7": "roles",
        "bad.jsonl:8": "no-answer",
        "bad.jsonl:9": "too-long",
        "bad.jsonl:10": "unknown-format",
        f"bad.jsonl:{line}": "too-long",
    }
    # none of them was cut to fit: the others alone are encoded
    notes = "".join(path.read_text(encoding="utf-8") for path in (folder / "runs").rglob("notes.jsonl"))
    assert notes.count("bad.jsonl:") == len(lines) - 1


def test_text_that_is_not_utf8(tiny: Tiny, warm: Warm, folder: Path) -> None:
    (folder / "a.txt").write_bytes("净利润".encode("gb18030"))
    done = warm.run("alignment.sft", "--config", tiny.settings("sft"), "--text_general", '["a.txt"]', cwd=folder)
    refused(done, "a.txt: not UTF-8 at byte 0", "convert the file")
    done = warm.run("alignment.sft", "--config", tiny.settings("sft"), "--text_general", '["b.txt"]', cwd=folder)
    refused(done, "Training data not found at b.txt")
    assert made(folder) == ["a.txt"]


def test_instructions_in_other_encodings_or_without_rows(tiny: Tiny, warm: Warm, folder: Path) -> None:
    said = '{"question": "净利润？", "answer": "十亿。"}\n'
    (folder / "gb.jsonl").write_bytes(said.encode("gb18030"))
    (folder / "wide.jsonl").write_bytes(said.encode("utf-16"))
    (folder / "none.jsonl").write_bytes(b"\n\n")
    for name, words in (
        ("gb.jsonl", ("gb.jsonl:1: not UTF-8 at byte", "iconv -f GB18030 -t UTF-8")),
        ("wide.jsonl", ("wide.jsonl is UTF-16 or UTF-32", "iconv -f UTF-16 -t UTF-8")),
        ("none.jsonl", ("none.jsonl has no rows", "give a file with")),
    ):
        files = ("--instructions_finance", json.dumps([str(tiny.instructions), name]))
        refused(warm.run("alignment.sft", "--config", tiny.settings("sft"), *files, cwd=folder), *words)
    assert made(folder) == ["gb.jsonl", "none.jsonl", "wide.jsonl"]


@pytest.mark.parametrize("stream", ["instructions_finance", "text_general", "instructions_general"])
def test_a_file_that_changes_between_two_starts_is_refused(
    chain: Chain, tiny: Tiny, warm: Warm, folder: Path, stream: str
) -> None:
    """General instructions have no share here: they are tested on alone, and must not change either."""
    files = {"instructions_finance": tiny.instructions, "text_general": tiny.text, "instructions_general": None}
    (folder / "other.jsonl").write_text('{"question": "One?", "answer": "1."}\n', encoding="utf-8")
    path = folder / "copy" / (files[stream] or folder / "other.jsonl").name
    path.parent.mkdir()
    shutil.copy2(files[stream] or folder / "other.jsonl", path)
    run = ("alignment.sft", "--config", tiny.settings("sft"), f"--{stream}", json.dumps([str(path)]))
    names = list(chain.done["sft"].operations)
    whole = [number for number, name in enumerate(names, 1) if name == "optimizer step"][2]
    assert warm.run(*run, cwd=folder, kill_at=whole).was_killed
    checkpoints = sorted((folder / "runs" / "sft" / "checkpoints").iterdir())
    assert checkpoints
    before = path.read_bytes()
    path.write_bytes(before + before.splitlines(keepends=True)[0])
    refused(warm.run(*run, cwd=folder), f"was begun with another {path}", "has changed since", "--overwrite true")
    assert sorted((folder / "runs" / "sft" / "checkpoints").iterdir()) == checkpoints
    path.write_bytes(before)
    assert warm.run(*run, cwd=folder).returncode == 0


def test_shares_that_are_no_whole_are_refused(tiny: Tiny, warm: Warm, folder: Path) -> None:
    for flags, words in (
        (("--shares.text_general", "0.3"), ("the shares of the streams sum to 1.1000, not 1", "text-general 0.3")),
        (("--shares.text_general", "-0.2"), ("the share of text-general is -0.2", "0 or more")),
        (("--text_general", "[]"), ("text-general has a share of 0.2 and no files", "set its share to 0")),
    ):
        refused(warm.run("alignment.sft", "--config", tiny.settings("sft"), *flags, cwd=folder), *words)
    assert made(folder) == []


def test_preferences_and_candidates_with_nothing_to_use(chain: Chain, tiny: Tiny, warm: Warm, tmp_path: Path) -> None:
    folder = chain.before("reward", tmp_path / "run")
    (folder / "empty.jsonl").write_text("", encoding="utf-8")
    empty = ("--preferences", "empty.jsonl")
    refused(
        warm.run("reward.train", "--config", tiny.settings("reward"), *empty, cwd=folder),
        "empty.jsonl holds no pair to train on",
    )
    refused(
        warm.run("finlm.prompts", "--config", tiny.settings("prompts"), *empty, "--kinds", '["list"]', cwd=folder),
        "empty.jsonl gives no prompt",
    )
    candidates = folder / "runs" / "candidates.jsonl"
    candidates.write_text(
        re.sub(r'"reference":"[^"]*"', '"reference":""', candidates.read_text(encoding="utf-8")), encoding="utf-8"
    )
    (folder / "runs" / "preferences.jsonl").unlink()
    done = warm.run("annotation.by_figures", "--overwrite", "true", cwd=folder)
    refused(done, "runs/candidates.jsonl gave no pair", "none of its 24 prompts has a reference answer")


def test_limits_that_leave_nothing(chain: Chain, tiny: Tiny, warm: Warm, tmp_path: Path) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    before = made(folder)
    for stage, flags, words in (
        ("sft", ("--max_length", "8"), ("instructions-finance has a share of 0.8", "81 too-long", "raise max_length")),
        ("sft", ("--forms", '["dialogue"]'), ("no samples to train on", "81 other-form", "change forms")),
        ("sft", ("--test_share", "1"), ("no samples to train on", "held-out", "lower test_share")),
        ("respond", ("--max_prompt_length", "8"), ("at most 8 tokens", "change these settings")),
        ("respond", ("--languages", '["zh"]'), ("a language in ['zh']", "change these settings")),
        ("ppo", ("--max_prompt_length", "8"), ("None of 32 prompts has at most 8 tokens", "raise max_prompt_length")),
        ("evaluate", ("--test_share", "0"), ("No held-out prompt", "raise test_share")),
    ):
        models = ("--models", json.dumps({"sft": "runs/sft"})) if stage == "evaluate" else ()
        output = "--output_dir" if stage == "ppo" else "--output"
        done = warm.run(
            STAGES[stage], "--config", tiny.settings(stage), *flags, *models, output, f"other/{stage}", cwd=folder
        )
        refused(done, *words)
    assert [name for name in made(folder) if not name.startswith("other/")] == before
    assert made(folder / "other") == []


# ------------------------------------------------------------------------------------------------ settings


def test_settings_that_are_wrong(tiny: Tiny, warm: Warm, folder: Path) -> None:
    typo = folder / "typo.yaml"
    given = yaml.safe_load(tiny.settings("ppo").read_text(encoding="utf-8"))
    for change, words in (
        ({"learning_rat": 1e-5}, ("Unknown setting 'learning_rat'", "'learning_rate'")),
        ({"save_steps": "often"}, ("Setting 'save_steps' is 'often'", "an integer")),
        ({"save_steps": 0}, ("save_steps is 0; it must be 1 or more",)),
        ({"kl_estimator": "k4"}, ("kl_estimator is 'k4'; it must be k1, k2 or k3",)),
        ({"temperature": 0.0}, ("temperature is 0.0", "above 0")),
    ):
        typo.write_text(yaml.safe_dump(given | change), encoding="utf-8")
        refused(warm.run("alignment.ppo", "--config", typo, cwd=folder), *words)
    refused(warm.run("alignment.ppo", "--config", "ppo_7b", cwd=folder), "--config ppo_7b", "ppo_6b")
    assert made(folder) == ["typo.yaml"]


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_sections_of_libraries_that_are_wrong(chain: Chain, tiny: Tiny, warm: Warm, tmp_path: Path, stage: str) -> None:
    folder = chain.before(stage, tmp_path / "run")
    run = (STAGES[stage], "--config", tiny.settings(stage))
    refused(warm.run(*run, "--lora.rank", "4", cwd=folder), "'lora.rank': LoraConfig has no such field")
    refused(warm.run(*run, "--lora.task_type", "CAUSAL_LM", cwd=folder), "'lora.task_type' is set by this project")
    if stage != "ppo":
        refused(warm.run(*run, "--trainer", "{bf17: true}", cwd=folder), "'trainer.bf17'", "'bf16'")
        refused(warm.run(*run, "--batch_size", "9", cwd=folder), "batch_size 9 must be a multiple of micro_batch 4")
    # what was refused binds no one: the right settings begin in the same folder
    assert warm.run(*run, cwd=folder).returncode == 0


# ------------------------------------------------------------------------------------------------ models


def rewrite(file: Path, change: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")


def other_vocabulary(base: Path) -> None:
    smaller = LlamaForCausalLM.from_pretrained(base)
    smaller.resize_token_embeddings(400)
    smaller.save_pretrained(base)


def pad_is_end(base: Path) -> None:
    rewrite(base / "tokenizer_config.json", {"pad_token": "</s>"})


def no_end(base: Path) -> None:
    rewrite(base / "tokenizer_config.json", {"eos_token": None})


def other_architecture(base: Path) -> None:
    rewrite(base / "config.json", {"model_type": "gpt2"})


def truncated(base: Path) -> None:
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def weight_missing(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


def weight_of_another_shape(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


MODELS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (other_vocabulary, ("has 400 embedding rows", "ids up to 479", "take both from one folder")),
    (pad_is_end, ("uses '</s>' (id 1) both as padding and as end of sequence", "set another pad_token")),
    (no_end, ("has no end token; set eos_token in its tokenizer_config.json",)),
    (other_architecture, ("is a model of type 'gpt2'; only 'llama' models are known",)),
    (truncated, ("the model cannot be loaded (SafetensorError", "copy its folder again")),
    (weight_missing, ("1 weights are missing (model.layers.1.mlp.down_proj.weight", "copy the model folder again")),
    (weight_of_another_shape, ("the model cannot be loaded (RuntimeError", "copy its folder again")),
    (lambda base: (base / "model.safetensors").unlink(), ("holds no model (config.json and *.safetensors)",)),
    (lambda base: (base / "config.json").unlink(), ("holds neither a model", "nor an adapter")),
    (lambda base: (base / "config.json").write_text("{"), ("cannot be loaded", "not a valid JSON file")),
    (lambda base: (base / "tokenizer.json").write_text("{"), ("the tokenizer cannot be loaded", "copy the folder")),
    (lambda base: (base / "tokenizer_config.json").unlink(), ("holds no tokenizer (tokenizer_config.json)",)),
]


@pytest.mark.filterwarnings("ignore")  # what transformers says while a model is made smaller
@pytest.mark.parametrize(("harm", "words"), MODELS, ids=[harm.__name__ + str(i) for i, (harm, _) in enumerate(MODELS)])
def test_model_that_cannot_be_used(
    tiny: Tiny, warm: Warm, folder: Path, harm: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    base = folder / "model"
    shutil.copytree(tiny.base, base)
    harm(base)
    before = made(folder)
    done = warm.run("alignment.respond", "--config", tiny.settings("respond"), "--model", base, cwd=folder)
    refused(done, str(base), *words)
    if (base / "config.json").is_file():
        done = warm.run("alignment.sft", "--config", tiny.settings("sft"), "--model", base, cwd=folder)
        refused(done, str(base), *words)
    assert made(folder) == before


def test_reward_model_of_another_tokenizer_or_another_base(
    chain: Chain, tiny: Tiny, warm: Warm, tmp_path: Path
) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    description = folder / "runs" / "reward" / "model" / "reward.json"
    right = description.read_text(encoding="utf-8")
    rewrite(description, {"tokenizer": "0" * 16})
    words = ("runs/reward", "was trained with another vocabulary (fingerprint 0000000000000000", "reward/train.py")
    refused(warm.run("alignment.ppo", "--config", tiny.settings("ppo"), cwd=folder), *words)
    models = ("--models", '{"sft": "runs/sft"}')
    refused(warm.run("finlm.evaluate", "--config", tiny.settings("evaluate"), *models, cwd=folder), *words)
    description.write_text(right, encoding="utf-8")

    same_shape = folder / "other"
    shutil.copytree(tiny.base, same_shape)
    other = LlamaForCausalLM.from_pretrained(same_shape)
    other.lm_head.weight.data.add_(0.01)
    other.save_pretrained(same_shape)
    done = warm.run("alignment.ppo", "--config", tiny.settings("ppo"), "--model", same_shape, cwd=folder)
    refused(done, "was trained on another base than", "other", "reward/train.py --model")

    rewrite(description, {"base": ""})  # as an older version wrote it: the shape alone decides
    base = folder / "narrow"
    shutil.copytree(tiny.base, base)
    shape = LlamaConfig.from_pretrained(base)
    shape.hidden_size, shape.num_hidden_layers = 32, 1
    LlamaForCausalLM(shape).save_pretrained(base)
    done = warm.run("alignment.ppo", "--config", tiny.settings("ppo"), "--model", base, cwd=folder)
    refused(done, "reads states 48 wide, those of its base are 32 wide")
    assert not (folder / "runs" / "ppo" / "checkpoints").exists()


def test_reward_model_that_is_not_whole(chain: Chain, tiny: Tiny, warm: Warm, tmp_path: Path) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    (folder / "runs" / "reward" / "model" / "head.safetensors").unlink()
    done = warm.run("alignment.ppo", "--config", tiny.settings("ppo"), cwd=folder)
    refused(done, "holds no reward model (head.safetensors is missing); make one: python reward/train.py")


def test_policy_without_its_base(chain: Chain, tiny: Tiny, warm: Warm, tmp_path: Path) -> None:
    folder = chain.before("evaluate", tmp_path / "run")
    shutil.rmtree(folder / "runs" / "sft")
    done = warm.run(
        "alignment.respond", "--config", tiny.settings("respond"), "--model", "runs/ppo", "--output", "a.jsonl",
        cwd=folder,
    )  # fmt: skip
    refused(done, "runs/sft/model")
    assert not (folder / "a.jsonl").exists()


# ------------------------------------------------------------------------------------------------ memory and disk


def test_too_little_memory_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    class Little:
        available = 100_000

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    with pytest.raises(
        UserError, match=r"base needs 0\.0 GB of memory on cpu as torch\.float32, 0\.0 GB are free; close"
    ):
        model.load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu"))


def test_too_little_disk_is_named_before_anything_is_made(
    chain: Chain, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignment.ppo import PPOSettings
    from alignment.ppo import main as ppo
    from alignment.sft import SFTSettings
    from alignment.sft import main as sft
    from finlm import config
    from reward.train import RewardSettings
    from reward.train import main as reward

    folder = chain.before("ppo", tmp_path / "run")
    monkeypatch.chdir(folder)
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda path: usage._replace(free=100_000_000))
    for main, settings, stage, output in (
        (sft, SFTSettings, "sft", "--output"),
        (reward, RewardSettings, "reward", "--output"),
        (ppo, PPOSettings, "ppo", "--output_dir"),
    ):
        given = config.parse(settings, "", ["--config", str(tiny.settings(stage)), output, "there"])
        with pytest.raises(UserError, match=r"there: 0\.1 GB of disk are free, this stage writes up to .* GB; free"):
            main(given)
        assert made(folder / "there") == []
        shutil.rmtree(folder / "there")
