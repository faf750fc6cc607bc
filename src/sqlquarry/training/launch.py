"""Start the processes of one machine with torchrun, and say which of them failed and why."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry import errors
from sqlquarry.artifacts import Record, write_json
from sqlquarry.errors import SQLQuarryError, TrainingError

if TYPE_CHECKING:
    from sqlquarry.training.trainer import QLoRAFSDPTrainer

FAILURES = "SQLQUARRY_FAILURES"  # environment: the folder in which a process leaves its error


def launch(
    trainer: QLoRAFSDPTrainer,
    train: Sequence[Record],
    evaluation: Sequence[Record] | None,
    *,
    output_dir: Path,
    checkpoint_dir: str | Path | None,
    processes: int,
) -> None:
    """Run ``python -m sqlquarry.training`` under torchrun on this machine and wait for it.

    torchrun ends all processes once one has died, so nobody waits for a peer that is gone.

    Raises:
        TrainingError: a process died without a word (most often for lack of memory).
        SQLQuarryError: the error of the first process that failed, of its own class.
    """
    with tempfile.TemporaryDirectory(prefix="sqlquarry-") as folder:
        place = Path(folder)
        trainer.formatter.save(place / "prompt")
        job: dict[str, Any] = {
            "base_model": str(trainer.base_model),
            "prompt": str(place / "prompt"),
            "train": _written(train, place / "train.jsonl"),
            "evaluation": _written(evaluation, place / "evaluation.jsonl") if evaluation else None,
            "output_dir": str(output_dir),
            "checkpoint_dir": str(checkpoint_dir) if checkpoint_dir else None,
            "config": dataclasses.asdict(trainer.config),
        }
        write_json(place / "job.json", job)
        torchrun = ["torch.distributed.run", "--nnodes=1", "--node-rank=0", "--master-addr=127.0.0.1"]
        command = [
            *(sys.executable, "-m", *torchrun, f"--master-port={_free_port()}", f"--nproc-per-node={processes}"),
            *("-m", "sqlquarry.training", str(place / "job.json")),
        ]
        environment = os.environ | {FAILURES: folder, "GLOO_SOCKET_IFNAME": "lo"}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        ended = subprocess.run(command, env=environment, check=False)  # noqa: S603 - our own module
        if ended.returncode:
            raise _failure(place) or TrainingError(
                f"one of {processes} processes died without an error of its own (exit status {ended.returncode}; its "
                "last words stand above; memory is the usual reason). Run again to go on from the newest checkpoint."
            )


def leave_failure(error: BaseException) -> None:
    """Note this process's error where `launch` looks for it; nothing where another program started the processes."""
    folder = os.environ.get(FAILURES)
    if folder:
        rank = os.environ.get("RANK", "0")
        write_json(Path(folder) / f"failure-{rank}.json", {"class": type(error).__name__, "message": str(error)})


def _failure(folder: Path) -> SQLQuarryError | None:
    """The first error of ours, else the first of all: the others are of processes that lost their peer."""
    files = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime_ns)
    found = [json.loads(path.read_text()) for path in files]
    for one in found:
        kind = getattr(errors, one["class"], None)
        if isinstance(kind, type) and issubclass(kind, SQLQuarryError):
            return kind(one["message"])
    return TrainingError(f"a process failed: {found[0]['class']}: {found[0]['message']}") if found else None


def _written(records: Sequence[Record], path: Path) -> str:
    path.write_text("".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records))
    return str(path)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
