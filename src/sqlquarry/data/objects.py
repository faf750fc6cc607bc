"""Read and write objects on S3 through temporary files. An object is written completely or not at all."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.errors import DataError
from sqlquarry.extras import require
from sqlquarry.files.locations import S3Location

if TYPE_CHECKING:
    import boto3

_SCHEME = re.compile(r"s3:/+", re.IGNORECASE)


def s3_uri(source: str | Path) -> str | None:
    """Return a source as ``s3://bucket/key``, or None if it is not on S3. A `Path` drops a slash, but works too.

    Raises:
        DataError: the source is neither text nor a path.
    """
    if not isinstance(source, str | PurePath):
        raise DataError(f"{source!r:.80} is a {type(source).__name__}, but must be a path or an s3:// address")
    text = source if isinstance(source, str) else source.as_posix()
    return f"s3://{text[scheme.end() :]}" if (scheme := _SCHEME.match(text)) else None


@contextmanager
def downloaded(uri: str, session: boto3.Session | None) -> Iterator[Path]:
    """Download an object to a temporary file of the same name and yield its path.

    Raises:
        DataError: `uri` is not the address of an object, or the object cannot be read.
        MissingExtraError: boto3 is not installed.
    """
    bucket, key = bucket_and_key(uri)
    require("aws", f"reading {uri}")
    with tempfile.TemporaryDirectory(prefix="sqlquarry-") as directory:
        path = Path(directory) / PurePosixPath(key).name
        with aws_errors(DataError, f"reading {uri}", advice=_advice("s3:GetObject")):
            S3Prefix.open(S3Location(bucket), session).download(key, path)
        yield path


def upload(uri: str, parts: Iterable[bytes], session: boto3.Session | None) -> None:
    """Write `parts` as one object without holding all of them in memory.

    Raises:
        DataError: `uri` is not the address of an object, or the object cannot be written.
        MissingExtraError: boto3 is not installed.
    """
    bucket, key = bucket_and_key(uri)
    require("aws", f"writing {uri}")
    with tempfile.NamedTemporaryFile(prefix="sqlquarry-") as file:
        file.writelines(parts)
        file.flush()
        with aws_errors(DataError, f"writing {uri}", advice=_advice("s3:PutObject")):
            S3Prefix.open(S3Location(bucket), session).upload(Path(file.name), key)


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Split an S3 address into bucket and key.

    Raises:
        DataError: the address has no bucket or no key.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise DataError(f"{uri} is not of the form s3://bucket/key")
    return bucket, key


def _advice(permission: str) -> dict[str, str]:
    advice = f"Check bucket, key and region, and that the credentials allow {permission}."
    return dict.fromkeys(("403", "404", "AccessDenied", "NoSuchBucket"), advice)
