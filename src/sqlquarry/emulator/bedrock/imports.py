"""The control plane of Custom Model Import: jobs, imported models and their tags.

Rules and quotas: the Bedrock API reference (CreateModelImportJob and its neighbours) and "Amazon Bedrock endpoints and
quotas" in the AWS General Reference. Texts of failure messages are ours (see `admission`).
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
from typing import Any
from urllib.parse import urlparse

from sqlquarry.emulator.bedrock.admission import ImportFailedError, admit
from sqlquarry.emulator.bedrock.records import Job, Model
from sqlquarry.emulator.bedrock.warmth import Warmth
from sqlquarry.emulator.faults import Clock, Faults, JobFails, JobHangs
from sqlquarry.emulator.requests.api import ApiError, Parameters, validate

MAX_IMPORTED_MODELS = 3
MAX_TAGS = 50  # per resource ("Tag your AWS resources", AWS General Reference)
_READING = ("s3:ListBucket", "s3:GetObject", "kms:Decrypt")  # what the role needs
_ID_ALPHABET = string.ascii_lowercase + string.digits


class ModelImports:
    """The operations of Bedrock's control plane that concern imported models; each maps parameters to an answer.

    Args:
        storage: a directory of its own, where snapshots of imported models are kept.
        fetch: copies the objects directly below (bucket, prefix) into a directory; raises `ImportFailedError` where
            there is no such bucket.
        role_trusts_bedrock: whether a role of this ARN exists and Bedrock may assume it.
        on_delete: called with a model's directory before that is removed.
        arn_prefix: ``arn:aws:bedrock:<region>:<account>``.
        import_polls: looks at a job (Get, or another Create) for which it stays InProgress.
        import_seconds: for how long it does, besides.
        cold_calls: invocations that find a model cold each time it wakes.
        cold_seconds: how long waking takes, besides.
        faults: what goes wrong on purpose.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        storage: Path,
        fetch: Callable[[str, str, Path], None],
        role_trusts_bedrock: Callable[[str], bool],
        on_delete: Callable[[Path], None],
        arn_prefix: str,
        import_polls: int = 0,
        import_seconds: float = 0.0,
        cold_calls: int = 0,
        cold_seconds: float = 0.0,
        faults: Faults | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._storage, self._fetch, self._role_trusts_bedrock = storage, fetch, role_trusts_bedrock
        self._on_delete, self._arn_prefix = on_delete, arn_prefix
        self._import_polls, self._import_seconds = import_polls, import_seconds
        self._cold_calls, self._cold_seconds = cold_calls, cold_seconds
        self._faults = faults or Faults(clock)
        self._clock = clock
        self._began = datetime.now(UTC) - timedelta(seconds=clock())
        self._jobs: dict[str, Job] = {}
        self._models: dict[str, Model] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._lock = threading.RLock()

    # One method per operation, named as botocore names it.

    def create_model_import_job(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        validate("CreateModelImportJob", parameters)
        with self._lock:
            if known := self._job_of_token(parameters):
                return {"jobArn": known.arn}
            self._refuse(parameters)
            job = Job(
                self._new_arn("model-import-job"),
                parameters,
                self._import_polls,
                due=self._clock() + self._import_seconds,
                created=self._now(),
            )
            self._jobs[job.arn] = job
            self._tags[job.arn] = _tag_dict(parameters.get("jobTags", []))
        outcome = self._import(job)  # takes seconds for gigabytes, in which other calls are answered
        with self._lock:
            job.outcome = outcome
            self._settle(job)
            forgotten = job.arn not in self._jobs
        if forgotten and isinstance(outcome, Model):
            self._remove(outcome)  # the emulator was reset meanwhile
        return {"jobArn": job.arn}

    def get_model_import_job(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        with self._lock:
            wanted = parameters["jobIdentifier"]
            job = next((j for j in self._jobs.values() if wanted in (j.arn, j.parameters["jobName"])), None)
            if job is None:
                raise ApiError("ResourceNotFoundException", f"Could not find model import job {wanted}")
            self._look_at(job)
            return job.details()

    def list_model_import_jobs(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        validate("ListModelImportJobs", parameters)
        with self._lock:
            wanted = parameters.get("statusEquals")
            jobs = [job.summary() for job in self._jobs.values() if wanted in (None, job.status)]
        return _page(jobs, "jobName", "modelImportJobSummaries", parameters)

    def get_imported_model(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        return self.model(parameters["modelIdentifier"]).details()

    def list_imported_models(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        validate("ListImportedModels", parameters)
        with self._lock:
            models = [model.summary() for model in self._models.values()]
        return _page(models, "modelName", "modelSummaries", parameters)

    def delete_imported_model(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        with self._lock:
            model = self.model(parameters["modelIdentifier"])
            del self._models[model.arn]
            self._tags.pop(model.arn, None)
        self._remove(model)
        return {}

    def tag_resource(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        validate("TagResource", parameters)
        with self._lock:
            tags = self._tags_of(parameters) | _tag_dict(parameters["tags"])
            if len(tags) > MAX_TAGS:
                raise ApiError("TooManyTagsException", f"{len(tags)} tags, but a resource can have {MAX_TAGS}")
            self._tags[parameters["resourceARN"]] = tags
        return {}

    def untag_resource(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        with self._lock:
            tags = self._tags_of(parameters)
            for key in parameters["tagKeys"]:
                tags.pop(key, None)
        return {}

    def list_tags_for_resource(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        with self._lock:
            return {"tags": [{"key": key, "value": value} for key, value in self._tags_of(parameters).items()]}

    def model(self, identifier: str) -> Model:
        """The imported model of this ARN or name.

        Raises:
            ApiError: ResourceNotFoundException.
        """
        with self._lock:
            for model in self._models.values():
                if identifier in (model.arn, model.name):
                    return model
        raise ApiError("ResourceNotFoundException", f"Could not find imported model {identifier}")

    def still_cold(self, model: Model) -> bool:
        """Whether this invocation finds the model cold; each one brings it nearer to ready."""
        with self._lock:
            return model.warmth.refuses(self._clock())

    def reset(self) -> None:
        """Forget every job, model and tag."""
        with self._lock:
            models = list(self._models.values())
            for state in (self._jobs, self._models, self._tags):
                state.clear()
        for model in models:
            self._remove(model)

    def _remove(self, model: Model) -> None:
        self._on_delete(model.directory)
        shutil.rmtree(model.directory)

    def _now(self) -> datetime:
        return self._began + timedelta(seconds=self._clock())

    def _job_of_token(self, parameters: Parameters) -> Job | None:
        token = parameters.get("clientRequestToken")
        known = next(
            (j for j in self._jobs.values() if token and j.parameters.get("clientRequestToken") == token), None
        )
        if known and known.parameters != parameters:
            raise ApiError("ConflictException", f"clientRequestToken {token} was used for another request")
        return known

    def _refuse(self, parameters: Parameters) -> None:
        """Refuse what the service refuses at once, before there is a job."""
        if not parameters["modelDataSource"].get("s3DataSource"):
            raise ApiError("ValidationException", "modelDataSource.s3DataSource is required")
        if not self._role_trusts_bedrock(parameters["roleArn"]):
            # The service's words, for a role that is missing as for one that it may not assume.
            raise ApiError("ValidationException", "The provided role ARN is invalid")
        if any(job.parameters["jobName"] == parameters["jobName"] for job in self._jobs.values()):
            raise ApiError("ConflictException", f"A model import job named {parameters['jobName']} exists already")
        for job in self._jobs.values():
            self._look_at(job)  # a job that nobody asks for must end too
        if any(job.status == "InProgress" for job in self._jobs.values()):
            raise ApiError("ServiceQuotaExceededException", "request a quota increase for Concurrent model import jobs")
        if any(model.name == parameters["importedModelName"] for model in self._models.values()):
            raise ApiError(
                "ConflictException", f"An imported model named {parameters['importedModelName']} exists already"
            )
        if len(self._models) >= MAX_IMPORTED_MODELS:
            raise ApiError(
                "ServiceQuotaExceededException",
                f"request a quota increase for Imported models per account (now {MAX_IMPORTED_MODELS})",
            )

    def _import(self, job: Job) -> Model | str:
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
        except Exception as error:  # noqa: BLE001 - whatever it is, the job must end, or it keeps the one slot
            failure = f"{type(error).__name__}: {error} (in {source.geturl()})"
        else:
            warmth = Warmth(self._cold_calls, self._cold_seconds)
            return Model(arn, job.parameters["importedModelName"], job, directory, admitted, warmth)
        shutil.rmtree(directory, ignore_errors=True)
        return failure

    def _require_access(self, bucket: str, prefix: str) -> None:
        if denied := [right for right in _READING if self._faults.denies(right)]:
            # The words of customization jobs ("Troubleshooting", Bedrock user guide), which read buckets alike.
            raise ImportFailedError(
                f"Could not validate GetObject permissions to access Amazon S3 bucket: {bucket} at key {prefix}: the "
                f"role is not allowed {denied[0]}"
            )

    def _look_at(self, job: Job) -> None:
        self._settle(job)
        job.polls_left -= 1

    def _settle(self, job: Job) -> None:
        if job.ended is not None or job.outcome is None or job.polls_left > 0:
            return
        if self._clock() < job.due or self._faults.now(JobHangs):
            return
        if job.arn not in self._jobs:  # the emulator was reset meanwhile
            return
        job.ended = self._now()
        if isinstance(job.outcome, Model):
            job.outcome.created = job.ended
            self._models[job.outcome.arn] = job.outcome
            self._tags[job.outcome.arn] = _tag_dict(job.parameters.get("importedModelTags", []))

    def _tags_of(self, parameters: Parameters) -> dict[str, str]:
        arn = parameters["resourceARN"]
        if arn not in self._tags:
            raise ApiError("ResourceNotFoundException", f"Resource {arn} not found")
        return self._tags[arn]

    def _new_arn(self, kind: str) -> str:
        return f"{self._arn_prefix}:{kind}/{''.join(secrets.choice(_ID_ALPHABET) for _ in range(12))}"


def _tag_dict(tags: Iterable[dict[str, str]]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in tags}


def _page(found: list[dict[str, Any]], name_key: str, answer_key: str, parameters: Parameters) -> dict[str, Any]:
    """Filter, sort and cut a list; the token is the place in it where the next page begins."""
    before, after = parameters.get("creationTimeBefore"), parameters.get("creationTimeAfter")
    kept = [
        item
        for item in found
        if parameters.get("nameContains", "") in item[name_key]
        and (before is None or item["creationTime"] < before)
        and (after is None or item["creationTime"] > after)
    ]
    kept.sort(key=lambda item: item["creationTime"], reverse=parameters.get("sortOrder") == "Descending")
    token = parameters.get("nextToken", "0")
    if not token.isdecimal():
        raise ApiError("ValidationException", f"nextToken {token!r} is not one that this operation gave")
    start, size = int(token), parameters.get("maxResults", 100)
    answer: dict[str, Any] = {answer_key: kept[start : start + size]}
    if start + size < len(kept):
        answer["nextToken"] = str(start + size)
    return answer
