"""Import jobs and imported models in the account: ask, create, wait, list.

Shapes: the Bedrock API reference (CreateModelImportJob and its neighbours); there are no waiters, and no call that
stops a job.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlquarry.aws.failures import bedrock_error, error_code, is_transient, says
from sqlquarry.aws.known_errors import CONCURRENT_JOBS, INVALID_ROLE
from sqlquarry.bedrock.import_failures import job_advice
from sqlquarry.credentials import credentials_in
from sqlquarry.errors import BedrockError, ImportJobError, ImportTimeoutError
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
_JOB_NAME_CHARACTERS = 63

MANIFEST_TAG = "sqlquarry:manifest"
PROMPT_TAG = "sqlquarry:prompt"
ROLE_RETRY_S = 10.0
MAX_TAGS = 200
_TAG_TEXT = re.compile(r"[a-zA-Z0-9\s._:/=+@-]*")
_VPC_ID = re.compile(r"[-0-9a-zA-Z]{1,32}")
_KMS_KEY = re.compile(
    r"(arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{12}:((key/[a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)))"
    r"|([a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)"
)
# Imports as reported: 8B models in 10 to 18 minutes (AWS's samples and a public run), larger ones in 15 to 45.
_USUAL_BYTES = 20 * 10**9
_USUAL_MINUTES, _LONG_MINUTES = (10, 18), (15, 45)


@dataclass(frozen=True, slots=True)
class JobSummary:
    """An import job as the account lists it; `status` is "InProgress", "Completed" or "Failed"."""

    arn: str
    name: str
    status: str
    model_name: str | None
    model_arn: str | None
    created: datetime
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """An imported model as the account lists it; `architecture` is the service's word, such as "llama"."""

    arn: str
    name: str
    architecture: str | None
    created: datetime


def problems(
    tags: Mapping[str, str] | None, kms_key_id: str | None, vpc_config: Mapping[str, Sequence[str]] | None
) -> list[str]:
    """What the service would refuse of these (its API model's limits), in words; [] where all is well."""
    exposed = dict(credentials_in(tags or {}, "tags"))
    bad = [
        f"{place} holds {kind} (not shown), and everybody may read tags; leave it out"
        for place, kind in exposed.items()
    ]
    for key, value in () if exposed else (tags or {}).items():
        if not (1 <= len(key) <= 128 and len(value) <= 256 and _TAG_TEXT.fullmatch(key) and _TAG_TEXT.fullmatch(value)):
            bad.append(
                f"tag {key!r}={value!r} must be 1-128 and 0-256 letters, digits, spaces or any of . _ : / = + @ -"
            )
        if key.lower().startswith(("aws:", "sqlquarry:")):
            bad.append(f"tag {key!r} begins with a reserved word (aws:, sqlquarry:)")
    if len(tags or {}) > MAX_TAGS - 2:
        bad.append(f"{len(tags or {})} tags, but at most {MAX_TAGS - 2} fit, because the library adds two")
    if kms_key_id is not None and not (len(kms_key_id) <= 2048 and _KMS_KEY.fullmatch(kms_key_id)):
        bad.append(f"kms_key_id {kms_key_id!r} is neither a key's id or ARN nor alias/…")
    if vpc_config is not None:
        limits = {"subnetIds": 16, "securityGroupIds": 5}
        if set(vpc_config) != set(limits):
            bad.append(f"vpc_config has {sorted(vpc_config)}, but needs exactly {sorted(limits)}")
        for key, most in limits.items():
            ids = vpc_config.get(key, ["x"])
            if isinstance(ids, str) or not 1 <= len(ids) <= most or not all(_VPC_ID.fullmatch(item) for item in ids):
                bad.append(f"vpc_config {key!r} is {ids!r}, but must be a list of 1 to {most} ids")
    return bad


