"""What a training run shows while it runs: a progress bar, and one JSON line per step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlquarry.training.packing import Row


def progress_callback(rows: Sequence[Row], log_file: Path) -> Any:
    """A transformers callback that draws a rich progress bar and appends to `log_file`.

    Defined inside a function because importing `TrainerCallback` costs four seconds.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from transformers import TrainerCallback

    class _Progress(TrainerCallback):  # type: ignore[misc]  # its types are not followed
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - its interface
            self.started = time.monotonic()
            tokens = sum(len(row.input_ids) for row in rows)
            self.tokens_per_step = tokens * args.num_train_epochs / max(1, state.max_steps)
            self.bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task("", total=state.max_steps)
            self.bar.start()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002 - its interface
            seconds = time.monotonic() - self.started
            entry = {"step": state.global_step, "seconds": round(seconds, 2), **(logs or {})}
            with log_file.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            loss = entry.get("loss", entry.get("eval_loss"))
            if loss is not None and not math.isfinite(loss):
                control.should_training_stop = True
            if "loss" in entry:
                rate = self.tokens_per_step * state.global_step / seconds
                self.bar.update(
                    self.task,
                    completed=state.global_step,
                    description=f"loss {entry['loss']:.3f}, {rate:,.0f} tokens/s",
                )

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - its interface
            self.bar.stop()

    return _Progress()
