"""Suites on disk: the databases of one pair of a schema and gold queries, and what they prove."""

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
VERSION = 2  # raised whenever the same inputs give other rows, or a suite is stored in another way


@dataclass(frozen=True, slots=True)
class KillRate:
    """How many mutants of a record's gold queries its databases tell from them.

    Args:
        killed: mutants that return something else on at least one database.
        mutants: all that run; some say the same as the gold on every database that the schema allows.
        survivors: the SQL of those not told apart.
    """

    killed: int
    mutants: int
    survivors: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Killed mutants as a share of all; 1 if there are none."""
        return self.killed / self.mutants if self.mutants else 1.0


@dataclass(frozen=True, slots=True)
class StoredSuite:
    """The files of a suite, or why there are none."""

    paths: tuple[Path, ...]
    kill_rate: KillRate
    quarantined: str | None = None


def put(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none.

    Without fsync, which takes longer than making a suite: after a power cut the digests tell what is lost, and it is
    made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save(folder: Path, suite: Suite | str) -> StoredSuite:
    """Write a suite, or the reason why there is none; the manifest with the files' digests comes last."""
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
    """Return the saved suite; None if there is none, it has another version, or a file has changed."""
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
    """Return the suite of `count` files, the first `plausible` of which would surprise nobody."""
    paths = tuple(folder / file_name(str(i), plausible=i < plausible) for i in range(count))
    return StoredSuite(paths, KillRate(killed, killed + len(survivors), survivors))


def file_name(stem: str, *, plausible: bool) -> str:
    """Return the name of a database's file, which says what rows to expect in it."""
    return f"{stem}{_PLAUSIBLE if plausible else _LEGAL}"


def is_plausible(path: Path) -> bool:
    """Whether the rows in a database that was made here would surprise nobody."""
    return not path.name.endswith(_LEGAL)
