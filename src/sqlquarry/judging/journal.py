"""Verdicts and answers that outlive the process: append-only JSON Lines, found again by what they depend on."""

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

# Part of every key: a release that judges differently raises it, and older verdicts are made anew.
JOURNAL_VERSION = 1


def content_key(*parts: object) -> str:
    """Return the SHA-256 (hex) of JSON-ready parts: equal content has the same key in every process."""
    return hashlib.sha256(json.dumps([JOURNAL_VERSION, *parts], sort_keys=True).encode()).hexdigest()


class Journal:
    """A file of `{"key": …, "value": …}` lines, each written by one call before the next piece of work starts.

    A process killed at any moment leaves whole lines and at most one torn one, which is dropped on opening. Several
    processes may append to one file; each sees what was there when it opened the file.

    Args:
        path: the file; made, with its folders, if it does not exist.

    Raises:
        JudgingError: the file is not a journal, or cannot be read or written.
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
                f"the journal {path} cannot be opened: {error}. Give a file that can be written."
            ) from error
        self._read()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what was added under `key`; None if nothing was."""
        return self._values.get(key)

    def add(self, key: str, value: Mapping[str, object]) -> None:
        """Keep `value` for this and later runs, as `storable` writes it; it is with the operating system on return."""
        line = json.dumps({"key": key, "value": storable(value)}, allow_nan=False).encode() + b"\n"
        with self._lock:
            self._values[key] = json.loads(line)["value"]
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Put everything on disk and close the file."""
        with contextlib.suppress(OSError):  # a pipe or /dev/null has no disk
            os.fsync(self._file.fileno())
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                entry = parse_json(line, "it", lenient=True)
                self._values[entry["key"]] = entry["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise JudgingError(
                    f"{self.path}, line {number} is not a journal line ({error!r}). Give another file."
                ) from error
        if whole < len(content):  # torn by a kill; the next line must not continue it
            self._file.truncate(whole)
