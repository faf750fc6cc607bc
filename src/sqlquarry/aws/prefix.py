"""List, read, write and delete the objects below one prefix of a bucket."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypedDict

from sqlquarry.aws.clients import aws_client, transfer_config
from sqlquarry.aws.failures import error_code
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import check_size

if TYPE_CHECKING:
    import boto3
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_BLOCK_BYTES = 1 << 20
_READ_ATTEMPTS = 4
PART_BYTES = 8 * 2**20  # boto3's default
# S3's error codes if the condition of `S3Prefix.replace` fails: 409 for two requests at once, 404 without an object.
CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404")
SHA256 = "sha256"  # metadata key for the hash of an object's content


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a listing.

    Args:
        size: size in bytes.
        etag: S3's entity tag, without quotation marks.
    """

    size: int
    etag: str


class _Key(TypedDict):
    Bucket: str
    Key: str


class WriteOptions(TypedDict, total=False):
    """Arguments of PutObject that determine how an object is stored."""

    ChecksumAlgorithm: Literal["SHA256"]
    ServerSideEncryption: Literal["aws:kms"]
    SSEKMSKeyId: str


@dataclass(frozen=True, slots=True)
class S3Prefix:
    """A prefix of a bucket. An object's name is the part of its key after the prefix.

    Methods raise boto3's own errors, which `aws_errors` converts.

    Args:
        client: boto3 S3 client.
        location: bucket and prefix.
        write_options: further PutObject arguments for `write` and `upload`, such as the encryption.
    """

    client: S3Client
    location: S3Location
    write_options: WriteOptions = field(default_factory=WriteOptions)

    @classmethod
    def open(cls, location: S3Location, session: boto3.Session | None = None) -> Self:
        """Return the prefix with a client of the session. None uses the default credentials."""
        return cls(aws_client("s3", session, attempts=4, connect_timeout_s=10, read_timeout_s=60), location)

    def __str__(self) -> str:
        return str(self.location)

    def objects(self, *, deep: bool = False, limit: int | None = None) -> dict[str, StoredObject]:
        """List the objects by name.

        Args:
            deep: include objects in subfolders, whose names contain "/".
            limit: stop after this number of objects.
        """
        location = self.location
        paginator = self.client.get_paginator("list_objects_v2")
        pages = (
            paginator.paginate(Bucket=location.bucket, Prefix=location.prefix)
            if deep
            else paginator.paginate(Bucket=location.bucket, Prefix=location.prefix, Delimiter="/")
        )
        named = (
            (item["Key"].removeprefix(location.prefix), item) for page in pages for item in page.get("Contents", ())
        )
        # The AWS console creates an empty object for each folder.
        files = ((name, item) for name, item in named if name and not name.endswith("/"))
        return {name: StoredObject(item["Size"], item["ETag"].strip('"')) for name, item in islice(files, limit)}

    def head(self, name: str, *, with_checksum: bool = False) -> HeadObjectOutputTypeDef | None:
        """Return the HeadObject answer for an object, or None if the object does not exist.

        Args:
            name: name of the object.
            with_checksum: also request the checksum. That needs kms:Decrypt if the object is encrypted with a KMS key.
        """
        from botocore.exceptions import ClientError

        try:
            if with_checksum:
                return self.client.head_object(**self._key(name), ChecksumMode="ENABLED")
            return self.client.head_object(**self._key(name))
        except ClientError as error:
            if error_code(error) in ("404", "NoSuchKey", "NotFound"):
                return None
            raise

    def recorded_sha256(self, name: str) -> str | None:
        """Return the SHA-256 (hex) that `Transfer` writes into an object's metadata, or None if it is missing."""
        return self.client.head_object(**self._key(name)).get("Metadata", {}).get(SHA256)

    def content_sha256(self, name: str) -> str:
        """Read an object in blocks of 1 MiB and return the SHA-256 (hex) of its content."""
        digest, body = hashlib.sha256(), self.client.get_object(**self._key(name))["Body"]
        while block := body.read(_BLOCK_BYTES):
            digest.update(block)
        return digest.hexdigest()

    def read(self, name: str) -> bytes:
        """Read a small object.

        Raises:
            MetadataError: the object is too large to be a metadata file.
        """
        answer = self.client.get_object(**self._key(name))
        check_size(name, answer["ContentLength"])
        content = bytearray(answer["ContentLength"])
        return bytes(content[: self._fill(name, 0, memoryview(content), answer["Body"])])

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Read `length` bytes of an object from byte `start`, or fewer if the object ends earlier."""
        content = bytearray(length)
        return bytes(content[: self.read_into(name, start, memoryview(content))])

    def read_into(self, name: str, start: int, view: memoryview) -> int:
        """Fill `view` with an object's bytes from byte `start`, and return the number of bytes read.

        If the connection breaks, reading resumes at the first missing byte.
        """
        return self._fill(name, start, view, None)

    def _fill(self, name: str, start: int, view: memoryview, body: StreamingBody | None) -> int:
        from botocore.exceptions import HTTPClientError

        done = 0
        for attempt in range(1, _READ_ATTEMPTS + 1):  # botocore retries requests, but not broken streams
            if done == len(view):
                break
            if body is None:
                span = f"bytes={start + done}-{start + len(view) - 1}"
                body = self.client.get_object(**self._key(name), Range=span)["Body"]
            try:
                while block := body.read(_BLOCK_BYTES):
                    view[done : done + len(block)] = block
                    done += len(block)
                break
            except HTTPClientError:
                if attempt == _READ_ATTEMPTS:
                    raise
            body = None
        return done

    def write(self, name: str, content: bytes) -> None:
        """Write a small object."""
        self.client.put_object(**self._key(name), Body=content, **self.write_options)

    def replace(self, name: str, content: bytes, etag: str | None) -> str:
        """Write a small object if its ETag is still `etag`, and return the new ETag.

        If `etag` is None, the object must not exist yet. S3 compares and writes in one step. If the object has changed,
        the error's code is one of `CHANGED`.

        Source: "Add preconditions to S3 operations with conditional requests",
        docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
        """
        key = self._key(name)
        if etag is None:
            return self.client.put_object(**key, Body=content, IfNoneMatch="*")["ETag"]
        return self.client.put_object(**key, Body=content, IfMatch=etag)["ETag"]

    def delete(self, name: str) -> None:
        """Delete an object if it exists."""
        self.client.delete_object(**self._key(name))

    def download(self, name: str, path: Path) -> None:
        """Copy an object to a local file. boto3 renames the file to `path` once it is complete."""
        key = self._key(name)
        self.client.download_file(key["Bucket"], key["Key"], str(path), Config=transfer_config())

    def upload(self, path: Path, name: str, *, part_bytes: int = PART_BYTES) -> None:
        """Copy a local file to an object, in parts if its size is at least `part_bytes`."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import ClientError

        key, options = self._key(name), dict(self.write_options)
        config = transfer_config(part_bytes)
        try:
            self.client.upload_file(str(path), key["Bucket"], key["Key"], ExtraArgs=options, Config=config)
        except S3UploadFailedError as error:
            if isinstance(refusal := error.__cause__ or error.__context__, ClientError):
                raise refusal from None  # boto3's own error lacks the code
            raise

    def why_empty(self) -> str:
        """Return a message that says why no files are found below the prefix, and what to do."""
        from botocore.exceptions import ClientError

        location = self.location
        if location.prefix:
            try:
                self.client.head_object(Bucket=location.bucket, Key=location.prefix.rstrip("/"))
            except ClientError as error:
                if error_code(error) not in ("404", "NoSuchKey", "403"):
                    raise
            else:
                folder = str(location).rpartition("/")[0]
                return f"{location} is a single object. Use the prefix of the folder that contains it: {folder}."
        return f"there are no files directly below {location}. Check the bucket and the prefix."

    def _key(self, name: str) -> _Key:
        return {"Bucket": self.location.bucket, "Key": self.location.prefix + name}
