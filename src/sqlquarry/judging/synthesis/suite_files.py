"""Stores suites on disk: the databases for a schema and its gold queries, with their kill rate."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.files.metadata import json_bytes, read_object
from sqlquarry.judging.synthesis.suites import Suite

_MANIFEST = "suite.json"
_PLAUSIBLE, _LEGAL = ".plausible.sqlite", ".legal.sqlite"
VERSION = 3  # Increase it when the same inputs give different rows, or when the storage format changes.


@dataclass(frozen=True, slots=True)
class KillRate:
    """The number of mutants of a record's gold queries that its databases distinguish from the gold.

    Args:
        killed: number of mutants that return a different result on at least one database.
        mutants: number of mutants that run. Some may be equivalent to the gold.
        survivors: the SQL of the mutants that return the same result on every database.
    """

    killed: int
    mutants: int
    survivors: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Share of mutants that are killed, or 1 if there are no mutants."""
        return self.killed / self.mutants if self.mutants else 1.0


@dataclass(frozen=True, slots=True)
class StoredSuite:
    """The files of a suite, or the reason why there are none."""

    paths: tuple[Path, ...]
    kill_rate: KillRate
    quarantined: str | None = None


def put(path: Path, content: bytes) -> None:
    """Write a file atomically, so that readers see either the complete file or none.

    There is no fsync, because it takes longer than generating a suite. After a power failure the digests reveal damaged
    files, and the suite is generated again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save(folder: Path, suite: Suite | str) -> StoredSuite:
    """Write a suite, or the reason why there is none. The manifest with the digests of the files is written last."""
    if isinstance(suite, str):
        _write_manifest(folder, {"version": VERSION, "quarantined": suite})
        return _quarantined(suite)
    stored = _stored(folder, len(suite.files), suite.plausible, suite.killed, suite.survivors)
    for path, file in zip(stored.paths, suite.files, strict=True):
        put(path, file)
    content = {
        "version": VERSION,
        "databases": [hashlib.sha256(file).hexdigest() for file in suite.files],
        "plausible": suite.plausible,
        "killed": suite.killed,
        "survivors": suite.survivors,
    }
    _write_manifest(folder, content)
    return stored


def _write_manifest(folder: Path, content: Mapping[str, object]) -> None:
    put(folder / _MANIFEST, json_bytes(content))


def load(folder: Path) -> StoredSuite | None:
    """Return the saved suite, or None if there is none, its version differs, or a file has changed."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = read_object(folder / _MANIFEST, lenient=True)
        if content.get("version") != VERSION:
            return None
        if reason := content.get("quarantined"):
            return _quarantined(reason)
        digests = content["databases"]
        suite = _stored(folder, len(digests), content["plausible"], content["killed"], tuple(content["survivors"]))
        if [hashlib.sha256(path.read_bytes()).hexdigest() for path in suite.paths] == digests:
            return suite
    return None


def _quarantined(reason: str) -> StoredSuite:
    return StoredSuite((), KillRate(0, 0, ()), reason)


def _stored(folder: Path, count: int, plausible: int, killed: int, survivors: tuple[str, ...]) -> StoredSuite:
    """Return the suite of `count` files. The first `plausible` files have plausible rows."""
    paths = tuple(folder / file_name(str(i), plausible=i < plausible) for i in range(count))
    return StoredSuite(paths, KillRate(killed, killed + len(survivors), survivors))


def file_name(stem: str, *, plausible: bool) -> str:
    """Return the file name of a database, which shows whether its rows are plausible."""
    return f"{stem}{_PLAUSIBLE if plausible else _LEGAL}"


def is_plausible(path: Path) -> bool:
    """Return whether a synthesized database has only plausible rows, by its file name."""
    return not path.name.endswith(_LEGAL)
