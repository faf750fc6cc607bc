"""SageMaker's training jobs: their operations, and the threads that run them.

Source: SageMaker API reference (CreateTrainingJob and its neighbours). Words of errors are the service's own, as users
report them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlquarry.emulator.faults import Clock, Faults
from sqlquarry.emulator.requests.api import ApiError, Parameters, validate
from sqlquarry.emulator.training.files import S3Files
from sqlquarry.emulator.training.job import ENDED, TrainingJob
from sqlquarry.emulator.training.request import refuse
from sqlquarry.emulator.training.run import LOG_GROUP, TrainingRun

_LIST_ORDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Name": lambda job: job["TrainingJobName"],
    "CreationTime": lambda job: job["CreationTime"],
    "Status": lambda job: job["TrainingJobStatus"],
}


class TrainingJobs:
    """Operations of SageMaker that concern training jobs; each maps parameters to an answer.

    Args:
        storage: a directory of its own, for the file systems of running jobs.
        session: makes a boto3 session of this emulator; each is used by one thread at a time.
        aws: gives the environment variables that lead AWS clients here.
        role_is_trusted: whether a role of this ARN exists and SageMaker may assume it.
        arn_prefix: ``arn:aws:sagemaker:<region>:<account>``.
        region: where jobs run.
        faults: what goes wrong on purpose.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        storage: Path,
        session: Callable[[], Any],
        aws: Callable[[], dict[str, str]],
        role_is_trusted: Callable[[str], bool],
        arn_prefix: str,
        region: str,
        faults: Faults,
        clock: Clock = time.monotonic,
    ) -> None:
        self._storage, self._session, self._aws = storage, session, aws
        self._role_is_trusted, self._arn_prefix, self._region = role_is_trusted, arn_prefix, region
        self._faults, self._clock = faults, clock
        self._began = datetime.now(UTC) - timedelta(seconds=clock())
        self._jobs: dict[str, TrainingJob] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()

    # One method per operation, named as botocore names it.

    def create_training_job(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - SageMaker's own operation
        session = self._session()
        s3 = session.client("s3")
        refuse(
            parameters,
            region=self._region,
            role_is_trusted=self._role_is_trusted,
            has_objects=lambda uri: _has_objects(s3, uri),
        )
        name = parameters["TrainingJobName"]
        job = TrainingJob(f"{self._arn_prefix}:training-job/{name}", parameters, self._now())
        job.enter("Starting", job.created)
        with self._lock:
            if name in self._jobs:
                raise ApiError(
                    "ResourceInUse",
                    "Training job names must be unique within an AWS account and Region, and a training job with this "
                    f"name already exists ({job.arn})",
                )
            self._jobs[name] = job
            self._tags[job.arn] = {tag["Key"]: tag["Value"] for tag in parameters.get("Tags", [])}
            run = self._new_run(job, session)
            self._threads.append(threading.Thread(target=run.run, name=f"training-{name}", daemon=True))
            self._threads[-1].start()
        return {"TrainingJobArn": job.arn}

    def describe_training_job(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - SageMaker's own operation
        return self._job(parameters).details()

    def list_training_jobs(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - SageMaker's own operation
        validate("ListTrainingJobs", parameters, service="sagemaker")
        with self._lock:
            found = [job.summary() for job in self._jobs.values()]
        for bound, key in (("CreationTime", "CreationTime"), ("LastModifiedTime", "LastModifiedTime")):
            after, before = parameters.get(f"{bound}After"), parameters.get(f"{bound}Before")
            found = [
                job for job in found if (after is None or job[key] > after) and (before is None or job[key] < before)
            ]
        wanted = parameters.get("StatusEquals")
        found = [
            job
            for job in found
            if parameters.get("NameContains", "") in job["TrainingJobName"]
            and wanted in (None, job["TrainingJobStatus"])
        ]
        order = _LIST_ORDERS[parameters.get("SortBy", "CreationTime")]
        found.sort(key=order, reverse=parameters.get("SortOrder") == "Descending")
        token = parameters.get("NextToken", "0")
        if not token.isdecimal():
            raise ApiError("ValidationException", f"NextToken {token!r} is not one that this operation gave")
        start, size = int(token), parameters.get("MaxResults", 10)
        answer: dict[str, Any] = {"TrainingJobSummaries": found[start : start + size]}
        return answer | ({"NextToken": str(start + size)} if start + size < len(found) else {})

    def stop_training_job(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - SageMaker's own operation
        job = self._job(parameters)
        if job.status in ENDED:
            raise ApiError(
                "ValidationException", f"The request was rejected because the training job is in status {job.status}"
            )
        job.stop_requested = True
        return {}

    def delete_training_job(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - SageMaker's own operation
        job = self._job(parameters)
        if job.status not in ENDED:
            raise ApiError("ResourceInUse", f"The training job {job.name} is in status {job.status}: stop it first")
        with self._lock:
            self._jobs.pop(job.name, None)
            self._tags.pop(job.arn, None)
        return {}

    def add_tags(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - SageMaker's own operation
        tags = self._tags_of(parameters)
        tags |= {tag["Key"]: tag["Value"] for tag in parameters["Tags"]}
        return self.list_tags(parameters)

    def delete_tags(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - SageMaker's own operation
        tags = self._tags_of(parameters)
        for key in parameters["TagKeys"]:
            tags.pop(key, None)
        return {}

    def list_tags(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - SageMaker's own operation
        return {"Tags": [{"Key": key, "Value": value} for key, value in self._tags_of(parameters).items()]}

    def reset(self) -> None:
        """End every job with its processes, forget them all, and begin with an empty log."""
        self.close()
        with self._lock:
            self._jobs.clear()
            self._tags.clear()
            self._closing = threading.Event()
        logs = self._session().client("logs")
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=LOG_GROUP)

    def close(self) -> None:
        """End every job with its processes, and wait for that."""
        self._closing.set()
        with self._lock:
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()

    def _new_run(self, job: TrainingJob, session: Any) -> TrainingRun:
        return TrainingRun(
            job,
            directory=self._storage / f"training-{job.name}",
            session=session,
            aws=self._aws(),
            faults=self._faults,
            clock=self._clock,
            now=self._now,
            closing=self._closing,
        )

    def _job(self, parameters: Parameters) -> TrainingJob:
        with self._lock:
            if job := self._jobs.get(parameters["TrainingJobName"]):
                return job
        raise ApiError("ValidationException", "Requested resource not found.")  # not ResourceNotFound, as documented

    def _tags_of(self, parameters: Parameters) -> dict[str, str]:
        arn = parameters["ResourceArn"]
        if arn not in self._tags:
            raise ApiError("ValidationException", f"The resource {arn} does not exist")
        return self._tags[arn]

    def _now(self) -> datetime:
        return self._began + timedelta(seconds=self._clock())


def _has_objects(s3: Any, uri: str) -> bool:
    with suppress(s3.exceptions.ClientError):
        return bool(S3Files(s3).names(uri))
    return False
