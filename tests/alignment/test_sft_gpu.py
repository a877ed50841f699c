"""Fine-tuning on real GPUs: the head that learns, all weights in two precisions, and shards over two GPUs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from two_processes import ROOT, search_path

from finlm import aligned_head
from finlm.likelihood import token_log_probs

pytestmark = pytest.mark.gpu
needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")


@pytest.mark.parametrize("pieces", [3000, 3001])
@pytest.mark.parametrize("is_moved", [True, False])
def test_a_head_that_learns_has_float64s_gradient(pieces: int, is_moved: bool) -> None:
    """Of the same rounded numbers, by the fast path in two chunks and a part; rows of zeros change nothing."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(256, pieces, bias=False, dtype=torch.bfloat16)
    head.weight.data.copy_(torch.randn(pieces, 256, generator=generator) * 0.2)
    head = head.cuda()
    if is_moved:
        aligned_head.install(head)
    states = torch.randn(9000, 256, generator=generator).bfloat16().cuda().requires_grad_()
    tokens = torch.randint(0, pieces, (9000,), generator=generator).cuda()
    weights = torch.linspace(-1, 1, 9000, device="cuda")
    logp, _ = token_log_probs(states, tokens, head.weight)
    (logp * weights).sum().backward()
    ours = [states, head.weight]
    wide = [one.detach().double().requires_grad_() for one in ours]
    wanted = torch.log_softmax(wide[0] @ wide[1].T, dim=-1).gather(1, tokens[:, None]).squeeze(1)
    (wanted * weights.double()).sum().backward()
    torch.testing.assert_close(logp.double(), wanted, atol=1e-4, rtol=1e-5)
    for one, gold in zip(ours, wide, strict=True):
        assert one.grad is not None
        assert gold.grad is not None
        assert float((one.grad.double() - gold.grad).norm() / gold.grad.norm()) < 4e-3


@pytest.fixture(scope="module")
def base(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA whose heads are as wide as the kernels want, with an odd number of pieces."""
    folder = tmp_path_factory.mktemp("wide") / "base"
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer) | 1,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fine_tuned(base: Path, tiny: Any, runs: Path, *flags: str, cut: str = "") -> dict[str, Any]:
    """Run the command, over two GPUs if `cut` names accelerate's configuration; return its counts."""
    file = ROOT / "configs" / "accelerate" / f"{cut}.yaml"
    several = ["-m", "accelerate.commands.launch", "--config_file", str(file), "--num_processes", "2"] if cut else []
    given = {
        "model": base, "instructions_finance": f'["{tiny.instructions}"]', "text_finance": f'["{tiny.text}"]',
        "test_share": 0.3, "steps": 12, "batch_size": 8, "micro_batch": 2, "max_length": 128, "save_steps": 6,
        "learning_rate": 1e-3, "dtype": "bfloat16", "runs": runs, "trainer": '{"report_to": []}',
    }  # fmt: skip
    done = subprocess.run(
        [
            sys.executable,
            *several,
            str(ROOT / "alignment" / "sft.py"),
            *(f"--{k}={v}" for k, v in given.items()),
            *flags,
        ],
        env=os.environ | {"PYTHONPATH": search_path()},
        text=True,
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((runs / "sft" / "run.json").read_text(encoding="utf-8"))["counts"]
    assert (runs / "sft" / "model" / "model.safetensors").is_file()
    assert found["test_loss"] < found["test_loss_before"]
    return found


def test_all_weights_of_float32_compute_in_bfloat16_with_activations_kept_or_not(
    base: Path, tiny: Any, tmp_path: Path
) -> None:
    again = fine_tuned(base, tiny, tmp_path / "again", "--tune=full")
    kept = fine_tuned(base, tiny, tmp_path / "kept", "--tune=full", '--trainer={"gradient_checkpointing": false}')
    assert again["test_loss"] == pytest.approx(kept["test_loss"], rel=1e-2)


@needs_torchao
def test_eight_bits_learn_as_plain_adamw_does(base: Path, tiny: Any, tmp_path: Path) -> None:
    plain = fine_tuned(base, tiny, tmp_path / "plain", "--tune=full")
    small = fine_tuned(base, tiny, tmp_path / "small", "--tune=full", "--optimizer=adamw_8bit")
    assert small["test_loss"] == pytest.approx(plain["test_loss"], rel=5e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("cut", ["multi_gpu", "sft_fsdp2", pytest.param("sft_zero3", marks=needs_deepspeed)])
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_two_gpus_learn_what_one_does(base: Path, tiny: Any, tmp_path: Path, tune: str, cut: str) -> None:
    one = fine_tuned(base, tiny, tmp_path / "one", f"--tune={tune}")
    two = fine_tuned(base, tiny, tmp_path / "two", f"--tune={tune}", cut=cut)
    assert two["test_loss_before"] == pytest.approx(one["test_loss_before"], rel=1e-3)
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-2)
    same = ("rows", "drawn_tokens", "learned_tokens", "steps")
    assert [two[name] for name in same] == [one[name] for name in same]
