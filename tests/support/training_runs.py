"""One small run that the tests of interruption and of several processes repeat, and how two runs differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(40)]
OPTIONS: dict[str, Any] = {
    "num_train_epochs": 2,
    "records_per_step": 8,
    "max_length": 320,
    "learning_rate": 3e-3,
    "lora_dropout": 0.1,
    "device": "cpu",
    "save_steps": 1,
}


def trainer(base: Path, **changes: Any) -> QLoRAFSDPTrainer:
    return QLoRAFSDPTrainer(base, config=TrainingConfig(**OPTIONS | changes))


def difference(one: Path, other: Path) -> float:
    mine, theirs = (load_file(directory / "adapter_model.safetensors") for directory in (one, other))
    assert mine.keys() == theirs.keys()
    return max((mine[name] - theirs[name]).abs().max().item() for name in mine)


def log_of(directory: Path) -> list[dict[str, Any]]:
    path = directory / "training_log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
