"""Send a job's inputs to S3 under names derived from their content, so that nothing is sent twice.

An existing object is reused only if S3's own SHA-256 matches the content. The job verifies its inputs again when it has
received them (`bootstrap.verify`), with the digests in its request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.prefix import S3Prefix, WriteOptions
from sqlquarry.errors import TrainingError
from sqlquarry.files.digests import sha256_file
from sqlquarry.files.locations import S3Location
from sqlquarry.sagemaker import bootstrap
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = visible_logger(__name__)
_PART_BYTES = 64 * 2**20  # S3 allows at most 10,000 parts per file


@dataclass(frozen=True)
class Channel:
    """An input of the job, with files below ``/opt/ml/input/data/<name>/`` in the container.

    Args:
        name: the channel's name.
        files: file name -> content, or the path of a local file.
    """

    name: str
    files: Mapping[str, bytes | Path]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the names and contents of the files."""
        contents = {
            name: sha256_file(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
            for name, content in self.files.items()
        }
        return bootstrap.digest(contents)

    @property
    def key(self) -> str:
        """The channel's folder below the launcher's prefix."""
        return channel_key(self.name, self.digest)


def channel_key(name: str, digest: str) -> str:
    """Return the folder of a channel with this digest below the launcher's prefix."""
    return f"inputs/{name}-{digest[:16]}/"


def upload(prefix: S3Prefix, channel: Channel) -> None:
    """Send the files of a channel that are not on S3 yet. S3 compares each with its SHA-256.

    Args:
        prefix: the launcher's prefix from `staging_prefix`.
        channel: the channel to send.

    Raises:
        TrainingError: S3 refused a request. The message says what to do.
    """
    for name, content in channel.files.items():
        key = channel.key + name
        uri = prefix.location.uri_of(key)
        with aws_errors(TrainingError, f"sending {name} to {uri}", service="sagemaker"):
            there = _stored_checksum(prefix, key)
            if there == _expected_checksum(content):
                continue
            if there is not None:
                logger.warning("%s was changed or has no SHA-256, so %s is sent again", uri, name)
            logger.info("sending %s to %s", name, uri)
            if isinstance(content, Path):
                prefix.upload(content, key, part_bytes=_PART_BYTES)
            else:
                prefix.write(key, content)


def staging_prefix(s3: S3Client, bucket: str, prefix: str, kms_key_arn: str | None) -> S3Prefix:
    """Return a launcher's prefix. S3 stores a SHA-256 with its objects and encrypts them if a key is given."""
    options: WriteOptions = {"ChecksumAlgorithm": "SHA256"}
    if kms_key_arn:
        options |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_arn}
    return S3Prefix(s3, S3Location(bucket, prefix), options)


def _expected_checksum(content: bytes | Path) -> str:
    """Return S3's ChecksumSHA256 for the content. For a file with several parts, it is the hash of the parts' hashes.

    Source: "Checking object integrity for data uploads", composite checksums,
    docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    if isinstance(content, bytes) or content.stat().st_size < _PART_BYTES:
        whole = content if isinstance(content, bytes) else content.read_bytes()
        return base64.b64encode(hashlib.sha256(whole).digest()).decode()
    with content.open("rb") as file:
        parts = [hashlib.sha256(part).digest() for part in iter(lambda: file.read(_PART_BYTES), b"")]
    return f"{base64.b64encode(hashlib.sha256(b''.join(parts)).digest()).decode()}-{len(parts)}"


def _stored_checksum(prefix: S3Prefix, name: str) -> str | None:
    """Return an object's ChecksumSHA256, "" if it has none, or None if the object does not exist."""
    head = prefix.head(name, with_checksum=True)
    return None if head is None else head.get("ChecksumSHA256", "")
