"""MergedModel -> ImportedModel: preflight, upload, one import job, and the wait for it."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock._aws import aws_client
from sqlquarry.bedrock._progress import progress
from sqlquarry.bedrock.client import ImportedModel
from sqlquarry.bedrock.failures import CONCURRENT_JOBS, INVALID_ROLE, explained, job_advice, says
from sqlquarry.bedrock.preflight import PreflightReport, preflight
from sqlquarry.bedrock.upload import PARTS_IN_FLIGHT, Export, upload
from sqlquarry.errors import (
    BedrockError,
    ConfigError,
    CorruptArtifactError,
    ImportJobError,
    ImportTimeoutError,
    PromptMismatchError,
)
from sqlquarry.prompt import PromptFormatter

logger = logging.getLogger(__name__)

MANIFEST_TAG = "sqlquarry:manifest"
PROMPT_TAG = "sqlquarry:prompt"
_ROLE_ARN = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
_ROLE_RETRY_S = 10.0
_JOB_NAME_CHARACTERS = 63


class BedrockImporter:
    """Import merged models with Amazon Bedrock Custom Model Import; safe to run again at any point.

    Args:
        role_arn: the role that Bedrock assumes to read the bucket.
        session: a boto3 session; None uses the default credentials.
        endpoint_url: another address for all AWS calls.
        region: the region to serve in; None uses the session's.
        bucket: where to upload when `import_model` is given no `s3_uri`.
        poll_interval_s: seconds between two looks at a job (imports take about 15 minutes).
        timeout_s: seconds to wait for a job, and before that for the account's one import slot.
        role_propagation_s: seconds to go on where the service does not know the role yet.
        sleep: waits; injected by tests.
        clock: seconds that never go back; injected by tests.
        show_progress: draw progress bars where stderr is a terminal.

    Raises:
        ConfigError: bad options, all at once; or no region is known.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(
        self,
        role_arn: str,
        *,
        session: Any = None,
        endpoint_url: str | None = None,
        region: str | None = None,
        bucket: str | None = None,
        poll_interval_s: float = 30.0,
        timeout_s: float = 3600.0,
        role_propagation_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        show_progress: bool = True,
    ) -> None:
        bad = [] if _ROLE_ARN.fullmatch(role_arn) else [f"role_arn {role_arn!r} is not arn:aws:iam::<account>:role/…"]
        times = {"poll_interval_s": poll_interval_s, "timeout_s": timeout_s, "role_propagation_s": role_propagation_s}
        bad += [f"{name} is {value}, but must not be negative" for name, value in times.items() if value < 0]
        if bad:
            raise ConfigError("BedrockImporter: " + "; ".join(bad))
        self._role_arn, self._bucket, self._show_progress = role_arn, bucket, show_progress
        self._poll_interval_s, self._timeout_s, self._role_propagation_s = (
            poll_interval_s,
            timeout_s,
            role_propagation_s,
        )
        self._sleep, self._clock = sleep, clock
        self._session, self._endpoint_url = session, endpoint_url
        self._bedrock = aws_client("bedrock", session, endpoint_url, region)
        self._region: str = self._bedrock.meta.region_name

    def preflight(
        self,
        merged: MergedModel,
        name: str | None = None,
        *,
        s3_uri: str | None = None,
        job_name: str | None = None,
    ) -> PreflightReport:
        """Everything that would make the import of `merged` fail, without network; see `PreflightReport`."""
        return preflight(merged, name, s3_uri=s3_uri, job_name=job_name, region=self._region)

    def import_model(
        self,
        merged: MergedModel,
        name: str,
        *,
        s3_uri: str | None = None,
        job_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        kms_key_id: str | None = None,
        vpc_config: Mapping[str, list[str]] | None = None,
    ) -> ImportedModel:
        """Check, upload and import a merged model, and wait until it can be called.

        Run again with the same model, it returns the imported model, or goes on with what is missing.

        Args:
            merged: the finished model.
            name: the imported model's name, unique in the account and region.
            s3_uri: ``s3://bucket/prefix/`` for its files; None puts them below the importer's `bucket`.
            job_name: the import job's name; None derives one from name and content.
            tags: further tags of job and model.
            kms_key_id: the key to encrypt the imported model with; None uses one of AWS's.
            vpc_config: ``{"subnetIds": […], "securityGroupIds": […]}`` to read the bucket through a VPC.

        Raises:
            PreflightError: the import would fail.
            CorruptArtifactError: a file of the model differs from its manifest.
            ImportJobError: the job ended Failed.
            ImportTimeoutError: the job still runs after `timeout_s`; attach to it later.
            BedrockError: AWS refused, the name is taken by another model, or the S3 prefix holds something else.
        """
        if s3_uri is None and self._bucket is None:
            raise ConfigError(
                "import_model does not know where to upload: pass s3_uri='s3://bucket/prefix/', or make the importer "
                "with bucket='…'"
            )
        where = s3_uri or f"s3://{self._bucket}/"
        self.preflight(merged, name, s3_uri=where, job_name=job_name).raise_for_errors()
        export = Export.of(merged)
        digest, formatter = export.manifest.digest, PromptFormatter.load(merged.path)
        uri = s3_uri or f"{where}sqlquarry/{name}/{digest[:12]}/"

        arn = self._imported(name, digest) or self._in_progress(name, digest)
        if arn is None:
            job_name = self._free_job_name(job_name, name, digest)
            # Hours of serving are about to depend on these bytes; preflight has seen only headers.
            if MergedModel.load(merged.path, verify=True).manifest.digest != merged.manifest.digest:
                raise CorruptArtifactError(
                    f"{merged.path} was written again after this MergedModel was loaded. Use MergedModel.load()."
                )
            # A part that fails for good costs its whole file, so botocore may try for a minute or two.
            options = {"attempts": 10, "max_pool_connections": PARTS_IN_FLIGHT}
            s3 = aws_client("s3", self._session, self._endpoint_url, self._region, **options)
            upload(export, uri, s3=s3, show_progress=self._show_progress)
            ours = {MANIFEST_TAG: digest, PROMPT_TAG: formatter.fingerprint}
            tag_list = [{"key": key, "value": value} for key, value in ({**(tags or {}), **ours}).items()]
            request = {
                "jobName": job_name,
                "importedModelName": name,
                "roleArn": self._role_arn,
                "modelDataSource": {"s3DataSource": {"s3Uri": uri}},
                "jobTags": tag_list,
                "importedModelTags": tag_list,
                "clientRequestToken": hashlib.sha256(f"{digest}\n{name}\n{job_name}".encode()).hexdigest(),
            }
            if kms_key_id:
                request["importedModelKmsKeyId"] = kms_key_id
            if vpc_config:
                request["vpcConfig"] = dict(vpc_config)
            arn = self._submit(request)
        return self.attach(arn, formatter)

    def attach(self, arn: str, formatter: PromptFormatter) -> ImportedModel:
        """The model behind an import job (waits for it) or an imported model's ARN.

        Args:
            arn: of a model-import-job or an imported-model.
            formatter: the prompt that the model was trained with.

        Raises:
            PromptMismatchError: the model's tag names another prompt.
            ImportJobError, ImportTimeoutError: as `import_model`.
            BedrockError: AWS refused.
        """
        model_arn = self._wait(arn) if ":model-import-job/" in arn else arn
        served = self._tags(model_arn).get(PROMPT_TAG)
        if served not in (None, formatter.fingerprint):
            raise PromptMismatchError(
                f"{model_arn} was trained with prompt {served!r}, not {formatter.fingerprint!r}. "
                "Use PromptFormatter.load() on the merged model's directory."
            )
        name = self._call("get_imported_model", modelIdentifier=model_arn)["modelName"]
        return ImportedModel(
            model_arn,
            formatter,
            name=name,
            session=self._session,
            endpoint_url=self._endpoint_url,
            sleep=self._sleep,
            clock=self._clock,
            show_progress=self._show_progress,
        )

    def _imported(self, name: str, digest: str) -> str | None:
        """The ARN of the imported model of this name, if it has this content."""
        models = self._list("list_imported_models", "modelSummaries", nameContains=name)
        arn = next((str(model["modelArn"]) for model in models if model["modelName"] == name), None)
        if arn is not None and (found := self._tags(arn).get(MANIFEST_TAG)) != digest:
            raise BedrockError(
                f"an imported model {name!r} exists already ({arn}), made from other content (manifest {found!r}, not "
                f"{digest!r}). Choose another name, or delete it: ImportedModel(arn, formatter).delete()."
            )
        return arn

    def _in_progress(self, name: str, digest: str) -> str | None:
        """The ARN of a running job that imports this content under this name."""
        jobs = self._list("list_model_import_jobs", "modelImportJobSummaries", statusEquals="InProgress")
        for job in jobs:
            if job.get("importedModelName") == name:
                arn = str(job["jobArn"])
                if self._tags(arn).get(MANIFEST_TAG) == digest:
                    return arn
                raise BedrockError(
                    f"import job {arn} is importing other content as {name!r}. Wait for it, or choose another name."
                )
        return None

    def _free_job_name(self, wanted: str | None, name: str, digest: str) -> str:
        """`wanted` if no job had it yet, or a name derived from the content; job names are unique for good."""
        suffix = f"-{digest[:12]}"
        # 4 characters stay for the number of the attempt: after a failed job the next one needs another name.
        base = wanted or name.replace("_", "-")[: _JOB_NAME_CHARACTERS - len(suffix) - 4] + suffix
        jobs = self._list("list_model_import_jobs", "modelImportJobSummaries", nameContains=base)
        taken = {job["jobName"] for job in jobs}
        if wanted in taken:
            raise BedrockError(f"there was an import job {wanted!r} before; choose another job_name, or leave it out")
        names = itertools.chain([base], (f"{base}-{attempt}" for attempt in itertools.count(2)))
        return next(free for free in names if free not in taken)

    def _submit(self, request: Mapping[str, Any]) -> str:
        """Create the job, waiting for the one import slot and for a new role to be known."""
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
                    self._sleep(_ROLE_RETRY_S)
                else:
                    raise explained(error, f"creating import job {request['jobName']!r}") from error
            else:
                logger.info("import job %s started", arn)
                return arn

    def _wait(self, job_arn: str) -> str:
        """Poll a job until it ends; returns the imported model's ARN."""
        started = self._clock()
        goes_on = f"It goes on without us; attach({job_arn!r}, formatter) waits for it again."
        with progress(show=self._show_progress) as bar:
            bar.add_task(f"import job {job_arn.rsplit('/', 1)[-1]}", total=None)
            while True:
                job = self._call("get_model_import_job", jobIdentifier=job_arn)
                status = job["status"]
                # The API says Completed, some pages say Complete.
                if status in ("Completed", "Complete"):
                    return str(job["importedModelArn"])
                if status == "Failed":
                    reason = job.get("failureMessage", "the service gave no reason").rstrip(".")
                    raise ImportJobError(f"import job {job_arn} failed: {reason}. {job_advice(reason)}".rstrip())
                waited = self._clock() - started
                if waited >= self._timeout_s:
                    raise ImportTimeoutError(f"import job {job_arn} is still {status} after {waited:.0f} s. {goes_on}")
                try:
                    self._sleep(self._poll_interval_s)
                except KeyboardInterrupt:
                    logger.warning("interrupted while waiting for import job %s. %s", job_arn, goes_on)
                    raise

    def _tags(self, arn: str) -> dict[str, str]:
        return {tag["key"]: tag["value"] for tag in self._call("list_tags_for_resource", resourceARN=arn)["tags"]}

    def _list(self, operation: str, key: str, **filters: Any) -> Iterator[Mapping[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for page in self._bedrock.get_paginator(operation).paginate(**filters):
                yield from page.get(key, ())
        except (BotoCoreError, ClientError) as error:
            raise explained(error, operation) from error

    def _call(self, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._bedrock, operation)(**arguments)
        except (BotoCoreError, ClientError) as error:
            raise explained(error, f"{operation} for {next(iter(arguments.values()))}") from error
