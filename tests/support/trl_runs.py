"""A small run with TRL, and a callback that looks at it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig

TABLES = ("users", "orders", "items", "films", "staff")
RECORDS = [
    Record(question=f"How many {table} above {n}?", schema=f"CREATE TABLE {table} (n INT)", sql=f"SELECT {n}")
    for n in range(2)
    for table in TABLES
]
TRAIN, HELD_OUT = RECORDS[:8], RECORDS[8:]
OPTIONS: dict[str, Any] = {
    "backend": "trl",
    "num_train_epochs": 2,
    "records_per_step": 4,
    "max_length": 256,
    "learning_rate": 3e-3,
    "lora_dropout": 0.1,
    "quantization": None,
    "device": "cpu",
    "save_steps": 2,
}


def run(base: Path, output: Path, *callbacks: Any, evaluation: Any = None, **changes: Any) -> AdapterCheckpoint:
    trainer = QLoRAFSDPTrainer(base, config=TrainingConfig(**OPTIONS | changes), callbacks=callbacks)
    return trainer.train(TRAIN, evaluation, output_dir=output)


class Seen(TrainerCallback):
    """Keep the numbers of the steps, send a signal in a step, and keep the batches, which changes the random state."""

    def __init__(self, *, signal_in_step: int | None = None, batches: bool = False) -> None:
        self.signal_in_step, self.keep_batches = signal_in_step, batches
        self.batches: list[Any] = []
        self.steps: list[int] = []

    def on_train_begin(self, *_: Any, train_dataloader: Any, **__: Any) -> None:
        if self.keep_batches:
            self.batches = list(train_dataloader)

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self.steps.append(state.global_step + 1)
        if state.global_step + 1 == self.signal_in_step:
            os.kill(os.getpid(), signal.SIGTERM)
