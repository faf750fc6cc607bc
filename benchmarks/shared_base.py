"""Compares forecast and measured memory of a base that two processes share, for an 8B Llama on two GPUs or one.

    python benchmarks/shared_base.py FOLDER [SHAPE]

On one GPU the processes communicate by gloo (tests/gpu/two_on_one_gpu.py). Memory and steps are then those of two GPUs,
but times are not. The model and the runs are written to FOLDER (8B: 17 GB).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

import sqlquarry as sq
from common import GIB, ROOT, SHAPES, argument_parser, make_base, torchrun, toy_records
from sqlquarry.training.job import TrainingJobSpec

TWO_ON_ONE_GPU = ROOT / "tests" / "gpu" / "two_on_one_gpu.py"


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shape", nargs="?", choices=SHAPES, default="8b")
    options = parser.parse_args()
    place: Path = options.folder
    base, records = make_base(options.shape, place / "base"), toy_records()[:192]
    train = place / "train.jsonl"
    sq.Records(records).to_jsonl(train)
    for held in (False, True):
        config = sq.TrainingConfig(
            num_train_epochs=1,
            max_length=1024,
            records_per_step=64,
            sharding="full",
            hold_dequantized=held,
            gradient_checkpointing=True,
            learning_rate=2e-4,
        )
        plan = sq.QLoRAFSDPTrainer(base, config=config).plan(records, processes=2, check=False)
        output, job = place / f"held-{held}", place / f"held-{held}.json"
        TrainingJobSpec(base_model=str(base), train=str(train), output_dir=str(output), config=config).write(job)
        program = ["-m", "sqlquarry.training"] if torch.cuda.device_count() > 1 else [str(TWO_ON_ONE_GPU)]
        subprocess.run([sys.executable, *torchrun(2, *program, str(job))], check=True)
        run = sq.AdapterCheckpoint.load(output).run
        whole = plan.shape.linear_parameters / 2 + 2 * (plan.shape.parameters - plan.shape.linear_parameters)
        found = {
            "held": held,
            "steps": run.steps,
            "loss": round(run.training_loss, 4),
            "forecast_gib": round(plan.memory.allocated / GIB, 2),
            "measured_gib": round((run.peak_memory_bytes or 0) / GIB, 2),
            "whole_base_gib": round(whole / GIB, 2),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
