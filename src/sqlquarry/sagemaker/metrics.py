"""The log line of each step. The container writes it, and CloudWatch metrics and the launcher's progress read it."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import MetricDefinitionTypeDef

_NUMBER = r"([0-9.eE+-]+)"
_SHOWN = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_s", "eta_s")
# SageMaker matches each pattern against every line and makes a CloudWatch metric from the first group.
_PATTERNS = {"step": r"\bstep=(\d+)/"} | {name: rf"\b{name}={_NUMBER}" for name in _SHOWN}
METRIC_DEFINITIONS: list[MetricDefinitionTypeDef] = [
    {"Name": name, "Regex": pattern} for name, pattern in _PATTERNS.items()
]
_LINE = re.compile(r"\bstep=(?P<step>\d+)/(?P<steps>\d+|\?) (?P<rest>.*)")
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run.

    Args:
        step: number of finished optimizer steps.
        steps: total number of optimizer steps, or None if the line does not contain it.
        loss: training loss of the step.
        tokens_per_s: trained tokens per second.
        eta_s: seconds to the end of training, or None if `steps` is None.
    """

    step: int
    steps: int | None
    loss: float
    tokens_per_s: float | None = None
    eta_s: float | None = None

    @classmethod
    def parse(cls, line: str) -> Progress | None:
        """Return the progress in a log line, or None for any other line."""
        match = _LINE.search(line)
        if match is None:
            return None
        fields = dict(re.findall(rf"(\w+)={_NUMBER}", match["rest"]))
        steps = None if match["steps"] == "?" else int(match["steps"])
        rate, eta = fields.get("tokens_per_s"), fields.get("eta_s")
        return cls(
            int(match["step"]),
            steps,
            float(fields.get("loss", "nan")),
            float(rate) if rate else None,
            float(eta) if eta else None,
        )


def metric_line(entry: Mapping[str, float], before: Mapping[str, float] | None) -> str:
    """Return the log line of a step.

    Args:
        entry: an entry of ``training_log.jsonl``. If it has `steps`, that is the total of the run.
        before: the previous entry, for the rate. None at the start.
    """
    values = {name: entry[name] for name in _SHOWN if name in entry}
    # `seconds` counts earlier sessions too, so the first step of a resumed run has no rate.
    started = before["seconds"] if before else 0.0 if entry["step"] == 1 else entry["seconds"]
    passed = entry["seconds"] - started
    if passed > 0:
        values["tokens_per_s"] = entry["tokens"] / passed
        if "steps" in entry:
            values["eta_s"] = (entry["steps"] - entry["step"]) * passed
    shown = " ".join(f"{name}={value:.6g}" for name, value in values.items())
    return f"step={entry['step']}/{entry.get('steps', '?')} {shown}"


@contextlib.contextmanager
def echoed(log: Path) -> Iterator[None]:
    """Print a line for each entry that is added to a training log while the block runs."""
    ended = threading.Event()
    place = log.stat().st_size if log.exists() else 0

    def follow() -> None:
        nonlocal place
        before = None
        last = False
        while not last:
            last = ended.wait(_POLL_S)
            if not log.exists():
                continue
            with log.open("rb") as file:
                file.seek(place)
                written = file.read()
            whole = written[: written.rfind(b"\n") + 1]  # the last line may be incomplete
            place += len(whole)
            for line in whole.splitlines():
                entry = json.loads(line)
                print(metric_line(entry, before), flush=True)
                before = entry

    thread = threading.Thread(target=follow, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
