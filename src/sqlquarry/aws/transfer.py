"""Files to S3: requests in parallel over files and within them, constant memory, only missing parts travel.

A thread takes the next part, reads and hashes it when those before it are hashed, and sends the very bytes that it
hashed. A file whose SHA-256 is not the expected one is never completed. What a broken run leaves is an unfinished
multipart upload, which the next run finds by listing and continues; nothing is aborted here.

Source: "Uploading and copying objects using multipart upload" and "Checking object integrity",
docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html and …/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlquarry.aws.advice import explained, is_transient
from sqlquarry.aws.clients import ClientOptions
from sqlquarry.aws.failures import error_code
from sqlquarry.aws.parallel import parallel
from sqlquarry.errors import CorruptArtifactError
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
Answer = TypeVar("Answer")

PART_BYTES = 16 * 2**20
REQUESTS_IN_FLIGHT = 8
_FILES_AT_ONCE = 4  # of one file, parts are read and hashed one after the other
_SEND_BYTES = 2**20
MAX_PARTS = 10_000  # S3's limit for one object
SHA256 = "sha256"  # the object metadata that makes a second run skip what is there
# For the client: requests have checksums that S3 verifies, so payloads are not hashed a second time for signing (over
# https botocore leaves that out by itself), and waits between tries are ours.
CLIENT_OPTIONS: ClientOptions = {
    "attempts": 3,
    "max_pool_connections": REQUESTS_IN_FLIGHT,
    "sign_payloads": False,
}
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One object to be.

    Args:
        key: the object's key.
        content: its bytes, or the file that holds them.
        size: bytes.
        sha256: what the content must hash to (hex).
    """

    key: str
    content: bytes | Path
    size: int
    sha256: str


