"""Send files to S3 in parallel and in parts, with constant memory. Parts that are already in S3 are skipped.

A thread takes the next part, waits until the parts before it are hashed, reads and hashes its part, and sends exactly
the bytes that it hashed. A file whose SHA-256 differs from the expected one is never completed. An interrupted run
leaves an unfinished multipart upload, which the next run finds in a listing and resumes. This module aborts no uploads.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlquarry.aws.clients import ClientOptions
from sqlquarry.aws.failures import bedrock_error, error_code, is_transient
from sqlquarry.aws.multipart import MAX_PARTS, MultipartUpload, unfinished_uploads
from sqlquarry.aws.parallel import parallel
from sqlquarry.aws.prefix import SHA256, S3Prefix
from sqlquarry.errors import CorruptArtifactError
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

logger = visible_logger(__name__)
Answer = TypeVar("Answer")

PART_BYTES = 16 * 2**20
REQUESTS_IN_FLIGHT = 8
_FILES_AT_ONCE = 4  # the parts of one file are read and hashed one after the other
# Options of the client. S3 verifies the checksums of the requests, so payloads need no second hash for their signature.
# Over https, botocore skips that hash anyway. `Transfer` itself waits between attempts.
CLIENT_OPTIONS: ClientOptions = {
    "attempts": 3,
    "max_pool_connections": REQUESTS_IN_FLIGHT,
    "sign_payloads": False,
}
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file to send.

    Args:
        name: name of the object below the prefix.
        content: bytes of the object, or path of the file that contains them.
        size: size in bytes.
        sha256: expected SHA-256 of the content (hex).
    """

    name: str
    content: bytes | Path
    size: int
    sha256: str

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> Outgoing:
        """Return a file with this content."""
        return cls(name, content, len(content), hashlib.sha256(content).hexdigest())


