"""Check the account's bucket, quotas, role, key and network, as far as the caller has permission.

A check without permission becomes a note, never an error, because preflight must not fail an import that would succeed.

Sources: user guide, encryption-import-model.html, vpc-custom-model-import.html, fine-tuning-troubleshooting.html
(the bucket's region). Quotas: "Amazon Bedrock endpoints and quotas" (AWS General Reference).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import error_code
from sqlquarry.bedrock.import_request import ImportRequest, VpcConfig
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error, note, warning
from sqlquarry.bedrock.preflight.role import check_role, check_role_permissions
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import JsonObject

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_service_quotas import ServiceQuotasClient

MODELS_QUOTA = "L-45B04988"  # imported models per account
DEFAULT_MODELS = 3
_NO_BUCKET = ("404", "NoSuchBucket")


def check_account(request: ImportRequest, *, session: boto3.Session | None) -> list[PreflightFinding]:
    """Check everything about the account that a request depends on, with about ten calls.

    Args:
        request: the parameters of the import. Those that are None are not checked.
        session: a boto3 session. None uses the default credentials.
    """
    region, role = request.region, request.role_arn
    bedrock = aws_client("bedrock", session)
    quotas = aws_client("service-quotas", session)
    findings = [
        *attempt("imported models", "bedrock:ListImportedModels", lambda: _model_quota(bedrock, quotas, request.name)),
        *attempt("import jobs", "bedrock:ListModelImportJobs", lambda: _running_jobs(bedrock)),
    ]
    place = S3Location.parse(request.s3_uri) if request.s3_uri else None
    key: str | None = None
    if place is not None:
        s3, bucket = aws_client("s3", session), place.bucket
        findings += attempt(bucket, "s3:ListBucket", lambda: check_bucket(s3, bucket, region))
        key = _bucket_key(s3, bucket)
    if role is not None and role.count(":role/") == 1:
        iam, sts = aws_client("iam", session), aws_client("sts", session)
        findings += attempt(role, "iam:GetRole", lambda: check_role(role, iam, sts))
        if place is not None:
            findings += attempt(
                f"permissions of {role}",
                "iam:SimulatePrincipalPolicy",
                lambda: check_role_permissions(role, place.bucket, place.prefix, kms_key=key, iam=iam, sts=sts),
            )
    return findings + _check_key_and_network(request, session)


def _check_key_and_network(request: ImportRequest, session: boto3.Session | None) -> list[PreflightFinding]:
    findings, region = [], request.region
    if (key := request.kms_key_id) is not None:
        kms = aws_client("kms", session)
        findings += attempt(key, "kms:DescribeKey", lambda: _kms_key(key, kms))
    if (network := request.vpc_config) is not None:
        ec2 = aws_client("ec2", session)
        findings += attempt(
            "vpc_config",
            "ec2:DescribeSubnets, DescribeSecurityGroups and DescribeVpcEndpoints",
            lambda: _network(network, ec2, region),
        )
    return findings


def attempt(what: str, permissions: str, check: Callable[[], Iterable[PreflightFinding]]) -> list[PreflightFinding]:
    """Run a check and return its findings, or a note if its requests fail."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        return list(check())
    except (BotoCoreError, ClientError, ResponseParserError) as problem:
        message = f"this could not be checked ({error_code(problem)})"
        why = "A problem would show only after the upload"
        return [note("unchecked", what, message, why, f"Allow {permissions} to check it")]


def check_bucket(s3: S3Client, bucket: str, region: str | None) -> Iterator[PreflightFinding]:
    """Check that the bucket exists and is in the region of the import."""
    from botocore.exceptions import ClientError

    try:
        actual = _bucket_region(s3, bucket)
    except ClientError as problem:
        if error_code(problem) not in _NO_BUCKET:
            raise
        why = "An import job reads its files from this bucket"
        yield error("bucket", bucket, "the bucket does not exist", why, "Create it in the region of the import")
        return
    if region is not None and actual != region:
        message = f"the bucket is in {actual}, but the import is in {region}"
        why = "Bedrock documents that customization jobs read only buckets in their own region"
        yield error("bucket-region", bucket, message, why, f"Use a bucket in {region}, or import in {actual}")


def _bucket_region(s3: S3Client, bucket: str) -> str:
    """Return the region of a bucket.

    Raises:
        ClientError: the bucket does not exist, or the caller may not ask.
    """
    from botocore.exceptions import ClientError

    answer: JsonObject
    try:
        answer = {**s3.head_bucket(Bucket=bucket)}
    except ClientError as problem:
        # A bucket in another region answers 301 or 400, and its headers still contain the region.
        if error_code(problem) in _NO_BUCKET or not _region_header(answer := {**problem.response}):
            raise
    named = answer.get("BucketRegion") or _region_header(answer)
    if named is None:
        location: JsonObject = {**s3.get_bucket_location(Bucket=bucket)}
        named = location.get("LocationConstraint") or "us-east-1"  # the API returns no name for us-east-1
    return str(named)


