"""Copies of what is on S3 in a cache of this machine, for what is needed as files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import write_json
from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.folder import S3Folder
from sqlquarry.errors import MetadataError
from sqlquarry.extras import require
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import file_name, read_object

_RECEIVED = ".received.json"  # what is here whole: file name -> the object's ETag
_AT_ONCE = 4
SMALL_FILES = ("*.json", "*.model", "*.jinja", "*.txt")  # configuration and tokenizer of a model
MODEL_FILES = (*SMALL_FILES, "*.safetensors", "LICENSE*", "NOTICE*")
Entries = Mapping[str, Mapping[str, Any]]  # as `S3Folder.entries`


def download_files(
    location: S3Location,
    problem: Callable[[str], Exception],
    *,
    patterns: Sequence[str],
    session: Any = None,
    cache: Path | None = None,
) -> Path:
    """Copy the files directly below a prefix into a directory of the cache.

    Args:
        location: the prefix.
        problem: makes an error of its message.
        patterns: file names to take (``*.safetensors``).
        session: a boto3 session; None takes the default credentials.
        cache: a directory of its own for each location is made in it; None takes ``~/.cache/sqlquarry``.

    Raises:
        MissingExtraError: boto3 is not installed.
        Exception: what `problem` makes, if nothing is there or S3 refuses.
    """

    def wanted(folder: S3Folder) -> Entries:
        return {
            name: entry
            for name, entry in folder.entries().items()
            if any(fnmatch(name, pattern) for pattern in patterns) and file_name(name, str(location))
        }

    return copy_here(location, problem, wanted, session=session, cache=cache)


def copy_here(
    location: S3Location,
    problem: Callable[[str], Exception],
    wanted: Callable[[S3Folder], Entries],
    *,
    session: Any = None,
    cache: Path | None = None,
) -> Path:
    """Copy files below a prefix into a directory of the cache; what is here whole is not fetched again.

    Args:
        location: the prefix.
        problem: makes an error of its message.
        wanted: chooses the files.
        session: as `download_files`.
        cache: as `download_files`.

    Raises:
        MissingExtraError: boto3 is not installed.
        Exception: what `problem` makes, if there are no such files or S3 refuses.
    """
    require("aws", f"reading {location}")
    cache = cache or Path.home() / ".cache" / "sqlquarry"
    name = location.prefix.rstrip("/").rpartition("/")[2] or location.bucket
    target = cache / f"{name}-{hashlib.sha256(str(location).encode()).hexdigest()[:16]}"
    doing, again = f"copying {location} to {target}", "The next call fetches only the files that are missing."
    with aws_errors(problem, doing, again):
        folder = S3Folder.open(location, session)
        try:
            entries = wanted(folder)
            if not entries:
                raise problem(folder.why_empty())
            _fetch(folder, entries, target)
        except (OSError, MetadataError) as error:
            raise problem(f"{doing} failed: {error}. Make room on the disk, or repair it. {again}") from error
    return target


def _fetch(folder: S3Folder, wanted: Entries, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    note = target / _RECEIVED
    received: dict[str, str] = read_object(note) if note.is_file() else {}

    def is_here(name: str, entry: Mapping[str, Any]) -> bool:
        path = target / name
        return received.get(name) == entry["ETag"] and path.is_file() and path.stat().st_size == entry["Size"]

    def download(name: str) -> None:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        folder.download(name, target / name)

    missing = [name for name, entry in wanted.items() if not is_here(name, entry)]
    for path in target.rglob("*"):
        if path.is_file() and path != note and path.relative_to(target).as_posix() not in wanted:
            path.unlink()  # of an earlier model at the same place
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, _ in zip(missing, pool.map(download, missing), strict=True):
            received[name] = wanted[name]["ETag"]
            write_json(note, received)
