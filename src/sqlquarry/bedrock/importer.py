"""Import a checkpoint into Bedrock: preflight, upload, one import job, and waiting for it."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws import aws_client
from sqlquarry.aws.polling import Polling
from sqlquarry.aws.transfer import CLIENT_OPTIONS
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.import_jobs import (
    MANIFEST_TAG,
    PROMPT_TAG,
    ImportedModelSummary,
    ImportJobs,
    ImportJobStatus,
    ImportJobSummary,
)
from sqlquarry.bedrock.import_request import ImportRequest, VpcConfig, given_uri, option_problems
from sqlquarry.bedrock.preflight import PreflightReport
from sqlquarry.bedrock.preflight.account import check_account
from sqlquarry.bedrock.preflight.run import check_import
from sqlquarry.bedrock.preflight.source import S3Source, source_location
from sqlquarry.bedrock.staging import LocalModelStaging, ModelSource, StoredModelStaging
from sqlquarry.bedrock.upload import discard_unfinished
from sqlquarry.errors import BedrockError, ConfigError, PromptMismatchError
from sqlquarry.files.locations import S3Location
from sqlquarry.models.imported.cost import DEFAULT_PRICES, PriceTable
from sqlquarry.models.imported.model import ImportedModel
from sqlquarry.models.retries import RetryPolicy
from sqlquarry.options import check_options
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import PromptFormatter
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_bedrock.type_defs import CreateModelImportJobRequestTypeDef, TagTypeDef
    from mypy_boto3_s3 import S3Client

logger = visible_logger(__name__)

_ROLE_ARN = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
_POLLING = Polling()
_LONGEST_WAIT_S = 3600.0


@check_options()
class BedrockImporter:
    """Import models with Amazon Bedrock Custom Model Import. Every call is safe to repeat.

    Args:
        role_arn: the role that Bedrock assumes to read the bucket (`create_import_role` creates one).
        session: a boto3 session. Its region serves the model. None uses the default credentials and region.
        bucket: the bucket for uploads if `import_model` gets no `s3_uri`.
        polling: how often to look at a job, and how long to wait for the account's one import slot and then for the
            job. The default is every 30 s for an hour (imports take about 15 minutes).
        role_propagation_s: seconds to keep trying while the service does not accept a new role yet.
        show_progress: show progress bars (see `sqlquarry.progress.bar`).

    Raises:
        ConfigError: options are invalid (all are listed), or no region is known.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(
        self,
        role_arn: str,
        *,
        session: boto3.Session | None = None,
        bucket: str | None = None,
        polling: Polling = _POLLING,
        role_propagation_s: float = 120.0,
        show_progress: bool = True,
    ) -> None:
        bad = [] if _ROLE_ARN.fullmatch(role_arn) else [f"role_arn {role_arn!r} is not arn:aws:iam::<account>:role/…"]
        if role_propagation_s < 0:
            bad.append(f"role_propagation_s is {role_propagation_s}, but must not be negative")
        if bad:
            raise ConfigError("BedrockImporter: " + "; ".join(bad))
        self._role_arn, self._bucket, self._show_progress = role_arn, bucket, show_progress
        self._session, self._polling = session, polling.with_timeout(_LONGEST_WAIT_S)
        bedrock = aws_client("bedrock", session)
        self._region = bedrock.meta.region_name
        self._jobs = ImportJobs(
            bedrock, polling=self._polling, role_propagation_s=role_propagation_s, show_progress=show_progress
        )

    def preflight(
        self,
        source: ModelSource,
        name: str | None = None,
        *,
        s3_uri: str | Path | None = None,
        job_name: str | None = None,
        account: bool = False,
        formatter: PromptFormatter | None = None,
    ) -> PreflightReport:
        """Find everything that would make the import of `source` fail (see `PreflightReport`).

        A directory is checked without network, an ``s3://`` prefix with ranged reads. `account` also checks the bucket,
        quotas and role, as `import_model` does before it uploads.
        """
        account = account or isinstance(source_location(source), S3Location)
        request = ImportRequest(
            name, job_name, given_uri(s3_uri), self._region, role_arn=self._role_arn if account else None
        )
        return check_import(source, request, account=account, formatter=formatter, session=self._session)

    def import_model(
        self,
        source: ModelSource,
        name: str,
        *,
        formatter: PromptFormatter | None = None,
        s3_uri: str | Path | None = None,
        job_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        kms_key_id: str | None = None,
        vpc_config: VpcConfig | None = None,
    ) -> ImportedModel:
        """Check, upload and import a checkpoint, and wait until the model can be called.

        If the same content was imported before, the call returns the imported model. If an earlier call was
        interrupted, it resumes.

        Args:
            source: a finished merged model, the directory of any checkpoint, or ``s3://bucket/prefix``. Models on this
                machine are exported in the service's dialect. A prefix is imported unchanged, except that a merged
                model's small files and manifest are rewritten there.
            name: the imported model's name, unique in the account and region.
            formatter: the bound prompt that the model answers to. None if ``prompt.json`` next to the weights contains
                it, or if the model only answers texts.
            s3_uri: ``s3://bucket/prefix/`` for the model's files. The default is a prefix in the importer's `bucket`.
            job_name: the import job's name. The default is derived from name and content.
            tags: more tags for the job and the model.
            kms_key_id: the key that encrypts the imported model. The default is a key that AWS owns.
            vpc_config: ``{"subnetIds": […], "securityGroupIds": […]}`` to read the bucket through a VPC.

        Raises:
            ConfigError: the service would refuse an option, the upload has no destination, or `source` is not a model.
            PreflightError: the import would fail.
            CorruptArtifactError: a file of the model differs from its manifest.
            PromptMismatchError: `formatter` is not the prompt next to the weights.
            ImportJobError: the job ended Failed.
            ImportTimeoutError: the job is still running after `polling.timeout_s`. Attach to it later.
            BedrockError: AWS refused a request, another model has the name, or the S3 prefix contains other files.
        """
        place, s3_uri = source_location(source), given_uri(s3_uri)
        bad = [*option_problems(tags, kms_key_id, vpc_config), *self._problems(place, s3_uri, formatter)]
        if bad:
            raise ConfigError("import_model: " + "; ".join(bad))
        in_place = isinstance(place, S3Location)
        where = f"{place}/" if in_place else s3_uri or f"s3://{self._bucket}/"
        with phase("checking the model", show=self._show_progress):
            report = self.preflight(source, name, s3_uri=where, job_name=job_name, formatter=formatter)
        report.raise_for_errors()
        for finding in report.warnings:
            logger.warning("%s", finding)
        with phase("hashing the model", show=self._show_progress):
            staging = self._staging(place, source, formatter)
        export, digest = staging.export, staging.export.manifest.digest
        arn = self._jobs.imported(name, digest) or self._jobs.in_progress(name, digest)
        if arn is None:
            job_name = self._jobs.free_name(job_name, name, digest)
            uri = where if in_place or s3_uri else f"{where}sqlquarry/{name}/{digest[:12]}/"
            if isinstance(staging, LocalModelStaging):
                self._require_account(name, job_name, uri, kms_key_id, vpc_config)
                staging.upload(uri, self._s3, sleep=self._polling.sleep, show_progress=self._show_progress)
            else:
                staging.rewrite(self._s3, sleep=self._polling.sleep)
            job = self._job(
                export,
                name=name,
                job_name=job_name,
                s3_uri=uri,
                tags=tags or {},
                kms_key_id=kms_key_id,
                vpc_config=vpc_config,
            )
            arn = self._jobs.submit(job)
        return self._attach(arn, export.formatter, export.weight_bytes)

    def attach(self, arn: str, *, formatter: PromptFormatter | None = None) -> ImportedModel:
        """Return an imported model, or wait for an import job and return its model.

        Args:
            arn: the ARN of a model-import-job or an imported-model, or an imported model's name.
            formatter: the prompt that the model was trained with. None for a model that only answers texts.

        Raises:
            PromptMismatchError: the model's tag contains another prompt's fingerprint.
            ImportJobError, ImportTimeoutError: as in `import_model`.
            BedrockError: AWS refused a request, or the model has been deleted.
        """
        return self._attach(arn, formatter, None)

    def list_models(self, *, name_contains: str | None = None) -> list[ImportedModelSummary]:
        """List the imported models of the account and region.

        Raises:
            BedrockError: AWS refused a request.
        """
        return self._jobs.models(name_contains)

    def list_jobs(
        self, *, name_contains: str | None = None, status: ImportJobStatus | None = None
    ) -> list[ImportJobSummary]:
        """List the import jobs of the account and region, optionally only those with one status.

        Raises:
            BedrockError: AWS refused a request.
        """
        return self._jobs.jobs(name_contains, status=status)

    def delete(self, name_or_arn: str) -> None:
        """Delete an imported model, which ends its storage cost. Its files on S3 stay.

        Raises:
            BedrockError: AWS refused a request, or the model does not exist.
        """
        self._jobs.delete(name_or_arn)

    def storage_usd_per_month(self, model: ImportedModel | str, *, prices: PriceTable = DEFAULT_PRICES) -> float:
        """Return the US dollars per month that an imported model (object, name or ARN) costs even if it is never used.

        The cost is the number of custom model units times the price of a unit, $1.95 unless `prices` has another one.
        Source: the pricing page of Amazon Bedrock as quoted in 2026 (see `PriceTable`).

        Raises:
            BedrockError: AWS refused a request, or does not report the units.
        """
        identifier = model if isinstance(model, str) else model.arn
        units = self._jobs.model(identifier).get("customModelUnits", {}).get("customModelUnitsPerModelCopy")
        if units is None:
            raise BedrockError(
                f"the storage cost of {identifier} is unknown, because AWS does not report its custom model units."
            )
        return prices.storage_usd_per_month(int(units))

    def discard_unfinished_upload(self, s3_uri: str) -> int:
        """Abort unfinished uploads below a prefix instead of resuming them, and return their number.

        Until then, S3 charges for the parts that are already stored.

        Raises:
            BedrockError: S3 refused a request.
        """
        return discard_unfinished(s3_uri, s3=self._s3)

    @functools.cached_property
    def _s3(self) -> S3Client:
        return aws_client("s3", self._session, **CLIENT_OPTIONS)

    def _problems(
        self, place: Path | S3Location, s3_uri: str | None, formatter: PromptFormatter | None
    ) -> Iterator[str]:
        """Yield a message for each invalid argument of `import_model` that the service never sees."""
        if formatter is not None and formatter.tokens is None:
            yield "formatter is not bound to a base model, so call formatter.bind(tokenizer)"
        if isinstance(place, S3Location):
            if s3_uri is not None:
                yield f"s3_uri is {s3_uri!r}, but {place} is imported from its own prefix, so leave s3_uri out"
        elif s3_uri is None and self._bucket is None:
            yield (
                "the upload has no destination, so pass s3_uri='s3://bucket/prefix/', or create the importer with "
                "bucket='…'"
            )

    def _staging(
        self, place: Path | S3Location, source: ModelSource, formatter: PromptFormatter | None
    ) -> LocalModelStaging | StoredModelStaging:
        if not isinstance(place, S3Location):
            return LocalModelStaging.of(source, formatter)
        files = S3Source(place, session=self._session, region=self._region)
        return StoredModelStaging.of(files, source, formatter)

    def _require_account(
        self, name: str, job_name: str, s3_uri: str, kms_key_id: str | None, vpc_config: VpcConfig | None
    ) -> None:
        """Check the bucket, region, quotas, role, key and network before an upload that may take hours.

        Raises:
            PreflightError: the import would fail.
        """
        request = ImportRequest(name, job_name, s3_uri, self._region, self._role_arn, kms_key_id, vpc_config)
        PreflightReport(tuple(check_account(request, session=self._session))).raise_for_errors()

    def _job(
        self,
        export: ModelExport,
        *,
        name: str,
        job_name: str,
        s3_uri: str,
        tags: Mapping[str, str],
        kms_key_id: str | None,
        vpc_config: VpcConfig | None,
    ) -> CreateModelImportJobRequestTypeDef:
        """Return the request that creates the job."""
        digest = export.manifest.digest
        own = {MANIFEST_TAG: digest}
        if export.formatter is not None:
            own[PROMPT_TAG] = export.formatter.fingerprint
        tag_list: list[TagTypeDef] = [{"key": key, "value": value} for key, value in {**tags, **own}.items()]
        request: CreateModelImportJobRequestTypeDef = {
            "jobName": job_name,
            "importedModelName": name,
            "roleArn": self._role_arn,
            "modelDataSource": {"s3DataSource": {"s3Uri": s3_uri}},
            "jobTags": tag_list,
            "importedModelTags": tag_list,
            "clientRequestToken": hashlib.sha256(f"{digest}\n{name}\n{job_name}".encode()).hexdigest(),
        }
        if kms_key_id:
            request["importedModelKmsKeyId"] = kms_key_id
        if vpc_config:
            subnets, groups = vpc_config["subnetIds"], vpc_config["securityGroupIds"]
            request["vpcConfig"] = {"subnetIds": list(subnets), "securityGroupIds": list(groups)}
        return request

    def _attach(self, arn: str, formatter: PromptFormatter | None, weight_bytes: int | None) -> ImportedModel:
        model_arn = self._jobs.wait(arn, weight_bytes) if ":model-import-job/" in arn else arn
        if not model_arn.startswith("arn:"):
            model_arn = self._jobs.model(model_arn)["modelArn"]
        served = self._jobs.tags(model_arn).get(PROMPT_TAG)
        if formatter is not None and served not in (None, formatter.fingerprint):
            raise PromptMismatchError(
                f"{model_arn} was trained with prompt {served!r}, not {formatter.fingerprint!r}. "
                "Use PromptFormatter.load() on the merged model's directory."
            )
        return ImportedModel(
            model_arn,
            formatter=formatter,
            name=self._jobs.model(model_arn)["modelName"],
            session=self._session,
            retry=RetryPolicy(sleep=self._polling.sleep, clock=self._polling.clock),
            show_progress=self._show_progress,
        )
