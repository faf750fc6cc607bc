"""A fake account without a network: the parts of SageMaker, S3 and CloudWatch Logs that the launcher uses."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from typing import Any

import boto3
from botocore.exceptions import ClientError

from sqlquarry import QLoRAFSDPTrainer, Record
from sqlquarry.aws import Polling
from sqlquarry.sagemaker import SageMakerLauncher

REGION = "eu-west-1"
ROLE = "arn:aws:iam::123456789012:role/training"
RECORDS = [Record("How many?", "CREATE TABLE t (a INT)", "SELECT COUNT(*) FROM t")]
TRAINER = QLoRAFSDPTrainer("meta-llama/Meta-Llama-3-8B-Instruct")
TOKEN = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:hugging-face-AbCdEf"
API_KEY = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:wandb-AbCdEf"
KEY = f"arn:aws:kms:{REGION}:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def refusal(code: str, message: str, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@functools.cache
def _sagemaker_meta() -> Any:
    """A client's region and service model."""
    return (
        boto3.session.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name=REGION)
        .client("sagemaker")
        .meta
    )


class Account:
    """A fake boto3 session. `jobs` are descriptions of training jobs, and `looks` change them at each request."""

    def __init__(self, *, bucket_region: str = REGION) -> None:
        self.bucket_region = bucket_region
        self.objects: dict[str, bytes] = {}
        self.read: dict[str, int] = {}  # key -> requested bytes
        self.puts: list[dict[str, Any]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.requests: list[dict[str, Any]] = []
        self.looks: list[dict[str, Any]] = []  # changes to a job at the next requests for its description
        self.refusing: Exception | None = None
        self.events: dict[str, list[str]] = {}
        self.stopped: list[str] = []
        self.meta = _sagemaker_meta()

    def client(self, *_: Any, **__: Any) -> Account:
        return self

    # SageMaker

    def create_training_job(self, **request: Any) -> None:
        if self.refusing:
            raise self.refusing
        self.requests.append(request)
        self.jobs[request["TrainingJobName"]] = request | {
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
        }

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803 - the API's name
        if TrainingJobName not in self.jobs:
            raise refusal("ValidationException", "Requested resource not found.")
        if self.looks:
            self.jobs[TrainingJobName] |= self.looks.pop(0)
        return self.jobs[TrainingJobName]

    def stop_training_job(self, TrainingJobName: str) -> None:  # noqa: N803 - the API's name
        self.stopped.append(TrainingJobName)

    # S3

    def head_bucket(self, Bucket: str) -> dict[str, str]:  # noqa: N803 - the API's name
        if Bucket == "missing":
            raise refusal("404", "Not Found", "HeadBucket")
        return {"BucketRegion": self.bucket_region}

    def head_object(self, *, Key: str, **_: str) -> dict[str, Any]:  # noqa: N803 - the API's name
        if Key not in self.objects:
            raise refusal("404", "Not Found", "HeadObject")
        checksum = base64.b64encode(hashlib.sha256(self.objects[Key]).digest()).decode()
        return {"ContentLength": len(self.objects[Key]), "ChecksumSHA256": checksum}

    def get_object(self, *, Key: str, Range: str = "", **_: str) -> dict[str, Any]:  # noqa: N803 - the API's names
        start, end = map(int, Range.removeprefix("bytes=").split("-")) if Range else (0, len(self.objects[Key]))
        content = self.objects[Key][start : end + 1]
        self.read[Key] = self.read.get(Key, 0) + len(content)
        return {"Body": io.BytesIO(content), "ContentLength": len(content)}

    def put_object(self, *, Key: str, Body: bytes, **options: Any) -> None:  # noqa: N803 - the API's names
        self.puts.append({"Key": Key, **options})
        self.objects[Key] = Body

    def upload_file(self, path: str, bucket: str, key: str, **options: Any) -> None:
        with open(path, "rb") as file:  # noqa: PTH123 - as boto3 does
            self.put_object(Bucket=bucket, Key=key, Body=file.read(), **options)

    # CloudWatch Logs

    def get_paginator(self, operation: str) -> Account:
        assert operation in ("describe_log_streams", "list_objects_v2")
        return self

    def paginate(self, **filters: str) -> list[dict[str, Any]]:
        if "Prefix" in filters:
            found = {key: body for key, body in self.objects.items() if key.startswith(filters["Prefix"])}
            return [{"Contents": [{"Key": key, "Size": len(body), "ETag": '"etag"'} for key, body in found.items()]}]
        if not self.events:
            raise refusal("ResourceNotFoundException", "The specified log group does not exist.")
        prefix = filters["logStreamNamePrefix"]
        return [{"logStreams": [{"logStreamName": name} for name in self.events if name.startswith(prefix)]}]

    def get_log_events(self, *, logStreamName: str, nextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803 - the API's names
        fresh = self.events[logStreamName][int(nextToken) :][:2]
        return {"events": [{"message": line} for line in fresh], "nextForwardToken": str(int(nextToken) + len(fresh))}


def launcher(account: Account | None = None, **changes: Any) -> SageMakerLauncher:
    polling = Polling(interval_s=0.001)
    options = {"bucket": "models", "session": account or Account(), "polling": polling} | changes
    return SageMakerLauncher(ROLE, **options)
