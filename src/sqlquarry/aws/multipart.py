"""Multipart uploads that can be resumed. Parts that S3 has from an earlier run are not sent again.

Source: "Uploading and copying objects using multipart upload" and "Checking object integrity",
docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html and …/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, PartTypeDef

MAX_PARTS = 10_000  # S3's limit for one object
_SEND_BYTES = 2**20


def unfinished_uploads(client: S3Client, bucket: str, prefix: str) -> list[tuple[str, str]]:
    """List the key and upload ID of each upload below a prefix that is neither completed nor aborted, oldest first."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    found: list[tuple[datetime, str, str]] = [
        (item["Initiated"], item["UploadId"], item["Key"]) for page in pages for item in page.get("Uploads", ())
    ]
    return [(key, upload_id) for _, upload_id, key in sorted(found)]


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """An object that is being uploaded in parts.

    Args:
        client: boto3 S3 client.
        bucket: bucket of the object.
        key: key of the object.
        upload_id: S3's ID of the upload.
        present: parts that S3 has from an earlier run, by part number.
    """

    client: S3Client
    bucket: str
    key: str
    upload_id: str
    present: Mapping[int, PartTypeDef]

    @classmethod
    def begin(cls, client: S3Client, bucket: str, key: str, metadata: Mapping[str, str]) -> MultipartUpload:
        """Begin to upload an object with this metadata."""
        answer = client.create_multipart_upload(Bucket=bucket, Key=key, Metadata=metadata, ChecksumAlgorithm="CRC32")
        return cls(client, bucket, key, answer["UploadId"], {})

    @classmethod
    def resume(cls, client: S3Client, bucket: str, key: str, upload_id: str) -> MultipartUpload:
        """Return an unfinished upload of an earlier run, with the parts that S3 already has."""
        pages = client.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload_id)
        present = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        return cls(client, bucket, key, upload_id, present)

    def send(self, number: int, data: bytes | bytearray) -> CompletedPartTypeDef:
        """Send part `number` (from 1) unless S3 already has it, and return the entry that `complete` needs."""
        crc32 = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        listed = self.present.get(number)
        if listed is not None and _has_content(listed, data, crc32):
            etag = listed["ETag"]
        else:
            etag = self.client.upload_part(
                Bucket=self.bucket,
                Key=self.key,
                UploadId=self.upload_id,
                PartNumber=number,
                Body=_Body(data),
                ChecksumCRC32=crc32,
            )["ETag"]
        return {"PartNumber": number, "ChecksumCRC32": crc32, "ETag": etag}

    def complete(self, parts: Sequence[CompletedPartTypeDef]) -> None:
        """Create the object from its parts, which may be in any order."""
        in_order = sorted(parts, key=lambda part: part["PartNumber"])
        self.client.complete_multipart_upload(
            Bucket=self.bucket, Key=self.key, UploadId=self.upload_id, MultipartUpload={"Parts": in_order}
        )


class _Body(io.BytesIO):
    """The body of a part. Every read returns a view of at least 1 MiB, even if the reader requests less.

    botocore would wrap bytes in a BytesIO, which urllib3 copies and sends 128 KiB at a time. That takes 1.5 times the
    CPU time.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        super().__init__(data)
        self._view = memoryview(data)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return super().read()
        chunk = self._view[self.tell() :][: max(size, _SEND_BYTES)]
        self.seek(len(chunk), io.SEEK_CUR)
        return chunk  # type: ignore[return-value] # urllib3 takes any buffer


def _has_content(part: PartTypeDef, data: bytes | bytearray, crc32: str) -> bool:
    """Return whether a part on S3 contains `data`.

    Size and CRC32 are compared. If S3 has no CRC32, the ETag is compared, which is the MD5 unless KMS is used.
    """
    if part["Size"] != len(data):
        return False
    if "ChecksumCRC32" in part:
        return part["ChecksumCRC32"] == crc32
    return part["ETag"].strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()
