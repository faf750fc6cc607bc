"""Records as objects on S3: one is read by way of a temporary file, and written whole or not at all."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from sqlquarry.aws import aws_client, transfer_config
from sqlquarry.aws.failures import COMMON_ERRORS, KnownError, aws_errors
from sqlquarry.errors import DataError
from sqlquarry.extras import require

if TYPE_CHECKING:
    import boto3

_SCHEME = re.compile(r"s3:/+", re.IGNORECASE)


def s3_uri(source: str | Path) -> str | None:
    """Return the ``s3://bucket/key`` that a source means, also as a `Path`, which makes one slash of two; else None.

    Raises:
        DataError: the source is neither text nor a path.
    """
    if not isinstance(source, str | PurePath):
        raise DataError(f"{source!r:.80} is a {type(source).__name__}, but must be a path or an address")
    text = source if isinstance(source, str) else source.as_posix()
    return f"s3://{text[scheme.end() :]}" if (scheme := _SCHEME.match(text)) else None


@contextmanager
def downloaded(uri: str, session: boto3.Session | None) -> Iterator[Path]:
    """Download an object to a temporary file of the same name.

    Raises:
        DataError: `uri` names no object, or the object cannot be read.
        MissingExtraError: boto3 is not installed.
    """
    bucket, key = bucket_and_key(uri)
    require("aws", f"reading {uri}")
    with tempfile.TemporaryDirectory(prefix="sqlquarry-") as directory:
        path = Path(directory) / PurePosixPath(key).name
        with aws_errors(DataError, f"reading {uri}", known=_known_errors("s3:GetObject")):
            aws_client("s3", session).download_file(bucket, key, str(path), Config=transfer_config())
        yield path


def upload(uri: str, parts: Iterable[bytes], session: boto3.Session | None) -> None:
    """Write an object of these parts, which need never be in memory together.

    Raises:
        DataError: `uri` names no object, or S3 does not take it.
        MissingExtraError: boto3 is not installed.
    """
    bucket, key = bucket_and_key(uri)
    require("aws", f"writing {uri}")
    with tempfile.TemporaryFile(prefix="sqlquarry-") as file:
        file.writelines(parts)
        file.seek(0)
        with aws_errors(DataError, f"writing {uri}", known=_known_errors("s3:PutObject")):
            aws_client("s3", session).upload_fileobj(file, bucket, key, Config=transfer_config())


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Split an address into bucket and key.

    Raises:
        DataError: it names no object.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise DataError(f"{uri} is not of the form s3://bucket/key")
    return bucket, key


def _known_errors(permission: str) -> tuple[KnownError, ...]:
    advice = f"Check bucket, key and region, and that the credentials allow {permission}."
    refused = (KnownError(code, "", advice) for code in ("403", "404", "AccessDenied", "NoSuchBucket"))
    return (*refused, *COMMON_ERRORS)
