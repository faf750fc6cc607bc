"""A checkpoint -> ImportedModel: preflight, upload, one import job, and the wait for it."""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MANIFEST, Manifest, MergedModel
from sqlquarry.aws import aws_client, aws_session
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.aws.transfer import CLIENT_OPTIONS, Transfer
from sqlquarry.bedrock.export import Export
from sqlquarry.bedrock.jobs import (
    MANIFEST_TAG,
    PROMPT_TAG,
    ImportJobs,
    JobSummary,
    ModelSummary,
    problems,
)
from sqlquarry.bedrock.prefix import prefix_manifest
from sqlquarry.bedrock.preflight import PreflightReport, preflight
from sqlquarry.bedrock.preflight.account import check_account
from sqlquarry.bedrock.preflight.request import Request, given_uri
from sqlquarry.bedrock.preflight.source import S3Source, source_location
from sqlquarry.bedrock.stored_merge import StoredMerge
from sqlquarry.bedrock.upload import discard_unfinished, upload
from sqlquarry.errors import BedrockError, ConfigError, CorruptArtifactError, PromptMismatchError
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import read_object
from sqlquarry.models.imported.cost import PriceTable
from sqlquarry.models.imported.model import ImportedModel
from sqlquarry.models.retries import RetryPolicy
from sqlquarry.options import check_options
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)

_ROLE_ARN = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
Source = MergedModel | Path | str


