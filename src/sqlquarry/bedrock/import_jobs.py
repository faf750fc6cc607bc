"""Create, find, list and wait for the import jobs and imported models of an account.

Source: Bedrock API reference (CreateModelImportJob and related operations). The API has no waiters, and no operation
stops a job.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from sqlquarry.aws.failures import aws_errors, bedrock_error, error_code, is_transient, says
from sqlquarry.aws.known_errors import CONCURRENT_JOBS, INVALID_ROLE
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock.import_failures import job_advice
from sqlquarry.errors import BedrockError, ImportJobError, ImportTimeoutError
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock.type_defs import (
        CreateModelImportJobRequestTypeDef,
        GetImportedModelResponseTypeDef,
        GetModelImportJobResponseTypeDef,
        ListImportedModelsRequestPaginateTypeDef,
        ListModelImportJobsRequestPaginateTypeDef,
    )

logger = visible_logger(__name__)
_JOB_NAME_CHARACTERS = 63

MANIFEST_TAG = "sqlquarry:manifest"
PROMPT_TAG = "sqlquarry:prompt"
ROLE_RETRY_S = 10.0
# Reported import times: 10 to 18 minutes for 8B models (AWS's samples and a public run), 15 to 45 for larger ones.
_USUAL_BYTES = 20 * 10**9
_USUAL_MINUTES, _LONG_MINUTES = (10, 18), (15, 45)

ImportJobStatus = Literal["InProgress", "Completed", "Failed"]


@dataclass(frozen=True, slots=True)
class ImportJobSummary:
    """An import job in the account's list."""

    arn: str
    name: str
    status: ImportJobStatus
    model_name: str | None
    model_arn: str | None
    created: datetime
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class ImportedModelSummary:
    """An imported model in the account's list. `architecture` is the service's name, such as "llama"."""

    arn: str
    name: str
    architecture: str | None
    created: datetime


