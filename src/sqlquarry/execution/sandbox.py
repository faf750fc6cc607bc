"""Run untrusted queries read-only in child processes that can be killed, with limits on time and memory.

An engine can be stopped between two of its instructions. That ends endless recursion and huge joins. It cannot be
stopped inside a built-in function: SQLite's ``printf('%.*c', 1000000000, 'x')`` takes 17 s. In that case the process
is killed.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from sqlquarry.errors import JudgingError
from sqlquarry.execution import sandbox_child
from sqlquarry.execution.engines import SQLITE_COPY, DatabaseEngine, engine_of, file_of
from sqlquarry.execution.limits import NO_PERMISSIONS, ExecutionLimits, Permissions
from sqlquarry.extras import require
from sqlquarry.results.cells import Cell

_GRACE_S = 0.5  # after the time limit the engine may stop by itself, then its process is killed
_BLOCK_BYTES = 1 << 20
_ADDRESS_SPACE_BYTES = 3 << 30  # of a child, in addition to what its queries may use
_COPYING_S = 600.0
_LONGEST_MESSAGE = 1000  # characters, because engines quote the query
# The environment that a child inherits: text encoding, folders of libraries and temporary files, and the time zone of
# SQLite's "localtime".
_ENVIRONMENT = r"LANG|LC_\w+|TZ|TMPDIR|SQLITE_TMPDIR|(DY)?LD_LIBRARY_PATH"


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of a query: column names and rows, whose cells are int, float, Decimal, str, bytes or None."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a query has no result. "unavailable" and "unknown_function" are not the fault of the query."""

    kind: sandbox_child.FailureKind
    message: str


class Sandbox:
    """A pool of child processes that run queries, one process for each query that runs at the same time.

    The processes are reused for later queries. They end with the last reference to the sandbox or with this process,
    however it ends, and do not inherit its secrets. The sandbox may be used from several threads.
    """

    def __init__(self, limits: ExecutionLimits, permissions: Permissions = NO_PERMISSIONS) -> None:
        self.limits = limits
        self.permissions = permissions
        self._idle: dict[DatabaseEngine, list[_Child]] = {}
        self._copying = threading.Lock()
        self._copies: dict[Path, tuple[sandbox_child.State, Path | Failure]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, database: Path | str, sql: str, *, engine: DatabaseEngine | None = None) -> Rows | Failure:
        """Run one statement and fetch its rows. Nothing is written. An error of the statement becomes a `Failure`.

        Args:
            database: an SQLite or DuckDB file, or the SQLAlchemy URL of a server.
            sql: one statement in the database's dialect.
            engine: the engine that runs it. None is the one of the file or URL.

        Raises:
            JudgingError: the child process does not start, or the URL cannot be parsed.
            MissingExtraError: the database's engine is not installed.
        """
        engine, path = engine or engine_of(database), file_of(database)
        outcome = self._run(engine, str(path or database), sql)
        if outcome is None and path is not None:
            copy = self._copy_of(path)
            outcome = copy if isinstance(copy, Failure) else self._run(engine, str(copy), sql)
        return outcome or Failure("unavailable", "the database changes while it is read. Judge on a backup.")

    def _run(self, engine: DatabaseEngine, database: str, sql: str) -> Rows | Failure | None:
        """Run one statement. Return None for an SQLite database that cannot be read in place without writing."""
        idle = self._idle.setdefault(engine, [])
        child = None
        while child is None or not child.alive:
            try:
                child = idle.pop()
            except IndexError:
                child = _Child(engine, self.limits)
        outcome = child.run(database, sql, self.limits, self.permissions)
        if child.alive:
            idle.append(child)
        return outcome

    def _copy_of(self, path: Path) -> Path | Failure:
        """Return a private copy of an SQLite database and its logs. A new copy is made only if the files changed."""
        with self._copying:
            state = sandbox_child.state(os.path.realpath(path))
            known, copy = self._copies.get(path, (None, None))
            if copy is not None and known == state:
                return copy
            if isinstance(copy, Path):
                copy.unlink(missing_ok=True)
            try:
                self._folder = self._folder or temporary_folder(self, "sqlquarry-")
            except OSError as error:
                return Failure("unavailable", f"{path.name} can only be read in a copy: {error}. Set TMPDIR.")
            target = Path(self._folder.name) / f"{len(self._copies)}-{time.monotonic_ns()}.sqlite"
            child = _Child(SQLITE_COPY, self.limits)
            limits = replace(self.limits, time_s=_COPYING_S)
            made = child.run(os.path.realpath(path), str(target), limits, self.permissions)
            child.end()
            new: Path | Failure = target
            if isinstance(made, Failure):
                new = Failure("unavailable", f"{path.name} can only be read in a copy: {made.message}")
            self._copies[path] = (state, new)
            return new

    def close(self) -> None:
        """End the child processes."""
        for children in self._idle.values():
            while children:
                children.pop().end()
        if self._folder:
            self._folder.cleanup()
        self._copies, self._folder = {}, None


