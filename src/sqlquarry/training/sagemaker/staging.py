"""What a job reads, on S3 under names that are made of its content: nothing is sent twice, nothing is overwritten."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import sha256_file
from sqlquarry.aws import transfer_config
from sqlquarry.training.sagemaker.failures import error_code, explained

logger = logging.getLogger(__name__)


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
            for name, content in sorted(self.files.items())
        }
        return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in contents.items()).encode()).hexdigest()

    @property
    def key(self) -> str:
        """Where it lies below the launcher's prefix."""
        return f"inputs/{self.name}-{self.digest[:16]}/"


def upload(s3: Any, bucket: str, prefix: str, channel: Channel, kms_key_arn: str | None) -> None:
    """Send the files of a channel that are not there yet; S3 compares each with its SHA-256.

    Raises:
        TrainingError: S3 refused; the message says what to do.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_arn} if kms_key_arn else {}
    for name, content in channel.files.items():
        key = f"{prefix}{channel.key}{name}"
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        try:
            # The key names the content, and an object is there as a whole or not at all.
            if _size(s3, bucket, key) == size:
                continue
            logger.info("sending %s (%d bytes) to s3://%s/%s", name, size, bucket, key)
            if isinstance(content, Path):
                options = {"ChecksumAlgorithm": "SHA256", **extra}
                s3.upload_file(str(content), bucket, key, ExtraArgs=options, Config=transfer_config())
            else:
                s3.put_object(Bucket=bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256", **extra)
        except (BotoCoreError, ClientError, _s3_upload_failed()) as error:
            raise explained(error, f"sending {name} to s3://{bucket}/{key}") from error


def _size(s3: Any, bucket: str, key: str) -> int | None:
    from botocore.exceptions import ClientError

    try:
        return int(s3.head_object(Bucket=bucket, Key=key)["ContentLength"])
    except ClientError as error:
        if error_code(error) not in ("404", "NoSuchKey", "NotFound"):
            raise
        return None


def _s3_upload_failed() -> type[Exception]:
    from boto3.exceptions import S3UploadFailedError

    failed: type[Exception] = S3UploadFailedError
    return failed
