"""Open the storage at a location: a directory, or an S3 prefix without a copy on the local disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.extras import require
from sqlquarry.files.locations import S3Location, located
from sqlquarry.merging.storage.local import LocalDirectory
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.merging.storage.s3 import S3Storage

if TYPE_CHECKING:
    import boto3


def open_storage(location: str | Path, session: boto3.Session | None = None) -> Storage:
    """Return the storage at `location`.

    Args:
        location: a directory or ``s3://bucket/prefix``.
        session: a boto3 session. None uses the default credentials.

    Raises:
        MissingExtraError: the location is on S3, but boto3 is not installed.
        ConfigError: `location` is neither.
    """
    place = located(location)
    if not isinstance(place, S3Location):
        return LocalDirectory(place)
    require("aws", f"merging with {place}")
    return S3Storage.open(place, session)
