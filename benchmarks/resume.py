"""A run that is killed and resumed beside one that is not, and the plan beside what was measured.

    python benchmarks/resume.py FOLDER [BASE]      BASE: a directory or .gguf; without it a random 8B Llama is made

Trains with the trainer, kills a second run by SIGKILL half way, makes the same call again, and compares the adapters
bit for bit. FOLDER takes model and runs (8B: 17 GB).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import sqlquarry as sq
from scaling import make_base, toy_records


def main() -> None:
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:
        base, records = sys.argv[2], sq.sample_records("train")
        options: dict[str, Any] = {"num_train_epochs": 5, "save_steps": 40}
    else:
        base, records = str(make_base("8b", place / "base")), toy_records()
        options = {"num_train_epochs": 10, "max_length": 3072, "records_per_step": 48, "learning_rate": 2e-4}
        options["save_steps"] = 5
    trainer = sq.QLoRAFSDPTrainer(base, config=sq.TrainingConfig(**options))
    plan = trainer.plan(records)
    print(plan, f"\nchosen    hold_dequantized={plan.config.hold_dequantized}, recomputed layers: ", end="")
    print(plan.config.gradient_checkpointing, flush=True)

    started = time.monotonic()
    undisturbed = trainer.train(records, output_dir=place / "undisturbed")
    run = undisturbed.manifest.provenance["run"]
    print(f"\nundisturbed: {time.monotonic() - started:.1f} s with loading and compiling")
    print(plan.compare(run), flush=True)
    log = [json.loads(line) for line in (undisturbed.path / "training_log.jsonl").read_text().splitlines()]
    middle, last = log[len(log) // 2], log[-1]
    tokens = sum(entry["tokens"] for entry in log[len(log) // 2 + 1 :])
    print(f"steady: {tokens / (last['seconds'] - middle['seconds']):,.0f} tokens/s over the last half of the steps")

    killed = place / "killed"
    job = {"base_model": base, "train": str(place / "train.jsonl"), "output_dir": str(killed), "config": options}
    sq.Records(records).to_jsonl(place / "train.jsonl")
    (place / "job.json").write_text(json.dumps(job))
    process = subprocess.Popen([sys.executable, "-m", "sqlquarry.training", str(place / "job.json")])
    while _steps(killed) < len(log) // 2:
        if process.poll() is not None:
            sys.exit("the run ended before it was to be killed")
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = _steps(killed)
    resumed = trainer.train(records, output_dir=killed)
    ours, theirs = (load_file(run.path / "adapter_model.safetensors") for run in (undisturbed, resumed))
    equal = sum(bool((ours[name] == theirs[name]).all()) for name in ours)
    print(f"killed after step {done} of {len(log)}, resumed: {equal} of {len(ours)} tensors equal bit for bit")


def _steps(run: Path) -> int:
    log = run / "training_log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


if __name__ == "__main__":
    main()
