"""What a job reads, on S3 under names that are made of its content: nothing is sent twice.

An object that is there already counts only if S3's own SHA-256 of it is that of the content. The job verifies its
inputs once more when it has received them (`bootstrap.verify`), against digests that its request carries.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlquarry.aws import transfer_config
from sqlquarry.files.digests import sha256_file
from sqlquarry.sagemaker import bootstrap
from sqlquarry.sagemaker.failures import error_code, explained
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
_PART_BYTES = 64 * 2**20  # of a file; 10,000 parts are S3's limit


@dataclass(frozen=True)
class Channel:
    """One input of the job: files that lie below ``/opt/ml/input/data/<name>/`` in the container.

    Args:
        name: the channel's name.
        files: file name -> content, or the path of a local file.
    """

    name: str
    files: Mapping[str, bytes | Path]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over names and contents."""
        contents = {
            name: sha256_file(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
            for name, content in self.files.items()
        }
        return bootstrap.digest(contents)

    @property
    def key(self) -> str:
        """Where it lies below the launcher's prefix."""
        return channel_key(self.name, self.digest)


def channel_key(name: str, digest: str) -> str:
    """Return where a channel of this digest is below the launcher's prefix."""
    return f"inputs/{name}-{digest[:16]}/"


def upload(s3: Any, bucket: str, prefix: str, channel: Channel, kms_key_arn: str | None) -> None:
    """Send the files of a channel that are not there yet; S3 compares each with its SHA-256.

    Raises:
        TrainingError: S3 refused; the message says what to do.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_arn} if kms_key_arn else {}
    for name, content in channel.files.items():
        key = f"{prefix}{channel.key}{name}"
        try:
            there = _checksum(s3, bucket, key)
            if there == _expected_checksum(content):
                continue
            if there is not None:
                logger.warning("s3://%s/%s was changed or has no SHA-256; sending %s again", bucket, key, name)
            logger.info("sending %s to s3://%s/%s", name, bucket, key)
            if isinstance(content, Path):
                options = {"ChecksumAlgorithm": "SHA256", **extra}
                config = transfer_config(part_bytes=_PART_BYTES)
                s3.upload_file(str(content), bucket, key, ExtraArgs=options, Config=config)
            else:
                s3.put_object(Bucket=bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256", **extra)
        except (BotoCoreError, ClientError, _s3_upload_failed()) as error:
            raise explained(error, f"sending {name} to s3://{bucket}/{key}") from error


def _expected_checksum(content: bytes | Path) -> str:
    """Return what S3 says of the content in ChecksumSHA256; of a file of several parts, the hash of their hashes.

    Source: "Checking object integrity for data uploads", composite checksums,
    docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    if isinstance(content, bytes) or content.stat().st_size < _PART_BYTES:
        whole = content if isinstance(content, bytes) else content.read_bytes()
        return base64.b64encode(hashlib.sha256(whole).digest()).decode()
    with content.open("rb") as file:
        parts = [hashlib.sha256(part).digest() for part in iter(lambda: file.read(_PART_BYTES), b"")]
    return f"{base64.b64encode(hashlib.sha256(b''.join(parts)).digest()).decode()}-{len(parts)}"


def _checksum(s3: Any, bucket: str, key: str) -> str | None:
    """Return an object's ChecksumSHA256, "" if it has none; None if there is no object."""
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        return str(head.get("ChecksumSHA256", ""))
    except ClientError as error:
        if error_code(error) not in ("404", "NoSuchKey", "NotFound"):
            raise
        return None


def _s3_upload_failed() -> type[Exception]:
    from boto3.exceptions import S3UploadFailedError

    failed: type[Exception] = S3UploadFailedError
    return failed
