"""The control plane of Custom Model Import: import jobs, imported models and their tags.

Sources of rules and quotas: Bedrock API reference (CreateModelImportJob and related operations) and "Amazon Bedrock
endpoints and quotas" (AWS General Reference). The texts of failure messages are this emulator's own (see `admission`).
"""

from __future__ import annotations

import secrets
import shutil
import string
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from sqlquarry.emulator.bedrock.admission import ImportFailedError, admit
from sqlquarry.emulator.bedrock.records import ImportedModelRecord, ImportJobRecord
from sqlquarry.emulator.bedrock.timing import IMMEDIATE, ColdStart, ImportTiming
from sqlquarry.emulator.clock import Clock
from sqlquarry.emulator.faults import Faults, JobFails, JobHangs
from sqlquarry.emulator.requests.errors import ApiError, invalid
from sqlquarry.emulator.requests.pages import cut_page, is_between
from sqlquarry.emulator.requests.parameters import ApiAnswer, validate

if TYPE_CHECKING:
    from mypy_boto3_bedrock import type_defs as bedrock

MAX_IMPORTED_MODELS = 3
MAX_TAGS = 50  # per resource ("Tag your AWS resources", AWS General Reference)
_READ_ACTIONS = ("s3:ListBucket", "s3:GetObject", "kms:Decrypt")  # actions that the role must be allowed
_ID_ALPHABET = string.ascii_lowercase + string.digits


