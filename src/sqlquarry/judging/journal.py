"""Store verdicts and answers in an append-only JSON Lines file, under a hash of everything that they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlquarry.errors import JudgingError
from sqlquarry.files.locations import local_path
from sqlquarry.files.metadata import parse_json
from sqlquarry.judging.storable import storable

# Part of every key. A release that judges differently increases it, so that older verdicts are not reused.
JOURNAL_VERSION = 1


def content_key(*parts: object) -> str:
    """Return the SHA-256 (hex) of JSON-ready parts. Equal parts have the same key in every process."""
    return hashlib.sha256(json.dumps([JOURNAL_VERSION, *parts], sort_keys=True).encode()).hexdigest()


class Journal:
    """A file of `{"key": …, "value": …}` lines, each written by one call as soon as its value is known.

    A process that is killed leaves complete lines and at most one partial line, which is dropped when the file is
    opened again. Several processes may append to the same file. Each sees the lines that were there when it opened it.

    Args:
        path: the file. It is created, with its folders, if it does not exist.

    Raises:
        JudgingError: the file is not a journal, or it cannot be read or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = local_path(path, "journal")
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, Any]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+")
        except OSError as error:
            raise JudgingError(
                f"the journal {path} cannot be opened: {error}. Give the path of a writable file."
            ) from error
        self._read()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value of `key`, or None if the journal does not have it."""
        return self._values.get(key)

    def add(self, key: str, value: Mapping[str, object]) -> None:
        """Store `value`, converted by `storable`. On return, the operating system has the line."""
        line = json.dumps({"key": key, "value": storable(value)}, allow_nan=False).encode() + b"\n"
        with self._lock:
            self._values[key] = json.loads(line)["value"]
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Flush everything to disk and close the file."""
        with contextlib.suppress(OSError):  # a pipe and /dev/null cannot be synced
            os.fsync(self._file.fileno())
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        complete = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:complete].splitlines(), start=1):
            try:
                entry = parse_json(line, "it", lenient=True)
                self._values[entry["key"]] = entry["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise JudgingError(
                    f"{self.path}, line {number} is not a journal line ({error!r}). Give a journal or a new file."
                ) from error
        if complete < len(content):  # a killed process left a partial line, which the next line must not continue
            self._file.truncate(complete)
