"""One prefix of a bucket, as the service would read it: its objects, their hashes, its region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlquarry.artifacts import MANIFEST, Manifest
from sqlquarry.aws.advice import explained
from sqlquarry.aws.folder import S3Folder
from sqlquarry.aws.transfer import SHA256
from sqlquarry.errors import BedrockError
from sqlquarry.files.locations import S3Location


@dataclass(frozen=True, slots=True)
class Stored:
    """An object below a prefix: bytes, and S3's ETag."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """``s3://bucket/prefix``; `prefix` ends with "/" unless it is empty."""

    s3: Any
    bucket: str
    prefix: str

    @classmethod
    def of(cls, s3: Any, s3_uri: str) -> Prefix:
        """The prefix that a URI names.

        Raises:
            ConfigError: it is not such a URI.
        """
        location = S3Location.parse(s3_uri)
        return cls(s3, location.bucket, location.prefix)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def _folder(self) -> S3Folder:
        return S3Folder(self.s3, S3Location(self.bucket, self.prefix))

    def objects(self) -> dict[str, Stored]:
        """What lies below the prefix, at any depth: name -> object."""
        entries = self._folder.entries(deep=True)
        return {name: Stored(entry["Size"], entry["ETag"].strip('"')) for name, entry in entries.items()}

    def sha256(self, name: str) -> str | None:
        """The SHA-256 (hex) that an uploaded object carries in its metadata."""
        head = self.s3.head_object(Bucket=self.bucket, Key=self.prefix + name)
        value = head.get("Metadata", {}).get(SHA256)
        return None if value is None else str(value)

    def read(self, name: str) -> bytes:
        """A small object's content.

        Raises:
            MetadataError: it is larger than any such file.
        """
        return self._folder.read(name)

    def content(self) -> Manifest:
        """What an import would read, directly below the prefix: each file's SHA-256 where it carries one, or its ETag.

        A prefix that `upload` wrote has the digest of its own manifest.

        Raises:
            BedrockError: there is nothing, or S3 refused.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            stored = {name: item for name, item in self.objects().items() if "/" not in name and name != MANIFEST}
            files: dict[str, dict[str, str | int]] = {
                name: {"sha256": self.sha256(name) or f"etag:{item.etag}", "bytes": item.size}
                for name, item in stored.items()
            }
        except (BotoCoreError, ClientError) as error:
            raise explained(error, f"reading {self}") from error
        if not files:
            raise BedrockError(
                f"nothing lies directly below {self}. Check the prefix; an import reads no deeper level."
            )
        return Manifest("s3-prefix", files, {})
