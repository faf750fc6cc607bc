"""A small run for the tests of interruption and of several processes, and helpers to compare two runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest  # noqa: TC002 - tests do not use type-checking blocks
from safetensors.torch import load_file

from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.steps.schedule import Schedule

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


class KilledError(Exception):
    """Raised by `killed_in_step`."""


def in_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], object]) -> None:
    """Call `action` in the middle of a step (from 0), when its gradients are computed but the adapter is unchanged."""
    real = Schedule.rate

    def rate(self: Schedule, step: int) -> float:
        if step == number:
            action()
        return real(self, step)

    monkeypatch.setattr(Schedule, "rate", rate)


def killed_in_step(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Make training raise `KilledError` in the middle of a step (from 0)."""

    def kill() -> None:
        raise KilledError

    in_step(monkeypatch, number, kill)


def difference(one: Path, other: Path) -> float:
    """Return the largest difference between the weights of two adapters."""
    mine, theirs = (load_file(directory / "adapter_model.safetensors") for directory in (one, other))
    assert mine.keys() == theirs.keys()
    return max((mine[name] - theirs[name]).abs().max().item() for name in mine)


def log_of(directory: Path) -> list[dict[str, Any]]:
    """Return the log entries of a run, or none if it has not logged a step."""
    path = directory / "training_log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
