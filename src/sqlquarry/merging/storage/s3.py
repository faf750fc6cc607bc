"""Use an S3 prefix as the storage of a merge. Reads and uploads resume where a connection broke.

A part that an earlier run uploaded is reused if its checksum equals that of the bytes to write.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import aws_errors, error_code
from sqlquarry.aws.multipart import MAX_PARTS, MultipartUpload, unfinished_uploads
from sqlquarry.aws.prefix import CHANGED, S3Prefix
from sqlquarry.errors import MergeError, OutputInUseError
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import check_size
from sqlquarry.merging.storage.protocols import AGAIN, Sink

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 32 * 2**20
_PARTS_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class S3File:
    """An object in S3."""

    prefix: S3Prefix
    name: str
    size: int

    def read_into(self, offset: int, view: memoryview) -> int:
        """See `StoredFile`."""
        wanted = min(len(view), max(0, self.size - offset))
        with _s3_errors(f"reading {self}"):
            return self.prefix.read_into(self.name, offset, view[:wanted])

    def __str__(self) -> str:
        return self.prefix.location.uri_of(self.name)


@dataclass(frozen=True, slots=True)
class S3Storage:
    """The objects directly below a prefix.

    Args:
        prefix: the prefix.
        part_bytes: size of the parts of a multipart upload.
    """

    prefix: S3Prefix
    part_bytes: int

    @classmethod
    def open(cls, location: S3Location, session: boto3.Session | None) -> S3Storage:
        """Return the storage at a prefix, accessed with a client of the session."""
        return cls(S3Prefix.open(location, session), PART_BYTES)

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        with _s3_errors(f"listing {self}"):
            return {name: item.size for name, item in self.prefix.objects().items()}

    def file(self, name: str) -> S3File:
        """See `Storage`."""
        with _s3_errors(f"looking for {self}/{name}"):
            head = self.prefix.head(name)
        if head is None:
            raise MergeError(f"{self}/{name} is missing. Upload it again.")
        return S3File(self.prefix, name, head["ContentLength"])

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
            self.prefix.write(name, content)

    def reserve(self) -> AbstractContextManager[None]:
        """See `Storage`. S3 has no locks, but `replace` notices another writer."""
        return nullcontext()

    def version(self, name: str) -> str | None:
        """See `Storage`. The version is the object's ETag."""
        with _s3_errors(f"looking for {self}/{name}"):
            head = self.prefix.head(name)
        return None if head is None else head["ETag"]

    def replace(self, name: str, content: bytes, version: str | None) -> str:
        """See `Storage`. S3 compares and writes in one step."""
        from botocore.exceptions import ClientError

        with _s3_errors(f"writing {self}/{name}"):
            try:
                return self.prefix.replace(name, content, version)
            except ClientError as error:
                if error_code(error) not in CHANGED:
                    raise
                # The content is the same if botocore repeated the request because the first answer was lost.
                if (now := self.version(name)) is not None and self.read(name) == content:
                    return now
                raise OutputInUseError(
                    f"another process has begun to write to {self}, so this one stops. If both run the same merge, the "
                    "other process reuses the shards that this one has finished."
                ) from error

    def delete(self, name: str) -> None:
        """See `Storage`."""
        client, bucket, key = self.prefix.client, self.prefix.location.bucket, self._key(name)
        with _s3_errors(f"deleting {self}/{name}"):
            self.prefix.delete(name)
            for upload_id in self._unfinished(name):
                client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)

    @contextmanager
    def create(self, name: str, nbytes: int) -> Iterator[Sink]:
        """See `Storage`."""
        with _s3_errors(f"uploading {self}/{name}"), ThreadPoolExecutor(_PARTS_IN_FLIGHT) as pool:
            writer = _PartWriter(self._upload(name), max(self.part_bytes, -(-nbytes // MAX_PARTS)), pool)
            yield writer
            writer.complete()

    def why_empty(self) -> str:
        """See `Storage`."""
        with _s3_errors(f"looking for {self}"):
            return self.prefix.why_empty()

    def require_room(self, nbytes: int) -> None:
        """See `Storage`. S3 always has room."""

    def _upload(self, name: str) -> MultipartUpload:
        """Resume the upload that an earlier run left unfinished, or begin a new one."""
        client, bucket, key = self.prefix.client, self.prefix.location.bucket, self._key(name)
        if left := self._unfinished(name):
            return MultipartUpload.resume(client, bucket, key, left[-1])
        return MultipartUpload.begin(client, bucket, key, {})

    def _unfinished(self, name: str) -> list[str]:
        """Return the ids of the unfinished uploads of one object, oldest first."""
        key = self._key(name)
        found = unfinished_uploads(self.prefix.client, self.prefix.location.bucket, key)
        return [upload_id for other, upload_id in found if other == key]

    def _key(self, name: str) -> str:
        return self.prefix.location.prefix + name

    def __str__(self) -> str:
        return str(self.prefix)


@dataclass(slots=True)
class _PartWriter:
    """An object that is uploaded in parts, with at most `_PARTS_IN_FLIGHT` + 1 parts in memory."""

    upload: MultipartUpload
    part_bytes: int
    pool: ThreadPoolExecutor
    _buffer: bytearray = field(default_factory=bytearray)
    _parts: list[Future[CompletedPartTypeDef]] = field(default_factory=list)

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
        self.upload.complete([part.result() for part in self._parts])

    def _send(self) -> None:
        if len(self._parts) >= _PARTS_IN_FLIGHT:
            self._parts[-_PARTS_IN_FLIGHT].result()
        self._parts.append(self.pool.submit(self.upload.send, len(self._parts) + 1, self._buffer))
        self._buffer = bytearray()


def _s3_errors(doing: str) -> AbstractContextManager[None]:
    return aws_errors(MergeError, doing, AGAIN)
