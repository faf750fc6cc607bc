"""Run untrusted queries: read-only, bounded in time and memory, in processes that can be killed.

An engine can be stopped between two of its instructions, which ends endless recursion and huge joins. It cannot be
stopped within a built-in function (SQLite's ``printf('%.*c', 1000000000, 'x')`` takes 17 s), so the process is killed
then.
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
from sqlquarry.extras import require
from sqlquarry.judging.execution import sandbox_child
from sqlquarry.judging.execution.engines import SQLITE_COPY, DatabaseEngine, engine_of, file_of
from sqlquarry.judging.execution.limits import NO_PERMISSIONS, ExecutionLimits, Permissions
from sqlquarry.judging.results.cells import Cell

_GRACE_S = 0.5  # from the time limit to the kill: the engine gets the chance to stop by itself
_BLOCK_BYTES = 1 << 20
_ADDRESS_SPACE_BYTES = 3 << 30  # of a child, in addition to what its queries may use
_COPYING_S = 600.0
_LONGEST_MESSAGE = 1000  # characters; engines quote the query
# What a child inherits: how text is coded, where libraries and temporary files are, the zone of SQLite's "localtime".
_ENVIRONMENT = r"LANG|LC_\w+|TZ|TMPDIR|SQLITE_TMPDIR|(DY)?LD_LIBRARY_PATH"


@dataclass(frozen=True, slots=True)
class Rows:
    """Hold what a query returned: column names, and rows x columns of int, float, Decimal, str, bytes or None."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Say why a query returned nothing; if "unavailable" or "unknown_function", the query is not to blame."""

    kind: sandbox_child.FailureKind
    message: str


class Sandbox:
    """Child processes that run queries: as many as are asked for at the same time, kept for the next queries.

    They end with this process, whatever ends it, and inherit none of its secrets. It may be used from several threads.
    """

    def __init__(self, limits: ExecutionLimits, permissions: Permissions = NO_PERMISSIONS) -> None:
        self.limits = limits
        self.permissions = permissions
        self._idle: dict[DatabaseEngine, list[_Child]] = {}
        self._copying = threading.Lock()
        self._copies: dict[Path, tuple[sandbox_child.State, Path | Failure]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, database: Path | str, sql: str) -> Rows | Failure:
        """Run one statement and fetch its rows; nothing is ever written, and every trouble with it is a `Failure`.

        Args:
            database: an SQLite or DuckDB file, or the URL of a server as SQLAlchemy writes it.
            sql: one statement in the database's own dialect.

        Raises:
            JudgingError: the child process does not start, or the URL cannot be read.
            MissingExtraError: the database's engine is not installed.
        """
        engine, path = engine_of(database), file_of(database)
        outcome = self._run(engine, str(path or database), sql)
        if outcome is None and path is not None:
            copy = self._copy_of(path)
            outcome = copy if isinstance(copy, Failure) else self._run(engine, str(copy), sql)
        return outcome or Failure("unavailable", "the database changes while it is read")

    def _run(self, engine: DatabaseEngine, database: str, sql: str) -> Rows | Failure | None:
        """None for an SQLite database that cannot be read in place without writing."""
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
        """Return a private copy of an SQLite database with the content of its logs, made once per state."""
        with self._copying:
            state = sandbox_child.state(os.path.realpath(path))
            known, copy = self._copies.get(path, (None, None))
            if copy is not None and known == state:
                return copy
            if isinstance(copy, Path):
                copy.unlink(missing_ok=True)
            try:
                self._folder = self._folder or tempfile.TemporaryDirectory(prefix="sqlquarry-")
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
    """One process, which runs one query at a time."""

    def __init__(self, engine: DatabaseEngine, limits: ExecutionLimits) -> None:
        if engine.extra:
            require(engine.extra, f"judging on {engine.name}")
        self.engine = engine
        # SQLite's needs no installed package, and starts in a third of the time without them.
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
            start_new_session=True,  # Ctrl-C is for the judge, who then ends the child
        )
        self.end = weakref.finalize(self, _end, self.process)
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        if sandbox_child.receive(self.process.stdout) != sandbox_child.READY:
            self.process.wait()
            raise JudgingError(
                f"the process for {engine.name} queries does not start (exit status {self.process.returncode}). "
                f"Its message is above. To repeat it: {shlex.join(command)}"
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
            # Also after Ctrl-C: an answer that is still to come must not be taken for the next query's.
            if answer is None:
                self.end()
        match answer:
            case ("rows", columns, rows):
                return Rows(columns, list(map(_exact, rows)) if self.engine.module else rows)
            case ("failure", kind, message):
                return Failure(kind, message[:_LONGEST_MESSAGE])
        return None


def settings_of(limits: ExecutionLimits, permissions: Permissions) -> sandbox_child.QuerySettings:
    """Return what a child must know of both, ready for `marshal`."""
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
    """Return what a child of this engine may know: no keys of clouds, no tokens."""
    allowed = re.compile(f"{_ENVIRONMENT}|{engine.environment}")
    return {name: value for name, value in os.environ.items() if allowed.fullmatch(name)}


def _exact(row: tuple[sandbox_child.SentCell, ...]) -> tuple[Cell, ...]:
    """Return the row with its exact numbers as Decimal."""
    if tuple not in map(type, row):
        return row
    return tuple(Decimal(cell[1]) if isinstance(cell, tuple) else cell for cell in row)


def _read(pipe: int, size: int, deadline: float) -> bytes:
    """Read `size` bytes from a pipe until `deadline`; a timer thread per query would take longer than most queries."""
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
            with contextlib.suppress(BrokenPipeError):  # a request that it never read
                pipe.close()
