"""Run untrusted queries on SQLite files: read-only, bounded in time and memory, in a process that can be killed.

SQLite can be stopped between two of its instructions, which ends endless recursion and huge joins. It cannot be stopped
within a built-in function (``printf('%.*c', 1000000000, 'x')`` takes 17 s), so the process is killed then.
"""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlquarry.errors import ConfigError, JudgingError
from sqlquarry.judging import sandbox_child

FailureKind = Literal["syntax", "no_such_column", "no_such_table", "timeout", "too_many_rows", "forbidden", "other"]
_GRACE_S = 0.5  # from the time limit to the kill: SQLite gets the chance to stop by itself


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query returned: column names, and rows x columns of int, float, str, bytes or None."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a query returned nothing."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one query.

    Args:
        time_limit_s: seconds until it is stopped; killed half a second later.
        row_limit: rows of the result.
        result_bytes_limit: bytes of text and blobs in the whole result, 16 added for each cell.
        value_bytes_limit: bytes of any one value, intermediate ones included.

    Raises:
        ConfigError: a limit is not a positive, finite number; all bad ones are named.
    """

    time_limit_s: float = 10.0
    row_limit: int = 100_000
    result_bytes_limit: int = 100_000_000
    value_bytes_limit: int = 1_000_000

    def __post_init__(self) -> None:
        if bad := [f"{name} is {value!r}" for name, value in vars(self).items() if not 0 < value < math.inf]:
            raise ConfigError(f"limits must be above 0 and finite, but {', '.join(bad)}")


class Sandbox:
    """One child process that runs queries, one at a time; it starts on the first and again after a kill."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, database: Path, sql: str) -> Rows | Failure:
        """Run one statement and fetch its rows; nothing is ever written, and every trouble with it is a `Failure`.

        Raises:
            JudgingError: the child process does not start.
        """
        with self._lock:
            child = self._started()
            assert child.stdin is not None  # noqa: S101 - it is a pipe
            assert child.stdout is not None  # noqa: S101 - it is a pipe
            killed = threading.Event()

            def kill() -> None:
                killed.set()
                child.kill()

            timer = threading.Timer(self.limits.time_limit_s + _GRACE_S, kill)
            answer = None
            try:
                timer.start()
                sandbox_child.send(child.stdin, (str(database), sql, vars(self.limits)))
                answer = sandbox_child.receive(child.stdout)
            except BrokenPipeError:
                pass  # the child died: there is no answer
            finally:
                # Also after Ctrl-C: an answer that is still to come must not be taken for the next query's.
                timer.cancel()
                if answer is None:
                    self.close()
        if answer is None:
            if killed.is_set():
                return Failure("timeout", f"killed after {self.limits.time_limit_s:g} s")
            return Failure("other", f"the query ended its SQLite process (exit status {child.returncode})")
        outcome, first, second = answer
        return Rows(first, second) if outcome == "rows" else Failure(first, second)

    def close(self) -> None:
        """End the child process, if there is one."""
        if self._child is not None:
            _end(self._child)
            self._child = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-I", "-S", sandbox_child.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the judge, who then ends the child
            )
            weakref.finalize(self, _end, self._child)
            assert self._child.stdout is not None  # noqa: S101 - it is a pipe
            if sandbox_child.receive(self._child.stdout) != sandbox_child.READY:
                self._child.wait()
                raise JudgingError(
                    f"the process for SQLite queries does not start (exit status {self._child.returncode}). "
                    f"Its message stands above; try: {sys.executable} {sandbox_child.__file__}"
                )
        return self._child


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
