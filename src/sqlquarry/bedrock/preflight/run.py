"""Check a model, the request to import it, and the account, before anything is uploaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.artifacts import MergedModel
from sqlquarry.aws import aws_session
from sqlquarry.bedrock.import_request import ImportRequest, VpcConfig, given_uri
from sqlquarry.bedrock.preflight.account import attempt, check_account, check_bucket
from sqlquarry.bedrock.preflight.findings import PreflightReport
from sqlquarry.bedrock.preflight.model import check_local_model, check_stored_model
from sqlquarry.bedrock.preflight.request import check_request, names_a_bucket
from sqlquarry.bedrock.preflight.source import S3Source, source_location
from sqlquarry.files.locations import S3Location
from sqlquarry.prompt import PromptFormatter

if TYPE_CHECKING:
    import boto3


def preflight(
    source: MergedModel | Path | str,
    name: str | None = None,
    *,
    s3_uri: str | Path | None = None,
    job_name: str | None = None,
    formatter: PromptFormatter | None = None,
    account: bool = False,
    role_arn: str | None = None,
    kms_key_id: str | None = None,
    vpc_config: VpcConfig | None = None,
    session: boto3.Session | None = None,
) -> PreflightReport:
    """Check a checkpoint and the request to import it, without reading weights.

    Local files are checked as `import_model` would upload them, and a merged model on S3 as `import_model` would
    rewrite it there. Everything that is rewritten becomes a note. Any other S3 prefix is checked unchanged. Only small
    files and shard headers are downloaded.

    Args:
        source: a merged model, any directory in transformers' format, or ``s3://bucket/prefix``.
        name: the imported model's name.
        s3_uri: the destination of the files. For a source on S3, the default is its own URI.
        job_name: the import job's name.
        formatter: the prompt that is passed to `import_model` for a local checkpoint without prompt.json.
        account: also check the bucket, quotas, running jobs, role, key and network in AWS.
        role_arn: the role that the service assumes.
        kms_key_id: the key that encrypts the imported model.
        vpc_config: ``{"subnetIds": […], "securityGroupIds": […]}``.
        session: a boto3 session with the region that is to serve the model. None uses the default credentials if AWS
            is needed, and skips checks that depend on the region.

    Raises:
        ConfigError: the directory does not exist, or no region is known.
        BedrockError: the prefix cannot be listed or read (network, credentials).
        MissingExtraError: AWS is needed, but boto3 is not installed.
    """
    if account and session is None:
        session = aws_session()
    region = session.region_name if session is not None else None
    request = ImportRequest(name, job_name, given_uri(s3_uri), region, role_arn, kms_key_id, vpc_config)
    return check_import(source, request, account=account, formatter=formatter, session=session)


def check_import(
    source: MergedModel | Path | str,
    request: ImportRequest,
    *,
    account: bool,
    formatter: PromptFormatter | None,
    session: boto3.Session | None,
) -> PreflightReport:
    """Check a model and the request to import it. For arguments and errors, see `preflight`."""
    place = source_location(source)
    if isinstance(place, S3Location) and request.s3_uri is None:
        request = replace(request, s3_uri=str(place))
    findings = [*check_request(request)]
    if not isinstance(place, S3Location):
        merged = source if isinstance(source, MergedModel) else None
        findings += check_local_model(place, merged, request.region, formatter)
    elif not names_a_bucket(str(place)):
        return PreflightReport(tuple(findings))
    else:
        files = S3Source(place, session=session, region=request.region)
        findings += check_stored_model(files, request.region, formatter)
        if not account:
            findings += attempt(
                place.bucket, "s3:ListBucket", lambda: check_bucket(files.prefix.client, place.bucket, request.region)
            )
    if account:
        findings += check_account(request, session=session)
    return PreflightReport(tuple(findings))
