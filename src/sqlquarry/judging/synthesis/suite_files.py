"""Suites on disk: the databases of one pair of a schema and gold queries, and what they prove."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlquarry.judging.synthesis.suites import Suite
from sqlquarry.metadata import read_object

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
        """Killed mutants as a share of all; 1 where there are none."""
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
    content: dict[str, Any] = {"version": VERSION, "quarantined": suite}
    if isinstance(suite, Suite):
        digests = [hashlib.sha256(file).hexdigest() for file in suite.files]
        content = {
            "version": VERSION,
            "databases": digests,
            "plausible": suite.plausible,
            "killed": suite.killed,
            "survivors": suite.survivors,
        }
        for path, file in zip(_stored(folder, content).paths, suite.files, strict=True):
            put(path, file)
    put(folder / _MANIFEST, (json.dumps(content, indent=2) + "\n").encode())
    return _stored(folder, content)


def load(folder: Path) -> StoredSuite | None:
    """The suite that was saved there; None if there is none, it has another version, or a file has changed."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = read_object(folder / _MANIFEST, lenient=True)
        if content.get("version") != VERSION:
            return None
        suite = _stored(folder, content)
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in suite.paths]
        if suite.quarantined or digests == content["databases"]:
            return suite
    return None


def _stored(folder: Path, content: dict[str, Any]) -> StoredSuite:
    if "quarantined" in content:
        return StoredSuite((), KillRate(0, 0, ()), content["quarantined"])
    survivors = tuple(content["survivors"])
    rate = KillRate(content["killed"], content["killed"] + len(survivors), survivors)
    names = (file_name(str(i), plausible=i < content["plausible"]) for i in range(len(content["databases"])))
    return StoredSuite(tuple(folder / name for name in names), rate)


def file_name(stem: str, *, plausible: bool) -> str:
    """The name of a database's file, which says what rows to expect in it."""
    return f"{stem}{_PLAUSIBLE if plausible else _LEGAL}"


def is_plausible(path: Path) -> bool:
    """Whether the rows in a database that was made here would surprise nobody."""
    return not path.name.endswith(_LEGAL)