def _region_header(answer: JsonObject) -> str | None:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = headers.get("x-amz-bucket-region")
    return region


def _bucket_key(s3: S3Client, bucket: str) -> str | None:
    """Return the KMS key that encrypts a bucket's objects, or None if there is none or the caller may not ask."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    except (BotoCoreError, ClientError, KeyError):
        return None  # the role's other permissions are still worth checking
    defaults = (rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules)
    return next((d["KMSMasterKeyID"] for d in defaults if d.get("KMSMasterKeyID")), None)


def _model_quota(bedrock: BedrockClient, quotas: ServiceQuotasClient, name: str | None) -> Iterator[PreflightFinding]:
    from botocore.exceptions import BotoCoreError, ClientError

    pages = bedrock.get_paginator("list_imported_models").paginate()
    models = [model["modelName"] for page in pages for model in page.get("modelSummaries", ())]
    try:
        quota = quotas.get_service_quota(ServiceCode="bedrock", QuotaCode=MODELS_QUOTA)
        limit = int(quota["Quota"]["Value"])
    except (BotoCoreError, ClientError) as problem:
        limit = DEFAULT_MODELS
        message = f"the limit of imported models could not be read ({error_code(problem)}), so {limit} is assumed"
        why = "CreateModelImportJob refuses models beyond the limit"
        yield note("unchecked", MODELS_QUOTA, message, why, "Allow servicequotas:GetServiceQuota to check it")
    # The importer returns a model with the same name and content, and refuses one with other content.
    if name not in models and len(models) >= limit:
        message = f"the account has {len(models)} of {limit} imported models: {', '.join(sorted(models)[:5])}"
        why = "CreateModelImportJob refuses models beyond the limit"
        fix = f"Delete a model that you do not need, or raise quota {MODELS_QUOTA}"
        yield error("model-quota", "account", message, why, fix)


def _running_jobs(bedrock: BedrockClient) -> Iterator[PreflightFinding]:
    running = bedrock.list_model_import_jobs(statusEquals="InProgress").get("modelImportJobSummaries", ())
    if running:
        message = f"job {running[0].get('jobName')!r} is running"
        why = "An account runs one import job at a time, and this limit cannot be raised"
        yield warning("job-running", "account", message, why, "import_model waits for the slot")


def _kms_key(key: str, kms: KMSClient) -> Iterator[PreflightFinding]:
    from botocore.exceptions import ClientError

    why = "The service creates a grant on the key, and encrypts the imported model with it"
    try:
        metadata = kms.describe_key(KeyId=key)["KeyMetadata"]
    except ClientError as problem:
        if error_code(problem) != "NotFoundException":
            raise
        yield error("kms-key", key, "the key does not exist", why, "Use a key of this account and region")
        return
    state, spec = metadata.get("KeyState", "Enabled"), metadata.get("KeySpec", "SYMMETRIC_DEFAULT")
    if state != "Enabled":
        yield error("kms-key", key, f"its state is {state}", why, "Enable the key, or use another one")
    if spec != "SYMMETRIC_DEFAULT":
        yield error("kms-key", key, f"its type is {spec}", why, "Use a symmetric encryption key")


def _network(config: VpcConfig, ec2: EC2Client, region: str | None) -> Iterator[PreflightFinding]:
    from botocore.exceptions import ClientError

    why = "The job reads the bucket through this network"
    try:
        subnets = ec2.describe_subnets(SubnetIds=list(config.get("subnetIds", ())))["Subnets"]
        groups = ec2.describe_security_groups(GroupIds=list(config.get("securityGroupIds", ())))["SecurityGroups"]
    except ClientError as problem:
        if not error_code(problem).endswith((".NotFound", ".Malformed")):
            raise
        message = str(problem.response["Error"]["Message"]).rstrip(".")
        yield error("vpc", "vpc_config", message, why, "Use subnets and security groups of this account and region")
        return
    vpcs = {item["VpcId"] for item in (*subnets, *groups)}
    if len(vpcs) > 1:
        message = f"subnets and security groups belong to several VPCs: {', '.join(sorted(vpcs))}"
        yield error("vpc", "vpc_config", message, why, "Use subnets and security groups of one VPC")
        return
    filters: list[FilterTypeDef] = [
        {"Name": "vpc-id", "Values": sorted(vpcs)},
        {"Name": "service-name", "Values": [f"com.amazonaws.{region or ec2.meta.region_name}.s3"]},
    ]
    if not ec2.describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]:
        message = f"{', '.join(sorted(vpcs))} has no S3 endpoint"
        fix = "Create a gateway endpoint for S3 in the VPC"
        yield warning("vpc-endpoint", "vpc_config", message, f"{why}, and may not reach S3", fix)