class _Sending:
    """A file that is being sent. Threads read its parts in turn.

    `upload` is its multipart upload, or None if one request is enough.
    """

    def __init__(self, file: Outgoing, part_bytes: int) -> None:
        whole = isinstance(file.content, bytes)
        self.file = file
        self.parts = 1 if whole else max(1, -(-file.size // part_bytes))
        self.upload: MultipartUpload | None = None
        self._part_bytes = part_bytes
        self._sha256, self._next, self._turn = hashlib.sha256(), 1, threading.Condition()

    def read(self, number: int) -> bytes:
        """Read and hash part `number` (from 1) once the parts before it are hashed."""
        with self._turn:
            self._turn.wait_for(lambda: self._next == number)
            try:
                data = self._read(number)
                self._sha256.update(data)
            finally:  # otherwise, threads would wait forever for a part that cannot be read
                self._next += 1
                self._turn.notify_all()
            return data

    def _read(self, number: int) -> bytes:
        if isinstance(self.file.content, bytes):
            return self.file.content
        with self.file.content.open("rb", buffering=0) as source:
            source.seek((number - 1) * self._part_bytes)
            # The last part reads one more byte, so that a file that has grown fails its hash.
            return source.read(self._part_bytes + (number == self.parts))

    def require_hash(self) -> None:
        if self._sha256.hexdigest() != self.file.sha256:
            raise CorruptArtifactError(
                f"{self.file.content!s:.200} does not match its SHA-256 ({self.file.sha256}), so the upload of "
                f"{self.file.name} was not completed. The file was changed or damaged after it was hashed. Create it "
                "again, then upload it again."
            )


class Transfer:
    """Sends files to a prefix.

    Args:
        prefix: destination. Its client should use `CLIENT_OPTIONS`.
        part_bytes: size of a part. Files that would have too many parts get larger parts. S3 accepts a part below
            5 MiB only as the last one.
        requests_in_flight: maximum number of concurrent requests, and of parts in memory.
        sleep: waits between attempts. Tests replace it.
        sent: called with the size of every part that has arrived or was already in S3.
    """

    def __init__(
        self,
        prefix: S3Prefix,
        *,
        part_bytes: int = PART_BYTES,
        requests_in_flight: int = REQUESTS_IN_FLIGHT,
        sleep: Callable[[float], None] = time.sleep,
        sent: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._prefix, self._s3, self._sleep, self._sent = prefix, prefix.client, sleep, sent
        self._part_bytes, self._requests_in_flight = part_bytes, requests_in_flight

    def send(self, files: Sequence[Outgoing]) -> None:
        """Send files in the given order.

        Raises:
            CorruptArtifactError: a file does not match its SHA-256.
            BedrockError: S3 refused a request, or the connection kept breaking. Parts that have arrived are kept.
        """
        large = any(file.size > self._part_bytes for file in files)
        unfinished = self._unfinished() if large else {}
        done: dict[str, list[CompletedPartTypeDef]] = defaultdict(list)
        for _, (sending, part, size) in parallel(
            self._send_part, self._parts(files, unfinished), self._requests_in_flight
        ):
            self._sent(size)
            if part is not None:
                parts = done[sending.file.name]
                parts.append(part)
                if len(parts) == sending.parts:
                    sending.require_hash()
                    self._complete(sending, parts)

    def _parts(self, files: Sequence[Outgoing], unfinished: Mapping[str, str]) -> Iterator[tuple[_Sending, int]]:
        """Yield the parts of all files. Up to `_FILES_AT_ONCE` files take turns."""
        waiting, sending = deque(files), deque[Iterator[tuple[_Sending, int]]]()
        while waiting or sending:
            while waiting and len(sending) < _FILES_AT_ONCE:
                file = waiting.popleft()
                sending.append(self._parts_of(file, unfinished.get(self._key(file))))
            part = next(sending[0], None)
            if part is None:
                sending.popleft()
            else:
                sending.rotate(-1)
                yield part

    def _parts_of(self, file: Outgoing, unfinished: str | None) -> Iterator[tuple[_Sending, int]]:
        sending = _Sending(file, max(self._part_bytes, -(-file.size // MAX_PARTS)))
        if sending.parts > 1:
            sending.upload = self._upload(file, unfinished)
        for number in range(1, sending.parts + 1):
            yield sending, number

    def _send_part(self, item: tuple[_Sending, int]) -> tuple[_Sending, CompletedPartTypeDef | None, int]:
        sending, number = item
        data = sending.read(number)
        if (upload := sending.upload) is not None:
            return sending, self._try(sending.file, lambda: upload.send(number, data)), len(data)
        sending.require_hash()
        file = sending.file
        self._try(
            file,
            lambda: self._s3.put_object(
                Bucket=self._bucket,
                Key=self._key(file),
                Body=data,
                Metadata={SHA256: file.sha256},
                ChecksumSHA256=base64.b64encode(bytes.fromhex(file.sha256)).decode(),
            ),
        )
        return sending, None, len(data)

    def _unfinished(self) -> dict[str, str]:
        """Return the ID of the newest unfinished upload for each key below the prefix."""
        from botocore.exceptions import ClientError

        try:
            return dict(unfinished_uploads(self._s3, self._bucket, self._prefix.location.prefix))
        except ClientError as error:
            if error_code(error) not in ("AccessDenied", "403"):
                raise
            logger.warning(
                "s3:ListBucketMultipartUploads is not granted, so interrupted uploads start again at their first part"
            )
            return {}

    def _upload(self, file: Outgoing, unfinished: str | None) -> MultipartUpload:
        """Resume the multipart upload of an earlier run, or begin a new one."""
        if unfinished is None:
            metadata = {SHA256: file.sha256}
            return self._try(file, lambda: MultipartUpload.begin(self._s3, self._bucket, self._key(file), metadata))
        upload = MultipartUpload.resume(self._s3, self._bucket, self._key(file), unfinished)
        logger.info("resuming the upload of %s: %d parts are already in S3", upload.key, len(upload.present))
        return upload

    def _complete(self, sending: _Sending, parts: list[CompletedPartTypeDef]) -> None:
        file, upload = sending.file, sending.upload
        assert upload is not None  # noqa: S101 - only files with a multipart upload have parts to complete
        self._try(file, lambda: upload.complete(parts))
        if self._try(file, lambda: self._prefix.recorded_sha256(file.name)) != file.sha256:
            # Metadata is fixed when an upload begins, and this upload began with other content that had the same first
            # parts.
            self._try(
                file,
                lambda: self._s3.copy_object(
                    Bucket=self._bucket,
                    Key=upload.key,
                    CopySource={"Bucket": self._bucket, "Key": upload.key},
                    Metadata={SHA256: file.sha256},
                    MetadataDirective="REPLACE",
                    ChecksumAlgorithm="CRC32",
                ),
            )

    @property
    def _bucket(self) -> str:
        return self._prefix.location.bucket

    def _key(self, file: Outgoing) -> str:
        return self._prefix.location.prefix + file.name

    def _try(self, file: Outgoing, request: Callable[[], Answer]) -> Answer:
        """Return the answer to a request, and retry it if the error may be temporary."""
        from botocore.exceptions import BotoCoreError, ClientError

        key = self._key(file)
        for wait in (*RETRY_WAITS_S, None):
            try:
                return request()
            except (BotoCoreError, ClientError) as error:
                if is_transient(error) and wait is not None:
                    logger.warning("sending %s failed (%s), trying again in %.0f s", key, error_code(error), wait)
                    self._sleep(wait)
                    continue
                raise bedrock_error(error, f"uploading s3://{self._bucket}/{key}", self._advice(error, key)) from error
        raise AssertionError("the last attempt returns or raises")

    def _advice(self, error: Exception, key: str) -> str | None:
        """Return advice for an error, or None if this module has no specific advice."""
        if is_transient(error):
            return (
                f"All {len(RETRY_WAITS_S) + 1} attempts failed. Check the network, then start the upload again. Only "
                "the missing parts will be sent."
            )
        if error_code(error) in ("AccessDenied", "403"):
            return (
                f"Grant the caller s3:PutObject, s3:GetObject and s3:ListMultipartUploadParts on "
                f"arn:aws:s3:::{self._bucket}/{key} (and kms:GenerateDataKey and kms:Decrypt if the bucket is "
                "encrypted with your own key), then start the upload again. Parts that have arrived are kept."
            )
        return None
