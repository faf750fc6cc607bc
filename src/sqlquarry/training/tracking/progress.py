"""Show a training run as a progress bar, and log each step as a JSON line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Self

from sqlquarry.files.metadata import parse_json
from sqlquarry.files.writing import write_atomically
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.training.tracking.log_entry import LogEntry
from sqlquarry.training.tracking.pace import PaceMeter


class StepLog:
    """Progress bar and log file of a run. Use it as a context manager and call it once per step.

    Args:
        path: the JSON Lines file. If a killed run has already logged steps that this run repeats, their lines are
            removed.
        steps: optimizer steps of the run.
        pace: computes speed, GPU utilization and memory from the entries.
        note: reason why the first step takes longer ("compiling"), shown until it is done.
    """

    def __init__(self, path: Path, steps: int, pace: PaceMeter, *, note: str = "") -> None:
        self._path, self._pace, self._fresh = path, pace, True
        self._bar = ProgressBar("training", steps, unit="step", note=note)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def __call__(self, entry: LogEntry) -> None:
        """Log one step and show it in the bar."""
        if self._fresh:
            self._drop_from(entry["step"])
            self._bar.resume(entry["step"] - 1)
            self._fresh = False
        pace = self._pace(entry)
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        speed = f", {pace}" if pace.tokens_per_second else ""
        self._bar.update(entry["step"], note=f"loss {entry['loss']:.3f}{speed}")

    def _drop_from(self, step: int) -> None:
        if self._path.exists():
            lines = self._path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and _step(line) < step]
            write_atomically(self._path, "".join(kept).encode())


def _step(line: str) -> float:
    """Return the step of a log line, or infinity if the line cannot be parsed."""
    try:
        return float(parse_json(line, "training_log.jsonl", lenient=True)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
