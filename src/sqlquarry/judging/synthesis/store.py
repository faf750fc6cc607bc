"""Suites on disk: the databases of one pair of a schema and gold queries, and what they prove."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlquarry.judging.synthesis.search import Suite
from sqlquarry.metadata import read_object

_MANIFEST = "suite.json"


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
    content: dict[str, Any] = {"quarantined": suite}
    if isinstance(suite, Suite):
        for i, file in enumerate(suite.files):
            put(folder / f"{i}.sqlite", file)
        digests = [hashlib.sha256(file).hexdigest() for file in suite.files]
        content = {"databases": digests, "killed": suite.killed, "survivors": suite.survivors}
    put(folder / _MANIFEST, (json.dumps(content, indent=2) + "\n").encode())
    return _stored(folder, content)


def load(folder: Path) -> StoredSuite | None:
    """The suite that was saved there; None where there is none, or a file is not what the manifest says."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = read_object(folder / _MANIFEST, lenient=True)
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
    return StoredSuite(tuple(folder / f"{i}.sqlite" for i in range(len(content["databases"]))), rate)
