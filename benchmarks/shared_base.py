"""What a base takes that two processes share, forecast and measured: of an 8B Llama, on two GPUs or on one.

    python benchmarks/shared_base.py FOLDER [SHAPE]

On one GPU gloo carries what they send (tests/gpu/two_on_one_gpu.py): memory and steps are those of two GPUs, times are
not. FOLDER takes model and runs (8B: 17 GB).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import sqlquarry as sq
from scaling import make_base, toy_records
from sqlquarry.training.launch import TORCHRUN

TWO_ON_ONE_GPU = Path(__file__).resolve().parents[1] / "tests" / "gpu" / "two_on_one_gpu.py"
GIB = 2**30


def main() -> None:
    place = Path(sys.argv[1])
    base, records = make_base(sys.argv[2] if len(sys.argv) > 2 else "8b", place / "base"), toy_records()[:192]
    records_file = place / "train.jsonl"
    sq.Records(records).to_jsonl(records_file)
    for held in (False, True):
        options: dict[str, Any] = {"num_train_epochs": 1, "max_length": 1024, "records_per_step": 64}
        options |= {"sharding": "full", "hold_dequantized": held, "gradient_checkpointing": True, "learning_rate": 2e-4}
        plan = sq.QLoRAFSDPTrainer(base, config=sq.TrainingConfig(**options)).plan(records, processes=2, check=False)
        output = place / f"held-{held}"
        job = {"base_model": str(base), "train": str(records_file), "output_dir": str(output), "config": options}
        output.with_suffix(".json").write_text(json.dumps(job))
        program = ["-m", "sqlquarry.training"] if torch.cuda.device_count() > 1 else [str(TWO_ON_ONE_GPU)]
        job_file = str(output.with_suffix(".json"))
        subprocess.run([sys.executable, *TORCHRUN, "--nproc-per-node=2", *program, job_file], check=True)
        run = sq.AdapterCheckpoint.load(output).manifest.provenance["run"]
        whole = plan.shape.linear_parameters / 2 + 2 * (plan.shape.parameters - plan.shape.linear_parameters)
        found = {
            "held": held,
            "steps": run["steps"],
            "loss": round(run["training_loss"], 4),
            "forecast_gib": round(plan.memory.allocated / GIB, 2),
            "measured_gib": round(run["peak_memory_bytes"] / GIB, 2),
            "whole_base_gib": round(whole / GIB, 2),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
