"""Objects on S3: read by ranges, written by multipart upload, both of which go on where a connection broke.

A part that an earlier run left is kept where its MD5 is that of the bytes to be written
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import aws_errors, error_code
from sqlquarry.aws.folder import S3Folder
from sqlquarry.errors import MergeError, OutputInUseError
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import check_size
from sqlquarry.merging.storage import AGAIN, Sink

PART_BYTES = 32 * 2**20
_MAX_PARTS = 10_000  # S3's limit for one object
_PARTS_IN_FLIGHT = 4
_READ_ATTEMPTS = 4
# S3's answers to a condition that does not hold; 409 if both requests came at once, 404 if the object is gone.
_NOT_AS_BEFORE = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404")


@dataclass(frozen=True, slots=True)
class S3File:
    """An object on S3."""

    client: Any
    bucket: str
    key: str
    size: int

    @property
    def name(self) -> str:
        """See `StoredFile`."""
        return self.key.rpartition("/")[2]

    def read_into(self, offset: int, view: memoryview) -> int:
        """See `StoredFile`."""
        from botocore.exceptions import HTTPClientError, ResponseStreamingError

        wanted = min(len(view), max(0, self.size - offset))
        done = 0
        for attempt in range(1, _READ_ATTEMPTS + 1):  # botocore repeats requests, but no broken streams
            if done == wanted:
                break
            with _s3_errors(f"reading {self}"):
                span = f"bytes={offset + done}-{offset + wanted - 1}"
                body = self.client.get_object(Bucket=self.bucket, Key=self.key, Range=span)["Body"]
                try:
                    while block := body.read(1 << 20):
                        view[done : done + len(block)] = block
                        done += len(block)
                except (HTTPClientError, ResponseStreamingError):
                    if attempt == _READ_ATTEMPTS:
                        raise
        return done

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class S3Prefix:
    """The objects directly below a prefix that is empty or ends with "/"."""

    client: Any
    bucket: str
    prefix: str
    part_bytes: int

    @classmethod
    def open(cls, location: S3Location, session: Any, endpoint_url: str | None) -> S3Prefix:
        """The prefix ``s3://bucket/prefix``, with a client of the session."""
        client = aws_client(
            "s3", session, endpoint_url=endpoint_url, attempts=4, connect_timeout_s=10, read_timeout_s=60
        )
        return cls(client, location.bucket, location.prefix, PART_BYTES)

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        with _s3_errors(f"listing {self}"):
            return {name: int(entry["Size"]) for name, entry in self._folder.entries().items()}

    def file(self, name: str) -> S3File:
        """See `Storage`."""
        head = self._head(name)
        if head is None:
            raise MergeError(f"{self}/{name} is missing. Upload it again.")
        return S3File(self.client, self.bucket, self.prefix + name, head["ContentLength"])

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        file = self.file(name)
        check_size(name, file.size)
        content = bytearray(file.size)
        file.read_into(0, memoryview(content))
        return bytes(content)

    def write(self, name: str, content: bytes) -> None:
        """See `Storage`."""
        with _s3_errors(f"writing {self}/{name}"):
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content)

    def reserve(self) -> AbstractContextManager[None]:
        """See `Storage`; S3 has no locks, and `replace` notices another writer."""
        return nullcontext()

    def version(self, name: str) -> str | None:
        """See `Storage`: the object's ETag."""
        head = self._head(name)
        return None if head is None else str(head["ETag"])

    def replace(self, name: str, content: bytes, version: str | None) -> str:
        """See `Storage`; S3 compares and writes in one step.

        Source: "Add preconditions to S3 operations with conditional requests",
        docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
        """
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        target = {"Bucket": self.bucket, "Key": self.prefix + name}
        from botocore.exceptions import ClientError

        with _s3_errors(f"writing {self}/{name}"):
            try:
                return str(self.client.put_object(**target, Body=content, **condition)["ETag"])
            except ClientError as error:
                if error_code(error) not in _NOT_AS_BEFORE:
                    raise
                # Or botocore sent the request again after the answer to its first one was lost.
                if self.version(name) is not None and self.read(name) == content:
                    return str(self.version(name))
                raise OutputInUseError(
                    f"another process has begun to write {self}, and this one stops. If both are the same merge, the "
                    "other one uses what this one has finished."
                ) from error

    def delete(self, name: str) -> None:
        """See `Storage`."""
        key = self.prefix + name
        with _s3_errors(f"deleting {self}/{name}"):
            self.client.delete_object(Bucket=self.bucket, Key=key)
            for upload in _unfinished(self.client, self.bucket, key):
                self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)

    @contextmanager
    def create(self, name: str, nbytes: int) -> Iterator[Sink]:
        """See `Storage`."""
        with _s3_errors(f"uploading {self}/{name}"), ThreadPoolExecutor(_PARTS_IN_FLIGHT) as pool:
            part_bytes = max(self.part_bytes, -(-nbytes // _MAX_PARTS))
            upload = _MultipartUpload.begin(self.client, self.bucket, self.prefix + name, part_bytes, pool)
            yield upload
            upload.complete()

    def why_empty(self) -> str:
        """See `Storage`."""
        with _s3_errors(f"looking for {self}"):
            return self._folder.why_empty()

    def require_room(self, nbytes: int) -> None:
        """S3 has room for anything."""

    @property
    def _folder(self) -> S3Folder:
        return S3Folder(self.client, S3Location(self.bucket, self.prefix))

    def _head(self, name: str) -> dict[str, Any] | None:
        """Return what S3 reports of an object; None if it does not exist."""
        from botocore.exceptions import ClientError

        with _s3_errors(f"looking for s3://{self.bucket}/{self.prefix}{name}"):
            try:
                return dict(self.client.head_object(Bucket=self.bucket, Key=self.prefix + name))
            except ClientError as error:
                if error_code(error) in ("404", "NoSuchKey"):
                    return None
                raise

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def _unfinished(client: Any, bucket: str, key: str) -> list[str]:
    """Ids of the multipart uploads of one key that were neither completed nor aborted."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
    return [item["UploadId"] for page in pages for item in page.get("Uploads", ()) if item["Key"] == key]


@dataclass(slots=True)
class _MultipartUpload:
    """An object that grows by parts; at most `_PARTS_IN_FLIGHT` + 1 of them are in memory."""

    client: Any
    target: dict[str, str]
    part_bytes: int
    pool: ThreadPoolExecutor
    present: dict[int, str]
    _buffer: bytearray = field(default_factory=bytearray)
    _parts: list[Future[dict[str, Any]]] = field(default_factory=list)

    @classmethod
    def begin(cls, client: Any, bucket: str, key: str, part_bytes: int, pool: ThreadPoolExecutor) -> _MultipartUpload:
        """Go on with the upload that an earlier run left, or start one."""
        left = _unfinished(client, bucket, key)
        target = {"Bucket": bucket, "Key": key}
        present: dict[int, str] = {}
        if left:
            target["UploadId"] = left[0]
            for page in client.get_paginator("list_parts").paginate(**target):
                present |= {part["PartNumber"]: part["ETag"] for part in page.get("Parts", ())}
        else:
            target["UploadId"] = client.create_multipart_upload(**target)["UploadId"]
        return cls(client, target, part_bytes, pool, present)

    def write(self, data: memoryview) -> None:
        while data:
            taken = self.part_bytes - len(self._buffer)
            self._buffer += data[:taken]
            data = data[taken:]
            if len(self._buffer) == self.part_bytes:
                self._send()

    def complete(self) -> None:
        if self._buffer or not self._parts:
            self._send()
        parts = [part.result() for part in self._parts]
        self.client.complete_multipart_upload(**self.target, MultipartUpload={"Parts": parts})

    def _send(self) -> None:
        if len(self._parts) >= _PARTS_IN_FLIGHT:
            self._parts[-_PARTS_IN_FLIGHT].result()
        self._parts.append(self.pool.submit(self._upload, len(self._parts) + 1, self._buffer))
        self._buffer = bytearray()

    def _upload(self, number: int, content: bytearray) -> dict[str, Any]:
        etag = self.present.get(number)
        if etag is None or etag.strip('"') != hashlib.md5(content, usedforsecurity=False).hexdigest():
            etag = self.client.upload_part(**self.target, PartNumber=number, Body=bytes(content))["ETag"]
        return {"PartNumber": number, "ETag": etag}


def _s3_errors(doing: str) -> AbstractContextManager[None]:
    return aws_errors(MergeError, doing, AGAIN)
