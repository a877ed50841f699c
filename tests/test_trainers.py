"""What transformers makes of the configuration that the training stages share."""

from pathlib import Path

import pytest
from transformers import TrainingArguments

from finlm import trainers


def test_a_process_that_sees_several_gpus_trains_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the Trainer takes a batch for each GPU, wraps the model in DataParallel and cuts packed rows in pieces."""
    made = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=3)
    made._n_gpu = 4  # as four GPUs and no launcher leave it
    assert made.train_batch_size == 12
    trainers.on_its_gpu(made)
    assert (made.n_gpu, made.train_batch_size) == (1, 3)
    assert "1 of 4 GPUs is used; `accelerate launch --num_processes 4`" in " ".join(capsys.readouterr().err.split())
    trainers.on_its_gpu(made)
    assert capsys.readouterr().err == ""
