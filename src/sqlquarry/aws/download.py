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
from sqlquarry.files.locations import S3Location, cache_folder
from sqlquarry.files.locks import LOCK_FILE, only_writer
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
        cache: directory in which each location and selection of files gets its own directory. None uses
            ``~/.cache/sqlquarry``.

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

    return copy_here(location, problem, wanted, selection=" ".join(patterns), session=session, cache=cache)


def copy_here(
    location: S3Location,
    problem: Callable[[str], Exception],
    wanted: Callable[[S3Prefix], Mapping[str, StoredObject]],
    *,
    selection: str,
    session: boto3.Session | None = None,
    cache: Path | None = None,
) -> Path:
    """Copy files below a prefix into a directory of the cache. Files that are already complete are not copied again.

    If another process is copying the same files, wait for it.

    Args:
        location: prefix of the files.
        problem: creates an error from a message.
        wanted: selects the files.
        selection: a name of what `wanted` selects. Files that it does not select are deleted from the directory, so
            each selection has a directory of its own.
        session: as in `download_files`.
        cache: as in `download_files`.

    Raises:
        MissingExtraError: boto3 is not installed.
        Exception: the error that `problem` creates, if there are no such files or S3 refuses a request.
    """
    require("aws", f"reading {location}")
    cache = cache or cache_folder()
    name = location.prefix.rstrip("/").rpartition("/")[2] or location.bucket
    target = cache / f"{name}-{hashlib.sha256(f'{location} {selection}'.encode()).hexdigest()[:16]}"
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
    if not any(_differences(wanted, target)):
        return  # needs no lock, so the cache may be read-only

    def download(name: str) -> None:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        prefix.download(name, target / name)

    with only_writer(target, wait=True):
        missing, leftover = _differences(wanted, target)
        for path in leftover:
            path.unlink()
        received = _received(target)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for name, _ in zip(missing, pool.map(download, missing), strict=True):
                received[name] = wanted[name].etag
                write_json(target / _RECEIVED, received)


def _differences(wanted: Mapping[str, StoredObject], target: Path) -> tuple[list[str], list[Path]]:
    """Return the names of missing or incomplete files, and files left over from an earlier model at this location."""
    received = _received(target)

    def is_here(name: str, item: StoredObject) -> bool:
        path = target / name
        return received.get(name) == item.etag and path.is_file() and path.stat().st_size == item.size

    own = {*wanted, _RECEIVED, LOCK_FILE}
    missing = [name for name, item in wanted.items() if not is_here(name, item)]
    files = (path for path in target.rglob("*") if path.is_file())
    return missing, [path for path in files if path.relative_to(target).as_posix() not in own]


def _received(target: Path) -> dict[str, str]:
    note = target / _RECEIVED
    return read_object(note) if note.is_file() else {}
