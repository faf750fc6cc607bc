"""Start the processes of one machine with torchrun, and report which of them failed and why."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sqlquarry.aws import session_environment
from sqlquarry.errors import SQLQuarryError, TrainingError, error_class
from sqlquarry.files.locations import located
from sqlquarry.files.metadata import parse_json
from sqlquarry.files.writing import write_json
from sqlquarry.openmp import WAIT_POLICY
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record, json_lines
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.job import TrainingJobSpec

if TYPE_CHECKING:
    import boto3

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"  # the network interface over which processes talk
FAILURES = "SQLQUARRY_FAILURES"  # environment variable: the folder in which a process writes its error
# With port 0, the kernel chooses the port and torchrun passes it to its processes. A port that is chosen in advance
# could be taken by another program, because torchrun needs seconds to start. 127.0.0.1 needs no name lookup.
TORCHRUN = (
    *("-m", "torch.distributed.run", "--nnodes=1"),
    *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
)
# The last line of a traceback. torchrun's own error (ChildFailedError) says only that a process failed.
_ERROR = re.compile(r"(?:\[rank\d+\]: )?((?:\w+\.)*\w+(?:Error|Exception)(?<!ChildFailedError): .+)")
_ENDED = re.compile(r".*\] failed \(exitcode: -(\d+)\) local_rank: (\d+)")  # torchrun's first failed process


def launch(
    train: Sequence[Record],
    evaluation: Sequence[Record],
    *,
    base_model: str | Path,
    formatter: PromptFormatter,
    config: TrainingConfig,
    output_dir: Path,
    checkpoint_dir: str | Path | None,
    processes: int,
    session: boto3.Session | None,
) -> None:
    """Run ``python -m sqlquarry.training`` under torchrun on this machine and wait for it.

    If one process dies, torchrun ends the others, so that they do not wait for the dead process.

    Raises:
        ConfigError: the session has no credentials to pass on.
        TrainingError: a process could not start, or died without an error (usually because memory ran out).
        SQLQuarryError: the error of the first process that failed, with its original class.
    """
    with tempfile.TemporaryDirectory(prefix="sqlquarry-") as folder:
        directory = Path(folder)
        formatter.save(directory / "prompt")
        job = TrainingJobSpec(
            base_model=str(base_model),
            prompt=str(directory / "prompt"),
            train=_written(train, directory / "train.jsonl"),
            evaluation=_written(evaluation, directory / "evaluation.jsonl") if evaluation else None,
            output_dir=str(output_dir),
            checkpoint_dir=str(located(checkpoint_dir)) if checkpoint_dir else None,
            config=config,
        )
        job.write(directory / "job.json")
        command = [
            *(sys.executable, *TORCHRUN, f"--nproc-per-node={processes}"),
            *("-m", "sqlquarry.training", str(directory / "job.json")),
        ]
        # Other users may see job.json and command lines, so credentials are passed only in the environment.
        environment = os.environ | session_environment(session)
        environment |= {FAILURES: folder, "GLOO_SOCKET_IFNAME": LOOPBACK}
        environment.setdefault(WAIT_POLICY, "passive")
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        status, found = _run(command, environment)
        if status:
            raise _failure(directory, found, status)


def leave_failure(error: BaseException) -> None:
    """Write this process's error to the folder of `launch`. Do nothing if another program started the process."""
    folder = os.environ.get(FAILURES)
    if folder:
        rank = os.environ.get("RANK", "0")
        write_json(Path(folder) / f"failure-{rank}.json", {"class": type(error).__name__, "message": str(error)})


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Run torchrun to its end and return its exit status and the findings of `_relay`.

    If standard error is a terminal, the processes write to it directly, because a progress bar needs a terminal.
    Otherwise, their text passes through a pipe.
    """
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, env=environment, stderr=None if sys.stderr.isatty() else subprocess.PIPE
    )
    found: dict[str, str] = {}
    relay = threading.Thread(target=_relay, args=(process.stderr, found), daemon=True)
    if process.stderr:
        relay.start()
    try:
        process.wait()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):  # Ctrl-C has also reached torchrun, which waits 30 s for its processes
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=40)
        process.terminate()  # torchrun passes the signal on. If torchrun were killed, its processes would keep running.
        process.wait()
        raise
    if process.stderr:
        relay.join(timeout=5)  # a process that outlives torchrun keeps the pipe open
    return process.returncode, found


def _relay(stream: IO[bytes], found: dict[str, str]) -> None:
    """Print a stream's lines. Set "error" to the first error and "ended" to the process that a signal ended."""
    with stream:  # if printing fails, closing the pipe keeps the processes from waiting for a reader
        for line in stream:
            text = line.decode(errors="replace")
            sys.stderr.write(text)
            if match := _ERROR.match(text):
                found.setdefault("error", match[1])
            elif match := _ENDED.match(text):
                number, rank = match.groups()
                found["ended"] = f"process {rank} was ended by signal {number} ({signal.strsignal(int(number))})"


def _failure(folder: Path, found: Mapping[str, str], status: int) -> SQLQuarryError:
    """Return the error to raise: the first `SQLQuarryError`, or a `TrainingError` with the cause if there is none.

    The errors of later processes only report that they lost a peer.

    Args:
        folder: the folder with the errors that `leave_failure` wrote.
        found: the findings of `_relay`.
        status: torchrun's exit status.
    """
    files = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime_ns)
    written = [parse_json(path.read_bytes(), path.name, lenient=True) for path in files]
    for one in written:
        if kind := error_class(one["class"]):
            return kind(one["message"])
    if "ended" in found:
        why = f"{found['ended']}. The kernel sends signal 9 if memory runs out"
    elif written:
        why = f"a process failed: {written[0]['class']}: {written[0]['message']}"
    elif "error" in found:
        why = f"a process failed. The first error above is {found['error']}"
    else:
        why = f"torchrun ended with exit status {status}. The output above may show why. Usually, memory ran out"
    return TrainingError(f"{why}. Run again to resume from the newest checkpoint.")


def _written(records: Sequence[Record], path: Path) -> str:
    path.write_text(json_lines(records))
    return str(path)
