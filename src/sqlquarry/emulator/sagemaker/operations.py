"""SageMaker's operations for training jobs, and the threads that run the jobs.

Source: SageMaker API reference (CreateTrainingJob and related operations). Error messages are the service's own, as
reported by users.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.emulator.clock import Clock
from sqlquarry.emulator.faults import Faults
from sqlquarry.emulator.requests.errors import ApiError, invalid
from sqlquarry.emulator.requests.pages import cut_page, is_between
from sqlquarry.emulator.requests.parameters import ApiAnswer, validate
from sqlquarry.emulator.sagemaker.job_record import ENDED, TrainingJobRecord
from sqlquarry.emulator.sagemaker.job_run import LOG_GROUP, TrainingJobRun
from sqlquarry.emulator.sagemaker.request_checks import check_request
from sqlquarry.emulator.sagemaker.s3_files import S3Files

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import type_defs as sagemaker


class TrainingJobs:
    """SageMaker's operations for training jobs. Each maps parameters to an answer.

    Args:
        storage: separate directory for the file systems of running jobs.
        session: creates a boto3 session of this emulator. One thread at a time uses a session.
        aws: returns environment variables that make AWS clients use this emulator.
        role_is_trusted: returns whether a role with this ARN exists and SageMaker may assume it.
        arn_prefix: ``arn:aws:sagemaker:<region>:<account>``.
        region: region of the jobs.
        faults: faults to apply.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        *,
        storage: Path,
        session: Callable[[], boto3.Session],
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
        self._jobs: dict[str, TrainingJobRecord] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()

    # There is one method per operation, with botocore's name.

    def create_training_job(self, parameters: sagemaker.CreateTrainingJobRequestTypeDef) -> ApiAnswer:
        """Check a request and start the job in a new thread."""
        session = self._session()
        s3 = session.client("s3")
        check_request(
            parameters,
            region=self._region,
            role_is_trusted=self._role_is_trusted,
            has_objects=lambda uri: _has_objects(s3, uri),
        )
        name = parameters["TrainingJobName"]
        job = TrainingJobRecord(f"{self._arn_prefix}:training-job/{name}", parameters, self._now())
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

    def describe_training_job(self, parameters: sagemaker.DescribeTrainingJobRequestTypeDef) -> ApiAnswer:
        """Return the details of a job."""
        return self._job(parameters["TrainingJobName"]).details()

    def list_training_jobs(self, parameters: sagemaker.ListTrainingJobsRequestTypeDef) -> ApiAnswer:
        """Return a page of the jobs."""
        validate("ListTrainingJobs", parameters, service="sagemaker")
        with self._lock:
            found = [job.summary() for job in self._jobs.values()]
        wanted = parameters.get("StatusEquals")
        found = [
            job
            for job in found
            if parameters.get("NameContains", "") in job["TrainingJobName"]
            and wanted in (None, job["TrainingJobStatus"])
            and is_between(
                job["CreationTime"], parameters.get("CreationTimeAfter"), parameters.get("CreationTimeBefore")
            )
            and is_between(
                job["LastModifiedTime"],
                parameters.get("LastModifiedTimeAfter"),
                parameters.get("LastModifiedTimeBefore"),
            )
        ]
        backwards = parameters.get("SortOrder") == "Descending"
        match parameters.get("SortBy", "CreationTime"):
            case "Name":
                found.sort(key=lambda job: job["TrainingJobName"], reverse=backwards)
            case "Status":
                found.sort(key=lambda job: job["TrainingJobStatus"], reverse=backwards)
            case _:
                found.sort(key=lambda job: job["CreationTime"], reverse=backwards)
        page, following = cut_page(
            found, parameters.get("MaxResults", 10), "NextToken", parameters.get("NextToken", "0")
        )
        answer: ApiAnswer = {"TrainingJobSummaries": page}
        return answer | ({"NextToken": following} if following else {})

    def stop_training_job(self, parameters: sagemaker.StopTrainingJobRequestTypeDef) -> ApiAnswer:
        """Ask a job to stop."""
        job = self._job(parameters["TrainingJobName"])
        if job.status in ENDED:
            raise invalid(f"The request was rejected because the training job is in status {job.status}")
        job.stop_requested = True
        return {}

    def delete_training_job(self, parameters: sagemaker.DeleteTrainingJobRequestTypeDef) -> ApiAnswer:
        """Delete a job that has ended."""
        job = self._job(parameters["TrainingJobName"])
        if job.status not in ENDED:
            raise ApiError("ResourceInUse", f"The training job {job.name} is in status {job.status}. Stop it first.")
        with self._lock:
            self._jobs.pop(job.name, None)
            self._tags.pop(job.arn, None)
        return {}

    def add_tags(self, parameters: sagemaker.AddTagsInputTypeDef) -> ApiAnswer:
        """Add tags to a job."""
        tags = self._tags_of(parameters["ResourceArn"])
        tags |= {tag["Key"]: tag["Value"] for tag in parameters["Tags"]}
        return self.list_tags({"ResourceArn": parameters["ResourceArn"]})

    def delete_tags(self, parameters: sagemaker.DeleteTagsInputTypeDef) -> ApiAnswer:
        """Remove tags from a job."""
        tags = self._tags_of(parameters["ResourceArn"])
        for key in parameters["TagKeys"]:
            tags.pop(key, None)
        return {}

    def list_tags(self, parameters: sagemaker.ListTagsInputTypeDef) -> ApiAnswer:
        """Return the tags of a job."""
        tags = self._tags_of(parameters["ResourceArn"])
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def reset(self) -> None:
        """Stop and delete all jobs, and start with an empty log."""
        self.close()
        with self._lock:
            self._jobs.clear()
            self._tags.clear()
            self._closing = threading.Event()
        logs = self._session().client("logs")
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=LOG_GROUP)

    def close(self) -> None:
        """Stop all jobs and their processes, and wait until they have ended."""
        self._closing.set()
        with self._lock:
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()

    def _new_run(self, job: TrainingJobRecord, session: boto3.Session) -> TrainingJobRun:
        return TrainingJobRun(
            job,
            directory=self._storage / f"training-{job.name}",
            session=session,
            aws=self._aws(),
            faults=self._faults,
            clock=self._clock,
            now=self._now,
            closing=self._closing,
        )

    def _job(self, name: str) -> TrainingJobRecord:
        with self._lock:
            if job := self._jobs.get(name):
                return job
        raise invalid("Requested resource not found.")  # the service does not use the documented ResourceNotFound

    def _tags_of(self, arn: str) -> dict[str, str]:
        if arn not in self._tags:
            raise invalid(f"The resource {arn} does not exist")
        return self._tags[arn]

    def _now(self) -> datetime:
        return self._began + timedelta(seconds=self._clock())


def _has_objects(s3: S3Client, uri: str) -> bool:
    with suppress(s3.exceptions.ClientError):
        return bool(S3Files(s3).names(uri))
    return False