class _Sending:
    """A file on its way: its parts, which threads read in turn, and its multipart upload ("" for one request)."""

    def __init__(self, file: Outgoing, part_bytes: int) -> None:
        whole = isinstance(file.content, bytes)
        self.file = file
        self.parts = 1 if whole else max(1, -(-file.size // part_bytes))
        self.upload_id = ""
        self.there: Mapping[int, Mapping[str, Any]] = {}  # the parts that S3 has, by their numbers
        self._part_bytes = part_bytes
        self._sha256, self._next, self._turn = hashlib.sha256(), 1, threading.Condition()

    def read(self, number: int) -> bytes:
        """Part `number`, from 1, hashed; waits for those before it."""
        with self._turn:
            self._turn.wait_for(lambda: self._next == number)
            try:
                data = self._read(number)
                self._sha256.update(data)
            finally:  # nobody waits for a part that could not be read; without it no hash is right
                self._next += 1
                self._turn.notify_all()
            return data

    def _read(self, number: int) -> bytes:
        if isinstance(self.file.content, bytes):
            return self.file.content
        with self.file.content.open("rb", buffering=0) as source:
            source.seek((number - 1) * self._part_bytes)
            return source.read(self._part_bytes + (number == self.parts))  # a file that grew fails its hash

    def require_hash(self) -> None:
        if self._sha256.hexdigest() != self.file.sha256:
            raise CorruptArtifactError(
                f"{self.file.content!s:.200} differs from its SHA-256 ({self.file.sha256}), so {self.file.key} was not "
                "finished. It was changed or damaged since it was hashed; make it again, then run this again."
            )


class _Body(io.BytesIO):
    """A part as botocore sends it: views of 1 MiB, however little is asked for.

    Of bytes, botocore makes a BytesIO, which urllib3 copies and sends 128 KiB at a time; that takes 1.5 times the CPU.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._view = memoryview(data)

    def read(self, size: int | None = -1, /) -> Any:
        if size is None or size < 0:
            return super().read()
        chunk = self._view[self.tell() :][: max(size, _SEND_BYTES)]
        self.seek(len(chunk), io.SEEK_CUR)
        return chunk


class Transfer:
    """Sends objects to one bucket.

    Args:
        s3: a boto3 S3 client.
        bucket: the bucket.
        part_bytes: size of a part, more where a file would have too many; S3 takes no part below 5 MiB but the last.
        requests_in_flight: requests at a time; as many parts are in memory.
        sleep: waits between tries; injected by tests.
        sent: told the bytes of every part that is there.
    """

    def __init__(
        self,
        s3: Any,
        bucket: str,
        *,
        part_bytes: int = PART_BYTES,
        requests_in_flight: int = REQUESTS_IN_FLIGHT,
        sleep: Callable[[float], None] = time.sleep,
        sent: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._s3, self._bucket, self._sleep, self._sent = s3, bucket, sleep, sent
        self._part_bytes, self._requests_in_flight = part_bytes, requests_in_flight

    def send(self, files: Sequence[Outgoing], prefix: str) -> None:
        """Send files, in their order; `prefix` is what their keys have in common.

        Raises:
            CorruptArtifactError: a file does not hash to its SHA-256.
            BedrockError: S3 refused, or the connection broke again and again; what arrived is kept.
        """
        large = any(file.size > self._part_bytes for file in files)
        unfinished = self._unfinished(prefix) if large else {}
        done: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for _, (sending, part, size) in parallel(
            self._send_part, self._parts(files, unfinished), self._requests_in_flight
        ):
            self._sent(size)
            if part is not None:
                parts = done[sending.file.key]
                parts.append(part)
                if len(parts) == sending.parts:
                    sending.require_hash()
                    self._complete(sending, parts)

    def _parts(self, files: Sequence[Outgoing], unfinished: Mapping[str, str]) -> Iterator[tuple[_Sending, int]]:
        """The parts of some files at a time, in turn."""
        waiting, sending = deque(files), deque[Iterator[tuple[_Sending, int]]]()
        while waiting or sending:
            while waiting and len(sending) < _FILES_AT_ONCE:
                file = waiting.popleft()
                sending.append(self._parts_of(file, unfinished.get(file.key)))
            part = next(sending[0], None)
            if part is None:
                sending.popleft()
            else:
                sending.rotate(-1)
                yield part

    def _parts_of(self, file: Outgoing, unfinished: str | None) -> Iterator[tuple[_Sending, int]]:
        sending = _Sending(file, max(self._part_bytes, -(-file.size // MAX_PARTS)))
        if sending.parts > 1:
            self._open(sending, unfinished)
        for number in range(1, sending.parts + 1):
            yield sending, number

    def _send_part(self, item: tuple[_Sending, int]) -> tuple[_Sending, dict[str, Any] | None, int]:
        sending, number = item
        data = sending.read(number)
        file, size, place = sending.file, len(data), {"Bucket": self._bucket, "Key": sending.file.key}
        if not sending.upload_id:
            sending.require_hash()
            checksum = base64.b64encode(bytes.fromhex(file.sha256)).decode()
            metadata = {SHA256: file.sha256}
            self._try(file, lambda: self._s3.put_object(**place, Body=data, Metadata=metadata, ChecksumSHA256=checksum))
            return sending, None, size
        crc32 = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        sent = {"PartNumber": number, "ChecksumCRC32": crc32}
        there = sending.there.get(number)
        if there is not None and _is_the_same(there, data, crc32):
            return sending, sent | {"ETag": there["ETag"]}, size
        options = {**place, **sent, "UploadId": sending.upload_id}
        answer = self._try(file, lambda: self._s3.upload_part(**options, Body=_Body(data)))
        return sending, sent | {"ETag": answer["ETag"]}, size

    def _unfinished(self, prefix: str) -> dict[str, str]:
        """Key -> id of the newest unfinished upload below a prefix."""
        from botocore.exceptions import ClientError

        found: dict[str, tuple[Any, str]] = {}
        try:
            pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
            for item in (item for page in pages for item in page.get("Uploads", ())):
                newest = (item["Initiated"], item["UploadId"])
                found[item["Key"]] = max(newest, found.get(item["Key"], newest))
        except ClientError as error:
            if error_code(error) not in ("AccessDenied", "403"):
                raise
            logger.warning("s3:ListBucketMultipartUploads is not granted, so files begin at their first part")
        return {key: upload_id for key, (_, upload_id) in found.items()}

    def _open(self, sending: _Sending, unfinished: str | None) -> None:
        """Find the multipart upload that takes the file's parts, and those that it has, or begin one."""
        file, place = sending.file, {"Bucket": self._bucket, "Key": sending.file.key}
        if unfinished is not None:
            pages = self._s3.get_paginator("list_parts").paginate(**place, UploadId=unfinished)
            sending.there = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
            sending.upload_id = unfinished
            logger.info("%s is resumed: %d of its parts are there", file.key, len(sending.there))
        else:
            options = {"Metadata": {SHA256: file.sha256}, "ChecksumAlgorithm": "CRC32"}
            answer = self._try(file, lambda: self._s3.create_multipart_upload(**place, **options))
            sending.upload_id = answer["UploadId"]

    def _complete(self, sending: _Sending, parts: list[dict[str, Any]]) -> None:
        file, upload_id = sending.file, sending.upload_id
        place = {"Bucket": self._bucket, "Key": file.key}
        in_order = {"Parts": sorted(parts, key=lambda part: int(part["PartNumber"]))}
        self._try(
            file, lambda: self._s3.complete_multipart_upload(**place, UploadId=upload_id, MultipartUpload=in_order)
        )
        head = self._try(file, lambda: self._s3.head_object(**place))
        if head.get("Metadata", {}).get(SHA256) != file.sha256:
            # Metadata is fixed when an upload begins: this one was begun for other content with the same first parts.
            options: dict[str, Any] = {
                "Metadata": {SHA256: file.sha256},
                "MetadataDirective": "REPLACE",
                "CopySource": place,
                "ChecksumAlgorithm": "CRC32",
            }
            self._try(file, lambda: self._s3.copy_object(**place, **options))

    def _try(self, file: Outgoing, request: Callable[[], Answer]) -> Answer:
        """The answer to a request, tried again while the trouble may pass."""
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"s3://{self._bucket}/{file.key}"
        for wait in (*RETRY_WAITS_S, None):
            try:
                return request()
            except (BotoCoreError, ClientError) as error:
                transient = is_transient(error)
                if transient and wait is not None:
                    logger.warning("%s: %s; trying again in %.0f s", file.key, error_code(error), wait)
                    self._sleep(wait)
                    continue
                advice = None
                if transient:
                    advice = (
                        f"It was tried {len(RETRY_WAITS_S) + 1} times. Check the network, then run it again: it "
                        "continues with the parts that are missing."
                    )
                elif error_code(error) in ("AccessDenied", "403"):
                    advice = (
                        f"Grant the caller s3:PutObject, s3:GetObject and s3:ListMultipartUploadParts on "
                        f"arn:aws:s3:::{self._bucket}/{file.key} (and kms:GenerateDataKey and kms:Decrypt where the "
                        "bucket is encrypted with a key of yours), then run it again: what arrived is kept."
                    )
                raise explained(error, f"uploading {where}", advice) from error
        raise AssertionError("the last try returns or raises")


def _is_the_same(there: Mapping[str, Any], data: bytes, crc32: str) -> bool:
    """Whether a part that S3 has holds `data`: by size and checksum, else by the MD5 that an ETag is without KMS."""
    if there["Size"] != len(data):
        return False
    if "ChecksumCRC32" in there:
        return bool(there["ChecksumCRC32"] == crc32)
    return bool(there["ETag"].strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest())
