"""The objects below one prefix, read and written whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlquarry.aws.clients import aws_client, transfer_config
from sqlquarry.aws.failures import error_code
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import check_size

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class S3Folder:
    """A prefix of a bucket; every method passes on boto3's errors (see `aws_errors`)."""

    client: Any
    location: S3Location

    @classmethod
    def open(cls, location: S3Location, session: Any = None) -> Self:
        """Return the folder, with a client of the session; None takes the default credentials."""
        return cls(aws_client("s3", session, attempts=4), location)

    def entries(self, *, deep: bool = False) -> Mapping[str, Mapping[str, Any]]:
        """Return file name -> size, ETag and so on, as ListObjectsV2 describes it.

        Args:
            deep: also list files of the folders below, by names with "/".
        """
        place = self.location
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=place.bucket, Prefix=place.prefix, **({} if deep else {"Delimiter": "/"})
        )
        found = {item["Key"].removeprefix(place.prefix): item for page in pages for item in page.get("Contents", ())}
        # The console marks a folder by an empty object.
        return {name: item for name, item in found.items() if name and not name.endswith("/")}

    def read(self, name: str) -> bytes:
        """Read a small file.

        Raises:
            MetadataError: it is larger than any such file.
        """
        answer = self.client.get_object(**self._key(name))
        check_size(name, answer["ContentLength"])
        content: bytes = answer["Body"].read()
        return content

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Read `length` bytes of a file from byte `start` on."""
        span = f"bytes={start}-{start + length - 1}"
        content: bytes = self.client.get_object(**self._key(name), Range=span)["Body"].read()
        return content

    def sha256(self, name: str) -> str:
        """Return the SHA-256 (hex) of a file's content, which is read in blocks of 1 MiB."""
        digest, body = hashlib.sha256(), self.client.get_object(**self._key(name))["Body"]
        while block := body.read(_BLOCK_BYTES):
            digest.update(block)
        return digest.hexdigest()

    def download(self, name: str, path: Path) -> None:
        """Copy a file here; boto3 renames it to `path` once it is whole."""
        key = self._key(name)
        self.client.download_file(key["Bucket"], key["Key"], str(path), Config=transfer_config())

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file there."""
        key = self._key(name)
        self.client.upload_file(str(path), key["Bucket"], key["Key"], Config=transfer_config())

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.client.delete_object(**self._key(name))

    def why_empty(self) -> str:
        """Say why no files are found below a location, and what to do."""
        from botocore.exceptions import ClientError

        place = self.location
        if place.prefix:
            try:
                self.client.head_object(Bucket=place.bucket, Key=place.prefix.rstrip("/"))
            except ClientError as error:
                if error_code(error) not in ("404", "NoSuchKey", "403"):
                    raise
            else:
                return f"{place} is one object. Give the prefix of its folder: {str(place).rpartition('/')[0]}."
        return f"there are no files directly below {place}. Check the bucket and the prefix."

    def _key(self, name: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self.location.prefix + name}