class ModelImports:
    """Bedrock's control plane operations for imported models. Each maps parameters to an answer.

    Args:
        storage: separate directory for snapshots of imported models.
        fetch: copies the objects directly below (bucket, prefix) into a directory. Raises `ImportFailedError` if the
            bucket does not exist.
        role_trusts_bedrock: returns whether a role with this ARN exists and Bedrock may assume it.
        on_delete: called with a model's directory before the directory is removed.
        arn_prefix: ``arn:aws:bedrock:<region>:<account>``.
        timing: durations of import jobs and cold starts.
        faults: faults to apply.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        *,
        storage: Path,
        fetch: Callable[[str, str, Path], None],
        role_trusts_bedrock: Callable[[str], bool],
        on_delete: Callable[[Path], None],
        arn_prefix: str,
        timing: ImportTiming = IMMEDIATE,
        faults: Faults | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._storage, self._fetch, self._role_trusts_bedrock = storage, fetch, role_trusts_bedrock
        self._on_delete, self._arn_prefix = on_delete, arn_prefix
        self._timing = timing
        self._faults = faults or Faults(clock)
        self._clock = clock
        self._began = datetime.now(UTC) - timedelta(seconds=clock())
        self._jobs: dict[str, ImportJobRecord] = {}
        self._models: dict[str, ImportedModelRecord] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._lock = threading.RLock()

    # There is one method per operation, with botocore's name.

    def create_model_import_job(self, parameters: bedrock.CreateModelImportJobRequestTypeDef) -> ApiAnswer:
        """Start a job and import the model. Return after the model's files are copied."""
        validate("CreateModelImportJob", parameters)
        with self._lock:
            if known := self._job_of_token(parameters):
                return {"jobArn": known.arn}
            self._refuse(parameters)
            job = ImportJobRecord(
                self._new_arn("model-import-job"),
                parameters,
                self._timing.import_polls,
                due=self._clock() + self._timing.import_s,
                created=self._now(),
            )
            self._jobs[job.arn] = job
            self._tags[job.arn] = _tag_dict(parameters.get("jobTags", []))
        outcome = self._import(job)  # this takes seconds for gigabytes, so other calls must not wait for it
        with self._lock:
            job.outcome = outcome
            self._settle(job)
            deleted = job.arn not in self._jobs
        if deleted and isinstance(outcome, ImportedModelRecord):
            self._remove(outcome)  # the emulator was reset during the import
        return {"jobArn": job.arn}

    def get_model_import_job(self, parameters: bedrock.GetModelImportJobRequestTypeDef) -> ApiAnswer:
        """Return the details of a job, and count the call as a poll."""
        with self._lock:
            wanted = parameters["jobIdentifier"]
            job = next((j for j in self._jobs.values() if wanted in (j.arn, j.name)), None)
            if job is None:
                raise ApiError("ResourceNotFoundException", f"Could not find model import job {wanted}")
            self._poll(job)
            return job.details()

    def list_model_import_jobs(self, parameters: bedrock.ListModelImportJobsRequestTypeDef) -> ApiAnswer:
        """Return a page of the jobs."""
        validate("ListModelImportJobs", parameters)
        with self._lock:
            wanted = parameters.get("statusEquals")
            jobs = [job for job in self._jobs.values() if wanted in (None, job.status)]
            return _page(jobs, "modelImportJobSummaries", parameters)

    def get_imported_model(self, parameters: bedrock.GetImportedModelRequestTypeDef) -> ApiAnswer:
        """Return the details of a model."""
        return self.model(parameters["modelIdentifier"]).details()

    def list_imported_models(self, parameters: bedrock.ListImportedModelsRequestTypeDef) -> ApiAnswer:
        """Return a page of the models."""
        validate("ListImportedModels", parameters)
        with self._lock:
            return _page(self._models.values(), "modelSummaries", parameters)

    def delete_imported_model(self, parameters: bedrock.DeleteImportedModelRequestTypeDef) -> ApiAnswer:
        """Delete a model and its files."""
        with self._lock:
            model = self.model(parameters["modelIdentifier"])
            del self._models[model.arn]
            self._tags.pop(model.arn, None)
        self._remove(model)
        return {}

    def tag_resource(self, parameters: bedrock.TagResourceRequestTypeDef) -> ApiAnswer:
        """Add tags to a job or model."""
        validate("TagResource", parameters)
        with self._lock:
            tags = self._tags_of(parameters["resourceARN"]) | _tag_dict(parameters["tags"])
            if len(tags) > MAX_TAGS:
                raise ApiError(
                    "TooManyTagsException", f"a resource can have at most {MAX_TAGS} tags, but this has {len(tags)}"
                )
            self._tags[parameters["resourceARN"]] = tags
        return {}

    def untag_resource(self, parameters: bedrock.UntagResourceRequestTypeDef) -> ApiAnswer:
        """Remove tags from a job or model."""
        with self._lock:
            tags = self._tags_of(parameters["resourceARN"])
            for key in parameters["tagKeys"]:
                tags.pop(key, None)
        return {}

    def list_tags_for_resource(self, parameters: bedrock.ListTagsForResourceRequestTypeDef) -> ApiAnswer:
        """Return the tags of a job or model."""
        with self._lock:
            tags = self._tags_of(parameters["resourceARN"])
            return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}

    def model(self, identifier: str) -> ImportedModelRecord:
        """Return the imported model with this ARN or name.

        Raises:
            ApiError: ResourceNotFoundException if there is no such model.
        """
        with self._lock:
            for model in self._models.values():
                if identifier in (model.arn, model.name):
                    return model
        raise ApiError("ResourceNotFoundException", f"Could not find imported model {identifier}")

    def still_cold(self, model: ImportedModelRecord) -> bool:
        """Count an invocation of a model, and return whether the model is still cold."""
        with self._lock:
            return model.cold_start.refuses(self._clock())

    def reset(self) -> None:
        """Delete all jobs, models and tags."""
        with self._lock:
            models = list(self._models.values())
            for state in (self._jobs, self._models, self._tags):
                state.clear()
        for model in models:
            self._remove(model)

    def _remove(self, model: ImportedModelRecord) -> None:
        self._on_delete(model.directory)
        shutil.rmtree(model.directory)

    def _now(self) -> datetime:
        return self._began + timedelta(seconds=self._clock())

    def _job_of_token(self, parameters: bedrock.CreateModelImportJobRequestTypeDef) -> ImportJobRecord | None:
        token = parameters.get("clientRequestToken")
        known = next(
            (j for j in self._jobs.values() if token and j.parameters.get("clientRequestToken") == token), None
        )
        if known and known.parameters != parameters:
            raise ApiError("ConflictException", f"clientRequestToken {token} was already used for another request")
        return known

    def _refuse(self, parameters: bedrock.CreateModelImportJobRequestTypeDef) -> None:
        """Refuse requests that the service refuses immediately, before it creates a job."""
        if not parameters["modelDataSource"].get("s3DataSource"):
            raise invalid("modelDataSource.s3DataSource is required")
        if not self._role_trusts_bedrock(parameters["roleArn"]):
            # The service uses this message both for a missing role and for a role that it may not assume.
            raise invalid("The provided role ARN is invalid")
        if any(job.name == parameters["jobName"] for job in self._jobs.values()):
            raise ApiError("ConflictException", f"A model import job named {parameters['jobName']} already exists")
        for job in self._jobs.values():
            self._poll(job)  # a job must also end if no client polls it
        if any(job.status == "InProgress" for job in self._jobs.values()):
            raise ApiError("ServiceQuotaExceededException", "request a quota increase for Concurrent model import jobs")
        if any(model.name == parameters["importedModelName"] for model in self._models.values()):
            raise ApiError(
                "ConflictException", f"An imported model named {parameters['importedModelName']} already exists"
            )
        if len(self._models) >= MAX_IMPORTED_MODELS:
            raise ApiError(
                "ServiceQuotaExceededException",
                f"request a quota increase for Imported models per account (now {MAX_IMPORTED_MODELS})",
            )

    def _import(self, job: ImportJobRecord) -> ImportedModelRecord | str:
        source = urlparse(job.parameters["modelDataSource"]["s3DataSource"]["s3Uri"])
        if fault := self._faults.take(JobFails):
            return fault.message
        arn = self._new_arn("imported-model")
        directory = self._storage / arn.rpartition("/")[2]
        try:
            directory.mkdir()
            self._require_access(source.netloc, source.path.strip("/"))
            self._fetch(source.netloc, source.path.strip("/"), directory)
            admitted = admit(directory)
        except ImportFailedError as error:
            failure = f"{error} (in {source.geturl()})"
        except Exception as error:  # noqa: BLE001 - the job must end after any error, otherwise it blocks new jobs
            failure = f"{type(error).__name__}: {error} (in {source.geturl()})"
        else:
            cold_start = ColdStart(self._timing.cold_start_calls, self._timing.cold_start_s)
            return ImportedModelRecord(arn, job.parameters["importedModelName"], job, directory, admitted, cold_start)
        shutil.rmtree(directory, ignore_errors=True)
        return failure

    def _require_access(self, bucket: str, prefix: str) -> None:
        if denied := [action for action in _READ_ACTIONS if self._faults.denies(action)]:
            # Customization jobs also read buckets and have this message ("Troubleshooting", Bedrock user guide).
            raise ImportFailedError(
                f"Could not validate GetObject permissions to access Amazon S3 bucket: {bucket} at key {prefix}: the "
                f"role is not allowed to perform {denied[0]}"
            )

    def _poll(self, job: ImportJobRecord) -> None:
        self._settle(job)
        job.polls_left -= 1

    def _settle(self, job: ImportJobRecord) -> None:
        if job.ended is not None or job.outcome is None or job.polls_left > 0:
            return
        if self._clock() < job.due or self._faults.is_active(JobHangs):
            return
        if job.arn not in self._jobs:  # the emulator was reset during the import
            return
        job.ended = self._now()
        if isinstance(job.outcome, ImportedModelRecord):
            job.outcome.created = job.ended
            self._models[job.outcome.arn] = job.outcome
            self._tags[job.outcome.arn] = _tag_dict(job.parameters.get("importedModelTags", []))

    def _tags_of(self, arn: str) -> dict[str, str]:
        if arn not in self._tags:
            raise ApiError("ResourceNotFoundException", f"Resource {arn} not found")
        return self._tags[arn]

    def _new_arn(self, kind: str) -> str:
        return f"{self._arn_prefix}:{kind}/{''.join(secrets.choice(_ID_ALPHABET) for _ in range(12))}"


def _tag_dict(tags: Iterable[bedrock.TagTypeDef]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in tags}


def _page(
    found: Iterable[ImportJobRecord | ImportedModelRecord],
    answer_key: str,
    parameters: bedrock.ListModelImportJobsRequestTypeDef | bedrock.ListImportedModelsRequestTypeDef,
) -> ApiAnswer:
    """Filter and sort a list, and return the requested page."""
    before, after = parameters.get("creationTimeBefore"), parameters.get("creationTimeAfter")
    kept = [
        item
        for item in found
        if parameters.get("nameContains", "") in item.name and is_between(item.created, after, before)
    ]
    kept.sort(key=lambda item: item.created, reverse=parameters.get("sortOrder") == "Descending")
    page, following = cut_page(kept, parameters.get("maxResults", 100), "nextToken", parameters.get("nextToken", "0"))
    answer: ApiAnswer = {answer_key: [item.summary() for item in page]}
    return answer | ({"nextToken": following} if following else {})
