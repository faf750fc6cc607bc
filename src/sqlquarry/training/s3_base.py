"""A base model below an S3 prefix, brought to this machine once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import write_json
from sqlquarry.aws import aws_client, transfer_config
from sqlquarry.errors import MetadataError, UnsupportedModelError
from sqlquarry.metadata import file_name, read_object

_RECEIVED = ".received.json"  # what has come whole: file name -> the object's ETag
_AT_ONCE = 4


def download_base(uri: str, cache: Path, patterns: tuple[str, ...]) -> Path:
    """Copy a base model's files from S3 into `cache`; what has come whole before is not fetched again.

    Args:
        uri: ``s3://bucket/prefix``.
        cache: a folder of its own for each URI is made below it.
        patterns: file names to take (``*.safetensors``), directly below the prefix.

    Raises:
        UnsupportedModelError: nothing lies there, or S3 does not give it; a second call goes on.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    target = (
        cache / f"{prefix.rstrip('/').rpartition('/')[2] or bucket}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
    )
    try:
        client = aws_client("s3")
        wanted = {
            name: entry
            for name, entry in _listing(client, bucket, prefix).items()
            if any(fnmatch(name, pattern) for pattern in patterns) and file_name(name, uri)
        }
        if not wanted:
            raise UnsupportedModelError(f"there is no base model directly below {uri}: check bucket and prefix")
        _fetch(client, bucket, prefix, wanted, target)
    except (BotoCoreError, ClientError, OSError, MetadataError) as error:
        raise UnsupportedModelError(
            f"the base model {uri} could not be brought here: {error}. Check that the role may list and read it, "
            f"and that {cache} has room; the same call goes on with the files that are missing."
        ) from error
    return target


def _listing(client: Any, bucket: str, prefix: str) -> dict[str, dict[str, Any]]:
    """Objects directly below the prefix, by file name."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    return {entry["Key"].removeprefix(prefix): entry for page in pages for entry in page.get("Contents", ())}


def _fetch(client: Any, bucket: str, prefix: str, wanted: dict[str, dict[str, Any]], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    note = target / _RECEIVED
    received: dict[str, str] = read_object(note) if note.is_file() else {}

    def is_here(name: str, entry: dict[str, Any]) -> bool:
        path = target / name
        return received.get(name) == entry["ETag"] and path.is_file() and path.stat().st_size == entry["Size"]

    missing = [name for name, entry in wanted.items() if not is_here(name, entry)]
    for stale in (path for path in target.iterdir() if path.name not in wanted and path.name != _RECEIVED):
        stale.unlink()  # of an earlier model at the same place
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # boto3 writes beside the target and renames, so a file under its own name is whole.
        config = transfer_config()
        fetched = pool.map(
            lambda name: client.download_file(bucket, prefix + name, str(target / name), Config=config), missing
        )
        for name, _ in zip(missing, fetched, strict=True):
            received[name] = wanted[name]["ETag"]
            write_json(note, received)
