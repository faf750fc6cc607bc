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

FAILURES = "SQLQUARRY_FAILURES"  # environment: the folder in which a process leaves its error
# torchrun has the kernel choose the port as it binds it, and tells its processes: a port that is chosen before can be
# another's by then, for torchrun takes seconds to start. Addresses instead of names, so nothing is looked up.
TORCHRUN = (
    *("-m", "torch.distributed.run", "--nnodes=1"),
    *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
)
# The line that a traceback ends with. torchrun's own says only that a process failed.
_ERROR = re.compile(r"(?:\[rank\d+\]: )?((?:\w+\.)*\w+(?:Error|Exception)(?<!ChildFailedError): .+)")
_ENDED = re.compile(r".*\] failed \(exitcode: -(\d+)\) local_rank: (\d+)")  # torchrun's, of the first that failed


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

    torchrun ends all processes once one has died, so nobody waits for a peer that is gone.

    Raises:
        ConfigError: the session has no credentials that could be passed on.
        TrainingError: a process could not start, or died without a word (most often for lack of memory).
        SQLQuarryError: the error of the first process that failed, of its own class.
    """
    with tempfile.TemporaryDirectory(prefix="sqlquarry-") as folder:
        place = Path(folder)
        formatter.save(place / "prompt")
        job = TrainingJobSpec(
            base_model=str(base_model),
            prompt=str(place / "prompt"),
            train=_written(train, place / "train.jsonl"),
            evaluation=_written(evaluation, place / "evaluation.jsonl") if evaluation else None,
            output_dir=str(output_dir),
            checkpoint_dir=str(located(checkpoint_dir)) if checkpoint_dir else None,
            config=config,
        )
        job.write(place / "job.json")
        command = [
            *(sys.executable, *TORCHRUN, f"--nproc-per-node={processes}"),
            *("-m", "sqlquarry.training", str(place / "job.json")),
        ]
        # Credentials travel in the environment of these processes only: job.json and command lines can be seen.
        environment = os.environ | session_environment(session)
        environment |= {FAILURES: folder, "GLOO_SOCKET_IFNAME": "lo"}
        environment.setdefault(WAIT_POLICY, "passive")
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        status, said = _run(command, environment)
        if status:
            raise _failure(place, said, status)


def leave_failure(error: BaseException) -> None:
    """Write this process's error to where `launch` looks for it; do nothing if another program started the process."""
    folder = os.environ.get(FAILURES)
    if folder:
        rank = os.environ.get("RANK", "0")
        write_json(Path(folder) / f"failure-{rank}.json", {"class": type(error).__name__, "message": str(error)})


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Run torchrun to its end; return its exit status and what `_relay` found.

    A progress bar needs the terminal itself. In a notebook or a log, its lines of text pass through here instead.
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
        if isinstance(error, KeyboardInterrupt):  # Ctrl-C reached torchrun too, which waits 30 s for its processes
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=40)
        process.terminate()  # torchrun passes it on; if it were killed, its processes would run on without it
        process.wait()
        raise
    if process.stderr:
        relay.join(timeout=5)  # a process that outlives torchrun still holds the pipe
    return process.returncode, found


def _relay(stream: IO[bytes], found: dict[str, str]) -> None:
    """Print a stream's lines; note the first "error" among them, and which process was "ended" by a signal."""
    with stream:  # if printing fails, the processes must not wait for a reader
        for line in stream:
            text = line.decode(errors="replace")
            sys.stderr.write(text)
            if match := _ERROR.match(text):
                found.setdefault("error", match[1])
            elif match := _ENDED.match(text):
                number, rank = match.groups()
                found["ended"] = f"process {rank} was ended by signal {number} ({signal.strsignal(int(number))})"


def _failure(folder: Path, said: Mapping[str, str], status: int) -> SQLQuarryError:
    """Return the first error of this library, else what ended a process, else the first of all.

    The errors of the other processes only say that they lost a peer.
    """
    files = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime_ns)
    found = [parse_json(path.read_bytes(), path.name, lenient=True) for path in files]
    for one in found:
        if kind := error_class(one["class"]):
            return kind(one["message"])
    if "ended" in said:
        why = f"{said['ended']}; signal 9 is most often the kernel's, where memory runs out"
    elif found:
        why = f"a process failed: {found[0]['class']}: {found[0]['message']}"
    elif "error" in said:
        why = f"the first error above is {said['error']}"
    else:
        why = f"torchrun ended with exit status {status}. The reason may be above; memory is the usual one"
    return TrainingError(f"{why}. Run again to resume from the newest checkpoint.")


def _written(records: Sequence[Record], path: Path) -> str:
    path.write_text(json_lines(records))
    return str(path)