class _Child:
    """A process that runs one query at a time."""

    def __init__(self, engine: DatabaseEngine, limits: ExecutionLimits) -> None:
        if engine.extra:
            require(engine.extra, f"judging on {engine.name}")
        self.engine = engine
        # SQLite's child needs no installed packages. Without them it starts in a third of the time.
        arguments = [engine.module, *sys.path] if engine.module else []
        command = [
            *(sys.executable, "-I", "-S", sandbox_child.__file__, str(os.getpid())),
            *(str(_ADDRESS_SPACE_BYTES + limits.memory_bytes), *arguments),
        ]
        self.process = subprocess.Popen(  # noqa: S603 - our own script
            command,
            env=_environment(engine),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C goes to the judge, which then ends the child
        )
        self.end = weakref.finalize(self, _end, self.process)
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        if sandbox_child.receive(self.process.stdout) != sandbox_child.READY:
            self.process.wait()
            raise JudgingError(
                f"the process for {engine.name} queries does not start (exit status {self.process.returncode}). "
                f"Its message is above. To reproduce the error, run: {shlex.join(command)}"
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def run(self, database: str, sql: str, limits: ExecutionLimits, permissions: Permissions) -> Rows | Failure | None:
        process = self.process
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        deadline = time.monotonic() + limits.time_s + _GRACE_S
        answer: sandbox_child.Answer | None = None
        try:
            sandbox_child.send(process.stdin, (database, sql, settings_of(limits, permissions)))
            content = _read(process.stdout.fileno(), 8, deadline)
            content = _read(process.stdout.fileno(), int.from_bytes(content, "big"), deadline)
            answer = marshal.loads(content)  # noqa: S302 - our own two processes
        except TimeoutError:
            return Failure("timeout", f"killed after {limits.time_s:g} s")
        except (BrokenPipeError, EOFError):
            self.end()
            if process.returncode == -signal.SIGXCPU:
                return Failure("timeout", f"ended after {limits.time_s:g} s of CPU time")
            return Failure(
                "other", f"the query ended its {self.engine.name} process (exit status {process.returncode})"
            )
        finally:
            # Also after Ctrl-C. Otherwise the next query would read the answer to this one.
            if answer is None:
                self.end()
        match answer:
            case ("rows", columns, rows):
                return Rows(columns, list(map(_exact, rows)) if self.engine.module else rows)
            case ("failure", kind, message):
                return Failure(kind, message[:_LONGEST_MESSAGE])
        return None


def temporary_folder(owner: object, prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Create a temporary folder that is removed together with its owner, or at exit."""
    folder = tempfile.TemporaryDirectory(prefix=prefix)
    weakref.finalize(owner, folder.cleanup)  # without it, the folder is removed too, but with a ResourceWarning
    return folder


def settings_of(limits: ExecutionLimits, permissions: Permissions) -> sandbox_child.QuerySettings:
    """Return the limits and permissions as a child needs them, ready for `marshal`."""
    return {
        "time_s": limits.time_s,
        "rows": limits.rows,
        "result_bytes": limits.result_bytes,
        "value_bytes": limits.value_bytes,
        "memory_bytes": limits.memory_bytes,
        "allow_functions": permissions.allow_functions,
        "allow_privileged_accounts": permissions.allow_privileged_accounts,
        "allow_unchecked_servers": permissions.allow_unchecked_servers,
    }


def _environment(engine: DatabaseEngine) -> dict[str, str]:
    """Return the environment of a child of this engine, without cloud keys and tokens."""
    allowed = re.compile(f"{_ENVIRONMENT}|{engine.environment}")
    return {name: value for name, value in os.environ.items() if allowed.fullmatch(name)}


def _exact(row: tuple[sandbox_child.SentCell, ...]) -> tuple[Cell, ...]:
    """Convert the exact numbers of a row to Decimal."""
    if tuple not in map(type, row):
        return row
    return tuple(Decimal(cell[1]) if isinstance(cell, tuple) else cell for cell in row)


def _read(pipe: int, size: int, deadline: float) -> bytes:
    """Read `size` bytes from a pipe before `deadline`.

    This polls, because a timer thread would take longer than most queries.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    content = bytearray()
    while len(content) < size:
        left_ms = 1000 * (deadline - time.monotonic())
        if left_ms <= 0 or not poll.poll(left_ms):
            raise TimeoutError
        block = os.read(pipe, min(size - len(content), _BLOCK_BYTES))
        if not block:
            raise EOFError
        content += block
    return bytes(content)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # the child never read the request
                pipe.close()