@check_options()
class BedrockImporter:
    """Import models with Amazon Bedrock Custom Model Import; safe to run again at any point.

    Args:
        role_arn: the role that Bedrock assumes to read the bucket (`create_import_role` makes one).
        session: a boto3 session; None uses the default credentials.
        endpoint_url: another address for all AWS calls.
        region: the region to serve in; None uses the session's.
        bucket: where to upload when `import_model` is given no `s3_uri`.
        poll_interval_s: seconds between two looks at a job (imports take about 15 minutes).
        timeout_s: seconds to wait for a job, and before that for the account's one import slot.
        role_propagation_s: seconds to keep trying while the service does not know the role yet.
        sleep: waits; injected by tests.
        clock: seconds that never go back; injected by tests.
        show_progress: show how far it is (see `sqlquarry.progress.bar`).

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
        self._sleep, self._clock = sleep, clock
        self._session, self._endpoint_url = session, endpoint_url
        bedrock = aws_client("bedrock", session, endpoint_url=endpoint_url, region=region)
        self._region: str = bedrock.meta.region_name
        self._jobs = ImportJobs(bedrock, **times, sleep=sleep, clock=clock, show_progress=show_progress)

    def preflight(
        self,
        source: Source,
        name: str | None = None,
        *,
        s3_uri: str | Path | None = None,
        job_name: str | None = None,
        account: bool = False,
        formatter: PromptFormatter | None = None,
    ) -> PreflightReport:
        """Everything that would make the import of `source` fail; see `PreflightReport`.

        Without network for a directory, by ranged reads for an ``s3://`` prefix. `account` looks at bucket, quotas and
        role too, which `import_model` does before it uploads.
        """
        options: dict[str, Any] = {"s3_uri": s3_uri, "job_name": job_name, "region": self._region}
        options["formatter"] = formatter
        if account or isinstance(source_location(source), S3Location):
            options |= {"session": self._given_session, "endpoint_url": self._endpoint_url, "role_arn": self._role_arn}
        return preflight(source, name, **options)

    def import_model(
        self,
        source: Source,
        name: str,
        *,
        formatter: PromptFormatter | None = None,
        s3_uri: str | Path | None = None,
        job_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        kms_key_id: str | None = None,
        vpc_config: Mapping[str, Sequence[str]] | None = None,
    ) -> ImportedModel:
        """Check, upload and import a checkpoint, and wait until it can be called.

        Run again with the same content, it returns the imported model, or does what is missing.

        Args:
            source: a finished merged model or any checkpoint's directory, which are exported in the service's dialect;
                or ``s3://bucket/prefix``, which is imported as it is, except for a merged model: its small files and
                its manifest are rewritten there.
            name: the imported model's name, unique in the account and region.
            formatter: the prompt that it answers to, bound. None takes the ``prompt.json`` beside the weights; where
                there is none, the model can be asked texts, not records.
            s3_uri: ``s3://bucket/prefix/`` for its files; None puts them below the importer's `bucket`.
            job_name: the import job's name; None derives one from name and content.
            tags: further tags of job and model.
            kms_key_id: the key to encrypt the imported model with; None uses one of AWS's.
            vpc_config: ``{"subnetIds": […], "securityGroupIds": […]}`` to read the bucket through a VPC.

        Raises:
            ConfigError: an option that the service would refuse, no place to upload to, or `source` is not a model.
            PreflightError: the import would fail.
            CorruptArtifactError: a file of the model differs from its manifest.
            PromptMismatchError: `formatter` is not the prompt beside the weights.
            ImportJobError: the job ended Failed.
            ImportTimeoutError: the job still runs after `timeout_s`; attach to it later.
            BedrockError: AWS refused, the name is taken by another model, or the S3 prefix holds something else.
        """
        place, s3_uri = source_location(source), given_uri(s3_uri)
        in_place = isinstance(place, S3Location)
        bad = problems(tags, kms_key_id, vpc_config)
        if formatter is not None and formatter.tokens is None:
            bad.append("formatter is not bound to a base model; call formatter.bind(tokenizer)")
        if in_place and s3_uri is not None:
            bad.append("s3_uri is given, but a source on S3 is imported where it is; leave it out")
        if not in_place and s3_uri is None and self._bucket is None:
            bad.append(
                "it is not known where to upload: pass s3_uri='s3://bucket/prefix/', or make the importer with "
                "bucket='…'"
            )
        if bad:
            raise ConfigError("import_model: " + "; ".join(bad))
        where = f"{place}/" if in_place else s3_uri or f"s3://{self._bucket}/"
        with phase("checking the model", show=self._show_progress):
            report = self.preflight(source, name, s3_uri=where, job_name=job_name, formatter=formatter)
        report.raise_for_errors()
        for finding in report.warnings:
            logger.warning("%s", finding)
        with phase("hashing the model", show=self._show_progress):
            if isinstance(place, S3Location):
                export, stored = self._stored_export(place, source, formatter)
            else:
                export, stored = Export.of(_opened(source), formatter), None
        digest = export.manifest.digest
        uri = where if in_place or s3_uri else f"{where}sqlquarry/{name}/{digest[:12]}/"

        arn = self._jobs.imported(name, digest) or self._jobs.in_progress(name, digest)
        if arn is None:
            job_name = self._jobs.free_name(job_name, name, digest)
            if not in_place:
                # Before hours of upload: bucket, region, quotas, role, key and network.
                asked = Request(name, job_name, uri, self._region, self._role_arn, kms_key_id, vpc_config)
                found = check_account(asked, session=self._given_session, endpoint_url=self._endpoint_url)
                PreflightReport(tuple(found)).raise_for_errors()
                _require_unchanged(source)
                upload(export, uri, s3=self._s3, show_progress=self._show_progress, sleep=self._sleep)
            elif stored is not None and isinstance(place, S3Location):
                prefix = S3Prefix(self._s3, place)
                stored.rewrite(export.files, export.manifest, prefix, Transfer(prefix, sleep=self._sleep))
            request = self._request(export, name=name, job_name=job_name, uri=uri, tags=tags or {})
            if kms_key_id:
                request["importedModelKmsKeyId"] = kms_key_id
            if vpc_config:
                request["vpcConfig"] = {key: list(ids) for key, ids in vpc_config.items()}
            arn = self._jobs.submit(request)
        weight_bytes = sum(int(f["bytes"]) for n, f in export.manifest.files.items() if n.endswith(".safetensors"))
        return self._attach(arn, export.formatter, weight_bytes)

    def attach(self, arn: str, formatter: PromptFormatter | None = None) -> ImportedModel:
        """The model behind an import job (waits for it) or an imported model.

        Args:
            arn: of a model-import-job or an imported-model; or an imported model's name.
            formatter: the prompt that the model was trained with; None for a model that is only asked texts.

        Raises:
            PromptMismatchError: the model's tag names another prompt.
            ImportJobError, ImportTimeoutError: as `import_model`.
            BedrockError: AWS refused, or the model was deleted meanwhile.
        """
        return self._attach(arn, formatter, None)

    def list_models(self, name_contains: str | None = None) -> list[ModelSummary]:
        """Imported models of the account and region.

        Raises:
            BedrockError: AWS refused.
        """
        return self._jobs.models(**({"nameContains": name_contains} if name_contains else {}))

    def list_jobs(self, name_contains: str | None = None, *, status: str | None = None) -> list[JobSummary]:
        """Import jobs of the account and region; `status` is "InProgress", "Completed" or "Failed".

        Raises:
            BedrockError: AWS refused.
        """
        wanted = {"nameContains": name_contains, "statusEquals": status}
        return self._jobs.jobs(**{key: value for key, value in wanted.items() if value})

    def delete(self, name_or_arn: str) -> None:
        """Delete an imported model, which ends its storage cost; its files on S3 stay.

        Raises:
            BedrockError: AWS refused, or there is no such model.
        """
        self._jobs.call("delete_imported_model", modelIdentifier=name_or_arn)

    def storage_cost_per_month(self, model: ImportedModel | str, *, prices: PriceTable | None = None) -> float:
        """US dollars per month for keeping an imported model (object, name or ARN), asked or not.

        Custom model units times the price of one, $1.95 where `prices` says nothing else. Source: the pricing page of
        Amazon Bedrock as quoted in 2026 (see `PriceTable`).

        Raises:
            BedrockError: AWS refused, or names no units.
        """
        identifier = model if isinstance(model, str) else model.arn
        answer = self._jobs.call("get_imported_model", modelIdentifier=identifier)
        units = answer.get("customModelUnits", {}).get("customModelUnitsPerModelCopy")
        if units is None:
            raise BedrockError(f"AWS names no custom model units for {identifier}, so its storage cost is not known.")
        return (prices or PriceTable()).storage_usd_per_month(int(units))

    def discard_unfinished_upload(self, s3_uri: str) -> int:
        """Abort what broken uploads left below a prefix, instead of letting the next run continue them.

        Returns how many objects were unfinished. Their parts cost storage until then.

        Raises:
            BedrockError: S3 refused.
        """
        return discard_unfinished(s3_uri, s3=self._s3)

    @functools.cached_property
    def _given_session(self) -> Any:
        return self._session if self._session is not None else aws_session()

    @functools.cached_property
    def _s3(self) -> Any:
        options = CLIENT_OPTIONS.copy()
        options |= {"endpoint_url": self._endpoint_url, "region": self._region}
        return aws_client("s3", self._session, **options)

    def _stored_export(
        self, location: S3Location, source: Source, formatter: PromptFormatter | None
    ) -> tuple[Export, StoredMerge | None]:
        """What is, or will be, on S3, and the merged model that it is made from there."""
        there = S3Source(location, session=self._session, endpoint_url=self._endpoint_url, region=self._region)
        with tempfile.TemporaryDirectory() as directory:
            if stored := StoredMerge.copy(location.uri_of(""), there.sizes, there.read, Path(directory)):
                _require_same(stored.model.manifest, source)
                return Export.of(stored.model, formatter), stored
        prefix = S3Prefix(self._s3, location)
        content = prefix_manifest(prefix)
        own = _formatter_of(prefix) if PROMPT_FILE in content.files else None
        if formatter is not None and own is not None and own.fingerprint != formatter.fingerprint:
            raise PromptMismatchError(
                f"{location.uri_of(PROMPT_FILE)} is prompt {own.fingerprint!r}, not {formatter.fingerprint!r}. Leave "
                "out `formatter` to serve the prompt that the weights were trained with."
            )
        return Export({}, content, own or formatter), None

    def _request(
        self, export: Export, *, name: str, job_name: str, uri: str, tags: Mapping[str, str]
    ) -> dict[str, Any]:
        digest = export.manifest.digest
        ours = {MANIFEST_TAG: digest}
        if export.formatter is not None:
            ours[PROMPT_TAG] = export.formatter.fingerprint
        tag_list = [{"key": key, "value": value} for key, value in {**tags, **ours}.items()]
        return {
            "jobName": job_name,
            "importedModelName": name,
            "roleArn": self._role_arn,
            "modelDataSource": {"s3DataSource": {"s3Uri": uri}},
            "jobTags": tag_list,
            "importedModelTags": tag_list,
            "clientRequestToken": hashlib.sha256(f"{digest}\n{name}\n{job_name}".encode()).hexdigest(),
        }

    def _attach(self, arn: str, formatter: PromptFormatter | None, weight_bytes: int | None) -> ImportedModel:
        model_arn = self._jobs.wait(arn, weight_bytes) if ":model-import-job/" in arn else arn
        if not model_arn.startswith("arn:"):
            model_arn = str(self._jobs.call("get_imported_model", modelIdentifier=model_arn)["modelArn"])
        served = self._jobs.tags(model_arn).get(PROMPT_TAG)
        if formatter is not None and served not in (None, formatter.fingerprint):
            raise PromptMismatchError(
                f"{model_arn} was trained with prompt {served!r}, not {formatter.fingerprint!r}. "
                "Use PromptFormatter.load() on the merged model's directory."
            )
        name = self._jobs.call("get_imported_model", modelIdentifier=model_arn)["modelName"]
        return ImportedModel(
            model_arn,
            formatter,
            name=name,
            session=self._session,
            retry=RetryPolicy(sleep=self._sleep, clock=self._clock),
            show_progress=self._show_progress,
        )


def _opened(source: Source) -> MergedModel | Path:
    """A finished merged model as such, whatever names it; any other directory as a path."""
    if isinstance(source, MergedModel):
        return source
    path = Path(source)
    try:
        ours = read_object(path / MANIFEST, lenient=True).get("kind") == MergedModel.kind
    except (OSError, ValueError):
        ours = False
    return MergedModel.load(path) if ours else path


def _require_unchanged(source: Source) -> None:
    """Refuse a merged model whose directory was finished again; what changed without that, the upload notices."""
    if isinstance(source, MergedModel):
        _require_same(MergedModel.load(source.path).manifest, source)


def _require_same(there: Manifest, source: Source) -> None:
    """Refuse a manifest that is neither that of a loaded model nor of its export."""
    known = (there.digest, there.provenance.get("exported_from"))
    if isinstance(source, MergedModel) and source.manifest.digest not in known:
        raise CorruptArtifactError(
            f"{source.uri} was written again after this MergedModel was loaded. Use MergedModel.load()."
        )


def _formatter_of(prefix: S3Prefix) -> PromptFormatter:
    """The prompt.json of a prefix; it is checked where it is loaded, from a directory."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / PROMPT_FILE).write_bytes(prefix.read(PROMPT_FILE))
        return PromptFormatter.load(directory)
