"""Copy S3 objects into a cache on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.prefix import S3Prefix, StoredObject
from sqlquarry.errors import MetadataError
from sqlquarry.extras import require
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import file_name, read_object
from sqlquarry.files.writing import write_json

if TYPE_CHECKING:
    import boto3

_RECEIVED = ".received.json"  # complete files: file name -> ETag of the object
_AT_ONCE = 4
SMALL_FILES = ("*.json", "*.model", "*.jinja", "*.txt")  # configuration and tokenizer of a model
MODEL_FILES = (*SMALL_FILES, "*.safetensors", "LICENSE*", "NOTICE*")


def download_files(
    location: S3Location,
    problem: Callable[[str], Exception],
    *,
    patterns: Sequence[str],
    session: boto3.Session | None = None,
    cache: Path | None = None,
) -> Path:
    """Copy the files directly below a prefix into a directory of the cache.

    Args:
        location: prefix of the files.
        problem: creates an error from a message.
        patterns: patterns of the file names to copy (``*.safetensors``).
        session: boto3 session. None uses the default credentials.
        cache: directory in which each location gets its own directory. None uses ``~/.cache/sqlquarry``.

    Raises:
        MissingExtraError: boto3 is not installed.
        Exception: the error that `problem` creates, if there are no such files or S3 refuses a request.
    """

    def wanted(prefix: S3Prefix) -> dict[str, StoredObject]:
        return {
            name: item
            for name, item in prefix.objects().items()
            if any(fnmatch(name, pattern) for pattern in patterns) and file_name(name, str(location))
        }

    return copy_here(location, problem, wanted, session=session, cache=cache)


def copy_here(
    location: S3Location,
    problem: Callable[[str], Exception],
    wanted: Callable[[S3Prefix], Mapping[str, StoredObject]],
    *,
    session: boto3.Session | None = None,
    cache: Path | None = None,
) -> Path:
    """Copy files below a prefix into a directory of the cache. Files that are already complete are not copied again.

    Args:
        location: prefix of the files.
        problem: creates an error from a message.
        wanted: selects the files.
        session: as in `download_files`.
        cache: as in `download_files`.

    Raises:
        MissingExtraError: boto3 is not installed.
        Exception: the error that `problem` creates, if there are no such files or S3 refuses a request.
    """
    require("aws", f"reading {location}")
    cache = cache or Path.home() / ".cache" / "sqlquarry"
    name = location.prefix.rstrip("/").rpartition("/")[2] or location.bucket
    target = cache / f"{name}-{hashlib.sha256(str(location).encode()).hexdigest()[:16]}"
    doing, again = f"copying {location} to {target}", "The next call copies only the missing files."
    with aws_errors(problem, doing, again):
        prefix = S3Prefix.open(location, session)
        try:
            chosen = wanted(prefix)
            if not chosen:
                raise problem(prefix.why_empty())
            _fetch(prefix, chosen, target)
        except (OSError, MetadataError) as error:
            raise problem(f"{doing} failed: {error}. Free disk space or check the disk. {again}") from error
    return target


def _fetch(prefix: S3Prefix, wanted: Mapping[str, StoredObject], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    note = target / _RECEIVED
    received: dict[str, str] = read_object(note) if note.is_file() else {}

    def is_here(name: str, item: StoredObject) -> bool:
        path = target / name
        return received.get(name) == item.etag and path.is_file() and path.stat().st_size == item.size

    def download(name: str) -> None:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        prefix.download(name, target / name)

    missing = [name for name, item in wanted.items() if not is_here(name, item)]
    for path in target.rglob("*"):
        if path.is_file() and path != note and path.relative_to(target).as_posix() not in wanted:
            path.unlink()  # left over from an earlier model at the same location
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, _ in zip(missing, pool.map(download, missing), strict=True):
            received[name] = wanted[name].etag
            write_json(note, received)
