"""TRL in two processes: FSDP2 takes the steps of one process, and accelerate's silent DDP is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sqlquarry import Records
from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ConfigError
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig, launch
from training_runs import RECORDS, difference, log_of

PROGRAM = Path(__file__).parents[2] / "support" / "trl_job.py"
OPTIONS: dict[str, Any] = {
    "backend": "trl",
    "num_train_epochs": 1,
    "records_per_step": 4,
    "max_length": 320,
    "learning_rate": 3e-3,
    "warmup_ratio": 0.0,
    "device": "cpu",
    "save_steps": 1,
}


def torchrun(job: dict[str, Any], folder: Path, *, steps: int = 0) -> str:
    """Run a job in two processes under FSDP2 and return its output. Kill it after a number of steps if it is not 0."""
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    command = [sys.executable, *launch.TORCHRUN, "--nproc-per-node=2", str(PROGRAM), str(path), str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": launch.LOOPBACK}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=200)
    assert (done.returncode != 0) == bool(steps), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("quantization", "sft_config", "tolerance"), [("nf4", {}, 1e-5), (None, {"bf16": True}, None)], ids=["nf4", "bf16"]
)
def test_two_processes_with_a_sharded_base_take_the_steps_of_one(
    tiny_llama: Path, tmp_path: Path, quantization: str | None, sft_config: dict[str, Any], tolerance: float | None
) -> None:
    options = OPTIONS | {"quantization": quantization, "sft_config": sft_config}
    one = QLoRAFSDPTrainer(tiny_llama, config=TrainingConfig(**options)).train(
        RECORDS[:8], RECORDS[8:10], output_dir=tmp_path / "one"
    )
    Records(RECORDS[:8]).to_jsonl(tmp_path / "train.jsonl")
    Records(RECORDS[8:10]).to_jsonl(tmp_path / "evaluation.jsonl")
    job = {"base_model": str(tiny_llama), "output_dir": str(tmp_path / "two"), "config": options}
    job |= {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "evaluation")}
    if tolerance:
        torchrun(job, tmp_path, steps=1)
        assert [entry["step"] for entry in log_of(tmp_path / "two")] == [1]
        (checkpoint,) = (tmp_path / "two" / ".checkpoints").glob("checkpoint-*")
        assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in checkpoint.iterdir()}
    torchrun(job, tmp_path)
    two = AdapterCheckpoint.load(tmp_path / "two")
    assert (two.run.processes, two.run.shard_group_size) == (2, 2)
    assert two.manifest.provenance["quantization"] == one.manifest.provenance["quantization"]
    losses = [[entry["loss"] for entry in log_of(run.path)] for run in (one, two)]
    # Losses that were rounded to bfloat16 would differ by up to 0.02.
    assert losses[1] == pytest.approx(losses[0], abs=tolerance or 1e-3)
    if tolerance:
        assert difference(one.path, two.path) < tolerance


@pytest.mark.parametrize("sharding", ["auto", "full"])
def test_ddp_instead_of_fsdp_is_named(
    tiny_llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], sharding: str
) -> None:
    trainer = QLoRAFSDPTrainer(tiny_llama, config=TrainingConfig(**OPTIONS, sharding=sharding))
    if sharding == "auto":
        adapter = trainer.train(RECORDS[:4], output_dir=tmp_path / "a", processes=2)
        assert (adapter.run.processes, adapter.run.shard_group_size) == (2, 1)
        assert "DDP" in capfd.readouterr().err
    else:
        with pytest.raises(ConfigError, match=r"DDP.*sharding"):
            trainer.train(RECORDS[:4], output_dir=tmp_path / "a", processes=2)
