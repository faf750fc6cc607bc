"""Compares a run that is killed and resumed with an undisturbed run, and a plan with the measurements.

    python benchmarks/resume.py FOLDER [BASE]      BASE: a directory or .gguf file (default: a random 8B Llama)

It trains once, kills a second run by SIGKILL halfway, repeats the same call, and compares the adapters bit for bit. The
model and the runs are written to FOLDER (8B: 17 GB).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

import sqlquarry as sq
from common import argument_parser, clock, make_base, read_jsonl, toy_records, wait_for_steps
from sqlquarry.training.job import TrainingJobSpec


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("base", nargs="?")
    options = parser.parse_args()
    place: Path = options.folder
    place.mkdir(parents=True, exist_ok=True)
    if options.base:
        base, records = options.base, [*sq.sample_records("train")]
        config = sq.TrainingConfig(num_train_epochs=5, save_steps=40)
    else:
        base, records = str(make_base("8b", place / "base")), toy_records()
        config = sq.TrainingConfig(
            num_train_epochs=10, max_length=3072, records_per_step=48, learning_rate=2e-4, save_steps=5
        )
    trainer = sq.QLoRAFSDPTrainer(base, config=config)
    plan = trainer.plan(records)
    print(plan, f"\nchosen    hold_dequantized={plan.config.hold_dequantized}, recomputed layers: ", end="")
    print(plan.config.gradient_checkpointing, flush=True)

    with clock() as took:
        undisturbed = trainer.train(records, output_dir=place / "undisturbed")
    print(f"\nundisturbed: {took.seconds:.1f} s with loading and compiling")
    print(plan.compare(undisturbed.run), flush=True)
    log = read_jsonl(undisturbed.path / "training_log.jsonl")
    middle, last = log[len(log) // 2], log[-1]
    tokens = sum(entry["tokens"] for entry in log[len(log) // 2 + 1 :])
    print(f"steady: {tokens / (last['seconds'] - middle['seconds']):,.0f} tokens/s over the last half of the steps")

    killed, train, job = place / "killed", place / "train.jsonl", place / "job.json"
    sq.Records(records).to_jsonl(train)
    TrainingJobSpec(base_model=base, train=str(train), output_dir=str(killed), config=config).write(job)
    process = subprocess.Popen([sys.executable, "-m", "sqlquarry.training", str(job)])
    wait_for_steps(killed, len(log) // 2, lambda: process.poll() is None)
    process.kill()
    process.wait()
    done = len((killed / "training_log.jsonl").read_text(encoding="utf-8").splitlines())
    resumed = trainer.train(records, output_dir=killed)
    ours, theirs = (load_file(run.path / "adapter_model.safetensors") for run in (undisturbed, resumed))
    equal = sum(bool((ours[name] == theirs[name]).all()) for name in ours)
    print(f"killed after step {done} of {len(log)}, resumed: {equal} of {len(ours)} tensors equal bit for bit")


if __name__ == "__main__":
    main()