class ImportJobs:
    """The control plane of one account and region, with errors of ours.

    Args:
        bedrock: a boto3 client of "bedrock".
        poll_interval_s, timeout_s, role_propagation_s, sleep, clock, show_progress: as `BedrockImporter`.
    """

    def __init__(
        self,
        bedrock: Any,
        *,
        poll_interval_s: float,
        timeout_s: float,
        role_propagation_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        show_progress: bool = True,
    ) -> None:
        self._bedrock, self._sleep, self._clock, self._show_progress = bedrock, sleep, clock, show_progress
        self._poll_interval_s, self._timeout_s = poll_interval_s, timeout_s
        self._role_propagation_s = role_propagation_s

    def call(self, operation: str, **arguments: Any) -> Any:
        """One call of the API; `operation` as boto3 names it."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._bedrock, operation)(**arguments)
        except (BotoCoreError, ClientError) as error:
            raise bedrock_error(error, f"{operation} for {next(iter(arguments.values()))}") from error

    def tags(self, arn: str) -> dict[str, str]:
        """Tags of a job or an imported model."""
        return {tag["key"]: tag["value"] for tag in self.call("list_tags_for_resource", resourceARN=arn)["tags"]}

    def models(self, **filters: Any) -> list[ModelSummary]:
        """Imported models; `filters` as ListImportedModels names them."""
        return [
            ModelSummary(item["modelArn"], item["modelName"], item.get("modelArchitecture"), item["creationTime"])
            for item in self._pages("list_imported_models", "modelSummaries", filters)
        ]

    def jobs(self, **filters: Any) -> list[JobSummary]:
        """Import jobs; `filters` as ListModelImportJobs names them."""
        return [
            JobSummary(
                arn=item["jobArn"],
                name=item["jobName"],
                status=item["status"],
                model_name=item.get("importedModelName"),
                model_arn=item.get("importedModelArn"),
                created=item["creationTime"],
                ended=item.get("endTime"),
            )
            for item in self._pages("list_model_import_jobs", "modelImportJobSummaries", filters)
        ]

    def submit(self, request: Mapping[str, Any]) -> str:
        """Create the job, waiting for the one import slot and for a new role to be known; returns its ARN.

        The request's token makes tries after a broken connection one job.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        started = self._clock()
        while True:
            try:
                arn = str(self._bedrock.create_model_import_job(**request)["jobArn"])
            except (BotoCoreError, ClientError) as error:
                waited = self._clock() - started
                if says(error, "ServiceQuotaExceededException", CONCURRENT_JOBS):
                    if waited >= self._timeout_s:
                        raise ImportTimeoutError(
                            f"another import job kept the account's only slot for {waited:.0f} s, so none was started "
                            f"for {request['importedModelName']!r}. The files are uploaded; run import_model again."
                        ) from error
                    logger.warning("another import job is running; waiting for the slot (%.0f s so far)", waited)
                    self._sleep(self._poll_interval_s)
                elif says(error, "ValidationException", INVALID_ROLE) and waited < self._role_propagation_s:
                    logger.warning("the role is not known to the service yet; trying again (%.0f s so far)", waited)
                    self._sleep(ROLE_RETRY_S)
                elif is_transient(error) and waited < self._role_propagation_s:
                    logger.warning("no answer (%s); trying again", error_code(error))
                    self._sleep(ROLE_RETRY_S)
                else:
                    raise bedrock_error(error, f"creating import job {request['jobName']!r}") from error
            else:
                logger.info("import job %s started", arn)
                return arn

    def wait(self, job_arn: str, weight_bytes: int | None = None) -> str:
        """Poll a job until it ends; returns the imported model's ARN.

        A broken connection is waited out like the job itself. `weight_bytes` gives the expected time.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        started = self._clock()
        low, high = expected_minutes(weight_bytes)
        goes_on = f"The job continues; attach({job_arn!r}, formatter) waits for it again."
        name, note = f"import job {job_arn.rsplit('/', 1)[-1]}", f"{low} to {high} min expected"
        with ProgressBar(name, high * 60, unit="second", note=note, show=self._show_progress) as bar:
            while True:
                status = "unknown"
                try:
                    job = self._bedrock.get_model_import_job(jobIdentifier=job_arn)
                except (BotoCoreError, ClientError) as error:
                    if not is_transient(error):
                        told = bedrock_error(error, f"looking at import job {job_arn}")
                        gone = error_code(error) == "ResourceNotFoundException"
                        raise (told if gone else BedrockError(f"{told} {goes_on}")) from error
                    logger.warning("no answer about import job %s (%s); looking again", job_arn, error_code(error))
                else:
                    status = job["status"]
                    # The API says Completed, some pages say Complete.
                    if status in ("Completed", "Complete"):
                        return str(job["importedModelArn"])
                    if status == "Failed":
                        reason = job.get("failureMessage", "the service gave no reason").rstrip(".")
                        raise ImportJobError(f"import job {job_arn} failed: {reason}. {job_advice(reason)}".rstrip())
                waited = self._clock() - started
                bar.update(waited)
                if waited >= self._timeout_s:
                    raise ImportTimeoutError(f"import job {job_arn} is still {status} after {waited:.0f} s. {goes_on}")
                logger.info("import job %s: %s, %.0f s of %d to %d min expected", job_arn, status, waited, low, high)
                try:
                    self._sleep(self._poll_interval_s)
                except KeyboardInterrupt:
                    logger.warning("interrupted while waiting for import job %s. %s", job_arn, goes_on)
                    raise

    def _pages(self, operation: str, key: str, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for page in self._bedrock.get_paginator(operation).paginate(**filters):
                yield from page.get(key, ())
        except (BotoCoreError, ClientError) as error:
            raise bedrock_error(error, operation) from error

    def imported(self, name: str, digest: str) -> str | None:
        """Return the ARN of the imported model of this name, if it has this content.

        Raises:
            BedrockError: it has other content, or AWS refused.
        """
        arn = next((model.arn for model in self.models(nameContains=name) if model.name == name), None)
        if arn is not None and (found := self.tags(arn).get(MANIFEST_TAG)) != digest:
            raise BedrockError(
                f"an imported model {name!r} exists already ({arn}), made from other content (manifest {found!r}, not "
                f"{digest!r}). Choose another name, or delete it: importer.delete({name!r})."
            )
        return arn

    def in_progress(self, name: str, digest: str) -> str | None:
        """Return the ARN of a running job that imports this content under this name.

        Raises:
            BedrockError: it imports other content, or AWS refused.
        """
        for job in self.jobs(statusEquals="InProgress"):
            if job.model_name == name:
                if self.tags(job.arn).get(MANIFEST_TAG) == digest:
                    return job.arn
                raise BedrockError(
                    f"import job {job.arn} is importing other content as {name!r}. Wait for it, or choose another name."
                )
        return None

    def free_name(self, wanted: str | None, name: str, digest: str) -> str:
        """Return `wanted` if no job had it yet, or a name derived from the content; job names are unique for good.

        Raises:
            BedrockError: a job had the wanted name, or AWS refused.
        """
        suffix = f"-{digest[:12]}"
        # 4 characters stay for the number of the attempt: after a failed job the next one needs another name.
        base = wanted or name.replace("_", "-")[: _JOB_NAME_CHARACTERS - len(suffix) - 4] + suffix
        taken = {job.name for job in self.jobs(nameContains=base)}
        if wanted in taken:
            raise BedrockError(f"there was an import job {wanted!r} before; choose another job_name, or leave it out")
        names = itertools.chain([base], (f"{base}-{attempt}" for attempt in itertools.count(2)))
        return next(free for free in names if free not in taken)


def expected_minutes(weight_bytes: int | None) -> tuple[int, int]:
    """From and to how many minutes an import of so many bytes takes, by public reports; the service promises none."""
    return _USUAL_MINUTES if weight_bytes is not None and weight_bytes <= _USUAL_BYTES else _LONG_MINUTES
