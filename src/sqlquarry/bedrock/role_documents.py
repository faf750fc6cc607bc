"""The trust policy and permissions of the role that Bedrock assumes to read a model.

Source: "Create a service role for model import",
docs.aws.amazon.com/bedrock/latest/userguide/model-import-iam-role.html, and for VPCs …/vpc-custom-model-import.html.
The trust policy has a condition on aws:SourceAccount only. A condition on aws:SourceArn is optional, and users report
that CreateModelImportJob refuses roles that have one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, TypedDict

from sqlquarry.aws.owners import ACCOUNT_ID
from sqlquarry.errors import ConfigError
from sqlquarry.files.locations import BUCKET_NAME

_KEY_ARN = re.compile(r"arn:aws(-[^:]+)?:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]{36}")
_VERSION: Literal["2012-10-17"] = "2012-10-17"
_NETWORK_PARTS = ("NetworkInterfaces", "Vpcs", "DhcpOptions", "Subnets", "SecurityGroups")

Condition = Mapping[str, Mapping[str, str | list[str]]]


class PolicyStatement(TypedDict, total=False):
    """A policy statement with the keys of IAM's JSON."""

    Sid: str
    Effect: Literal["Allow"]
    Principal: Mapping[str, str]
    Action: str | list[str]
    Resource: str | list[str]
    Condition: Condition


class PolicyDocument(TypedDict):
    """A policy with the keys of IAM's JSON."""

    Version: Literal["2012-10-17"]
    Statement: list[PolicyStatement]


class RoleDocuments(NamedTuple):
    """The two policies of a role: who may assume it (`trust`), and what it may do (`permissions`)."""

    trust: PolicyDocument
    permissions: PolicyDocument


def role_documents(
    *,
    account: str,
    bucket: str,
    prefix: str = "",
    bucket_owner: str | None = None,
    kms_key_arn: str | None = None,
    vpc_region: str | None = None,
    partition: str = "aws",
) -> RoleDocuments:
    """Return the policies that let Bedrock read models below a prefix, and nothing more.

    Args:
        account: the 12 digits of the account that imports. Only its jobs may assume the role.
        bucket: the bucket with the models.
        prefix: the folder in the bucket. "" allows reading the entire bucket.
        bucket_owner: the account that owns the bucket, if it is not `account`.
        kms_key_arn: the key that encrypts the bucket.
        vpc_region: the region of the VPC through which jobs read the bucket, or None without a VPC.
        partition: "aws", or the partition of China or GovCloud.

    Raises:
        ConfigError: values are invalid (all are listed).
    """
    prefix, owner, arn = prefix.strip("/"), bucket_owner or account, f"arn:{partition}"
    _require_valid(account, bucket, prefix, owner, kms_key_arn)
    statements = [*_reading(f"{arn}:s3:::{bucket}", prefix, owner)]
    if kms_key_arn:
        statements.append(_allow("DecryptModel", ["kms:Decrypt", "kms:DescribeKey"], [kms_key_arn]))
    if vpc_region:
        statements += _network(arn, vpc_region, account)
    return RoleDocuments(_trust(account), {"Version": _VERSION, "Statement": statements})


def _require_valid(account: str, bucket: str, prefix: str, owner: str, kms_key_arn: str | None) -> None:
    bad = [
        f"{name} is {value!r}"
        for name, value, pattern in (
            ("account", account, ACCOUNT_ID),
            ("bucket", bucket, BUCKET_NAME),
            ("bucket_owner", owner, ACCOUNT_ID),
            ("kms_key_arn", kms_key_arn or None, _KEY_ARN),
        )
        if value is not None and not pattern.fullmatch(value)
    ]
    if any(character in prefix for character in "*?$"):
        bad.append(f"prefix is {prefix!r}, but *, ? and $ have a special meaning in policies")
    if bad:
        raise ConfigError("role_documents: " + "; ".join(bad))


def _trust(account: str) -> PolicyDocument:
    """Let Bedrock assume the role for jobs of one account."""
    statement: PolicyStatement = {
        "Effect": "Allow",
        "Principal": {"Service": "bedrock.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": account}},
    }
    return {"Version": _VERSION, "Statement": [statement]}


def _reading(bucket: str, prefix: str, owner: str) -> Iterator[PolicyStatement]:
    """Allow listing a prefix of a bucket and reading its objects."""
    own = {"StringEquals": {"aws:ResourceAccount": owner}}
    below = {"StringLike": {"s3:prefix": [prefix, f"{prefix}/*"]}} if prefix else {}
    objects = f"{bucket}/{prefix}/*" if prefix else f"{bucket}/*"
    yield _allow("ListModel", ["s3:ListBucket"], [bucket], {**own, **below})
    yield _allow("ReadModel", ["s3:GetObject"], [objects], own)


def _network(arn: str, region: str, account: str) -> Iterator[PolicyStatement]:
    """Allow managing the network interfaces that Bedrock tags for import jobs, and no others."""
    ec2 = f"{arn}:ec2:{region}:{account}"
    jobs = [f"{arn}:bedrock:{region}:{account}:model-import-job/*"]
    interfaces = [f"{ec2}:network-interface/*"]
    describing = [f"ec2:Describe{part}" for part in _NETWORK_PARTS]
    using = ["CreateNetworkInterfacePermission", "DeleteNetworkInterface", "DeleteNetworkInterfacePermission"]

    def tagged(key: str) -> Condition:
        return {
            "StringEquals": {f"{key}/BedrockManaged": ["true"]},
            "ArnLike": {f"{key}/BedrockModelImportJobArn": jobs},
        }

    tagging: Condition = {
        "StringEquals": {"ec2:CreateAction": ["CreateNetworkInterface"]},
        "ForAllValues:StringEquals": {"aws:TagKeys": ["BedrockManaged", "BedrockModelImportJobArn"]},
    }
    create = ["ec2:CreateNetworkInterface"]
    yield _allow("DescribeNetwork", describing, "*")  # these actions do not support resources
    yield _allow("CreateInterfaceWithTags", create, interfaces, tagged("aws:RequestTag"))
    yield _allow("CreateInterfaceInNetwork", create, [f"{ec2}:subnet/*", f"{ec2}:security-group/*"])
    yield _allow("UseInterface", [f"ec2:{action}" for action in using], interfaces, tagged("aws:ResourceTag"))
    yield _allow("TagInterface", ["ec2:CreateTags"], interfaces, tagging)


def _allow(
    sid: str, actions: list[str], resources: str | list[str], condition: Condition | None = None
) -> PolicyStatement:
    statement: PolicyStatement = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    if condition is not None:
        statement["Condition"] = condition
    return statement