class ImportJobs:
    """The import jobs and imported models of one account and region.

    Every method raises `BedrockError` if AWS refuses a request.

    Args:
        bedrock: a boto3 client for "bedrock".
        polling: how often to look at a job, and for how long.
        role_propagation_s: seconds to keep trying while the service does not accept a new role yet.
        show_progress: show a progress bar (see `sqlquarry.progress.bar`).
    """

    def __init__(
        self, bedrock: BedrockClient, *, polling: Polling, role_propagation_s: float, show_progress: bool = True
    ) -> None:
        self._bedrock, self._polling = bedrock, polling
        self._role_propagation_s, self._show_progress = role_propagation_s, show_progress

    def tags(self, arn: str) -> dict[str, str]:
        """Return the tags of a job or an imported model."""
        with aws_errors(BedrockError, f"list_tags_for_resource for {arn}", service="bedrock"):
            tags = self._bedrock.list_tags_for_resource(resourceARN=arn)["tags"]
        return {tag["key"]: tag["value"] for tag in tags}

    def model(self, name_or_arn: str) -> GetImportedModelResponseTypeDef:
        """Describe an imported model."""
        with aws_errors(BedrockError, f"get_imported_model for {name_or_arn}", service="bedrock"):
            return self._bedrock.get_imported_model(modelIdentifier=name_or_arn)

    def delete(self, name_or_arn: str) -> None:
        """Delete an imported model."""
        with aws_errors(BedrockError, f"delete_imported_model for {name_or_arn}", service="bedrock"):
            self._bedrock.delete_imported_model(modelIdentifier=name_or_arn)

    def models(self, name_contains: str | None = None) -> list[ImportedModelSummary]:
        """List imported models, optionally only those whose name contains `name_contains`."""
        filters: ListImportedModelsRequestPaginateTypeDef = {}
        if name_contains:
            filters["nameContains"] = name_contains
        with aws_errors(BedrockError, "list_imported_models", service="bedrock"):
            pages = self._bedrock.get_paginator("list_imported_models").paginate(**filters)
            items = [item for page in pages for item in page.get("modelSummaries", ())]
        return [
            ImportedModelSummary(
                item["modelArn"], item["modelName"], item.get("modelArchitecture"), item["creationTime"]
            )
            for item in items
        ]

    def jobs(
        self, name_contains: str | None = None, *, status: ImportJobStatus | None = None
    ) -> list[ImportJobSummary]:
        """List import jobs, optionally only those with a name that contains `name_contains`, or with one status."""
        filters: ListModelImportJobsRequestPaginateTypeDef = {}
        if name_contains:
            filters["nameContains"] = name_contains
        if status:
            filters["statusEquals"] = status
        with aws_errors(BedrockError, "list_model_import_jobs", service="bedrock"):
            pages = self._bedrock.get_paginator("list_model_import_jobs").paginate(**filters)
            items = [item for page in pages for item in page.get("modelImportJobSummaries", ())]
        return [
            ImportJobSummary(
                arn=item["jobArn"],
                name=item["jobName"],
                status=item["status"],
                model_name=item.get("importedModelName"),
                model_arn=item.get("importedModelArn"),
                created=item["creationTime"],
                ended=item.get("endTime"),
            )
            for item in items
        ]

    def submit(self, request: CreateModelImportJobRequestTypeDef) -> str:
        """Create a job and return its ARN, after waiting for the account's one import slot and for a new role.

        The request's token ensures that a retry after a broken connection does not create a second job.

        Raises:
            ImportTimeoutError: another job occupies the slot for too long.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        started = self._polling.clock()
        while True:
            try:
                arn = self._bedrock.create_model_import_job(**request)["jobArn"]
            except (BotoCoreError, ClientError) as error:
                self._wait_to_retry(error, request, self._polling.clock() - started)
            else:
                logger.info("import job %s started", arn)
                return arn

    def _wait_to_retry(self, error: Exception, request: CreateModelImportJobRequestTypeDef, waited: float) -> None:
        """Sleep if a refused request may succeed later. Otherwise raise an error that says what to do."""
        if says(error, "ServiceQuotaExceededException", CONCURRENT_JOBS):
            if self._polling.is_over(waited):
                raise ImportTimeoutError(
                    f"no import job was started for {request['importedModelName']!r}, because another job occupied "
                    f"the account's only slot for {waited:.0f} s. The files are uploaded. Run import_model again."
                ) from error
            logger.warning("another import job is running, waiting for the slot (%.0f s so far)", waited)
            self._polling.sleep(self._polling.interval_s)
            return
        is_unknown_role = says(error, "ValidationException", INVALID_ROLE)
        if waited >= self._role_propagation_s or not (is_unknown_role or is_transient(error)):
            raise bedrock_error(error, f"creating import job {request['jobName']!r}") from error
        if is_unknown_role:
            logger.warning("the service does not accept the role yet, trying again (%.0f s so far)", waited)
        else:
            logger.warning("no answer (%s), trying again", error_code(error))
        self._polling.sleep(ROLE_RETRY_S)

    def wait(self, job_arn: str, weight_bytes: int | None = None) -> str:
        """Poll a job until it ends and return the imported model's ARN.

        If the connection breaks, polling continues. The expected time follows from `weight_bytes`.

        Raises:
            ImportJobError: the job failed.
            ImportTimeoutError: the job is still running.
        """
        started = self._polling.clock()
        low, high = expected_minutes(weight_bytes)
        resume = f"The job continues. Wait for it again with attach({job_arn!r}, formatter=…)."
        name, note = f"import job {job_arn.rsplit('/', 1)[-1]}", f"{low} to {high} min expected"
        with ProgressBar(name, high * 60, unit="second", note=note, show=self._show_progress) as bar:
            while True:
                job = self._look_at(job_arn, resume)
                if job is not None and (model_arn := _imported_by(job, job_arn)):
                    return model_arn
                status = job["status"] if job is not None else "unknown"
                waited = self._polling.clock() - started
                bar.update(waited)
                if self._polling.is_over(waited):
                    raise ImportTimeoutError(f"import job {job_arn} is still {status} after {waited:.0f} s. {resume}")
                logger.info("import job %s: %s, %.0f s of %d to %d min expected", job_arn, status, waited, low, high)
                try:
                    self._polling.sleep(self._polling.interval_s)
                except KeyboardInterrupt:
                    logger.warning("interrupted while waiting for import job %s. %s", job_arn, resume)
                    raise

    def _look_at(self, job_arn: str, resume: str) -> GetModelImportJobResponseTypeDef | None:
        """Describe a job, or return None if the connection broke."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._bedrock.get_model_import_job(jobIdentifier=job_arn)
        except (BotoCoreError, ClientError) as error:
            if not is_transient(error):
                described = bedrock_error(error, f"looking at import job {job_arn}")
                is_gone = error_code(error) == "ResourceNotFoundException"
                raise (described if is_gone else BedrockError(f"{described} {resume}")) from error
            logger.warning("no answer about import job %s (%s), looking again", job_arn, error_code(error))
            return None

    def imported(self, name: str, digest: str) -> str | None:
        """Return the ARN of the imported model with this name and content, or None if the name is free.

        Raises:
            BedrockError: a model of this name has other content, or AWS refused a request.
        """
        arn = next((model.arn for model in self.models(name) if model.name == name), None)
        if arn is not None and (found := self.tags(arn).get(MANIFEST_TAG)) != digest:
            raise BedrockError(
                f"an imported model {name!r} ({arn}) already exists with other content (manifest {found!r}, not "
                f"{digest!r}). Choose another name, or delete the model with importer.delete({name!r})."
            )
        return arn

    def in_progress(self, name: str, digest: str) -> str | None:
        """Return the ARN of a running job that imports this content under this name, or None if there is none.

        Raises:
            BedrockError: a running job imports other content under this name, or AWS refused a request.
        """
        for job in self.jobs(status="InProgress"):
            if job.model_name == name:
                if self.tags(job.arn).get(MANIFEST_TAG) == digest:
                    return job.arn
                raise BedrockError(
                    f"import job {job.arn} is importing other content as {name!r}. Wait until it ends, or choose "
                    "another name."
                )
        return None

    def free_name(self, wanted: str | None, name: str, digest: str) -> str:
        """Return `wanted`, or if it is None an unused name derived from the content.

        AWS never lets a job name be used twice.

        Raises:
            BedrockError: an earlier job had the wanted name, or AWS refused a request.
        """
        suffix = f"-{digest[:12]}"
        # 4 characters remain for the attempt number, because the job after a failed one needs another name.
        base = wanted or name.replace("_", "-")[: _JOB_NAME_CHARACTERS - len(suffix) - 4] + suffix
        taken = {job.name for job in self.jobs(base)}
        if wanted in taken:
            raise BedrockError(
                f"an earlier import job was already called {wanted!r}. Choose another job_name, or leave it out."
            )
        names = itertools.chain([base], (f"{base}-{attempt}" for attempt in itertools.count(2)))
        return next(free for free in names if free not in taken)


def expected_minutes(weight_bytes: int | None) -> tuple[int, int]:
    """Return the usual range of minutes for an import, from public reports. AWS promises no time."""
    return _USUAL_MINUTES if weight_bytes is not None and weight_bytes <= _USUAL_BYTES else _LONG_MINUTES


def _imported_by(job: GetModelImportJobResponseTypeDef, job_arn: str) -> str | None:
    """Return the ARN of the model that a job has imported, or None if the job is still running.

    Raises:
        ImportJobError: the job failed.
    """
    status: str = job["status"]
    if status in ("Completed", "Complete"):  # the API says Completed, some pages say Complete
        return job["importedModelArn"]
    if status == "Failed":
        reason = job.get("failureMessage", "the service gave no reason").rstrip(".")
        raise ImportJobError(f"import job {job_arn} failed: {reason}. {job_advice(reason)}".rstrip())
    return None
