"""The role that Bedrock assumes to read a model: least privilege, made once, or its documents for others to make.

Source: "Create a service role for model import",
docs.aws.amazon.com/bedrock/latest/userguide/model-import-iam-role.html, and for VPCs …/vpc-custom-model-import.html.
Trust is on aws:SourceAccount alone: an aws:SourceArn condition is optional there, and reported to make
CreateModelImportJob refuse the role.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import bedrock_error, error_code
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)

_DESCRIPTION = "Amazon Bedrock reads models for Custom Model Import (SQLQuarry)"
_ROLE_NAME = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
_BUCKET = re.compile(r"[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]")
_KEY_ARN = re.compile(r"arn:aws(-[^:]+)?:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]{36}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_POLL_S = 2.0


class RoleDocuments(NamedTuple):
    """The two JSON documents of a role: who may assume it, and what it may do."""

    trust: dict[str, Any]
    permissions: dict[str, Any]


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
    """What the role needs, and nothing more.

    Args:
        account: the 12 digits of the account that imports; only its jobs may assume the role.
        bucket: the bucket that holds the models.
        prefix: the folder in it; "" opens the whole bucket for reading.
        bucket_owner: the account that owns the bucket; None is `account`.
        kms_key_arn: the key that the bucket is encrypted with.
        vpc_region: the region of the VPC through which jobs read the bucket; None for no VPC.
        partition: "aws", or that of China or GovCloud.

    Raises:
        ConfigError: bad values, all at once.
    """
    prefix = prefix.strip("/")
    bad = [
        f"{name} is {value!r}"
        for name, value, pattern in (
            ("account", account, _ACCOUNT),
            ("bucket", bucket, _BUCKET),
            ("bucket_owner", bucket_owner or account, _ACCOUNT),
            ("kms_key_arn", kms_key_arn or f"arn:aws:kms:x:{0:012}:key/{0:036}", _KEY_ARN),
        )
        if not pattern.fullmatch(value)
    ]
    if any(character in prefix for character in "*?$"):
        bad.append(f"prefix is {prefix!r}: *, ? and $ have a meaning of their own in policies")
    if bad:
        raise ConfigError("role_documents: " + "; ".join(bad))
    own = {"StringEquals": {"aws:ResourceAccount": bucket_owner or account}}
    listing: dict[str, Any] = dict(own)
    if prefix:
        listing["StringLike"] = {"s3:prefix": [prefix, f"{prefix}/*"]}
    statements: list[dict[str, Any]] = [
        {
            "Sid": "ListModel",
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [f"arn:{partition}:s3:::{bucket}"],
            "Condition": listing,
        },
        {
            "Sid": "ReadModel",
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": [f"arn:{partition}:s3:::{bucket}/{f'{prefix}/' if prefix else ''}*"],
            "Condition": own,
        },
    ]
    if kms_key_arn:
        statements.append(
            {
                "Sid": "DecryptModel",
                "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:DescribeKey"],
                "Resource": [kms_key_arn],
            }
        )
    if vpc_region:
        statements += _vpc_statements(f"arn:{partition}", vpc_region, account)
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "bedrock.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            }
        ],
    }
    return RoleDocuments(trust, {"Version": "2012-10-17", "Statement": statements})


def create_import_role(
    session: Any = None,
    *,
    name: str,
    bucket: str,
    prefix: str = "",
    bucket_owner: str | None = None,
    kms_key_arn: str | None = None,
    vpc: bool = False,
    endpoint_url: str | None = None,
    region: str | None = None,
    propagation_s: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Make the role that `BedrockImporter` needs, or complete the one that this function made; returns its ARN.

    A second call changes nothing; one for another bucket or prefix lets the role read that too. Returns once IAM shows
    role and policy; Bedrock itself may need minutes more, which `BedrockImporter` waits for.

    Args:
        session: a boto3 session that may manage IAM; None uses the default credentials.
        name: the role's name.
        bucket: as `role_documents`.
        prefix: as `role_documents`.
        bucket_owner: as `role_documents`.
        kms_key_arn: as `role_documents`.
        vpc: jobs read the bucket through a VPC of `region`.
        endpoint_url: another address for all AWS calls.
        region: the region of the imports; None uses the session's.
        propagation_s: seconds to wait for IAM.
        sleep: waits; injected by tests.
        clock: seconds that never go back; injected by tests.

    Raises:
        ConfigError: bad values.
        BedrockError: IAM refused, a role of this name exists that is not ours, or IAM does not show it in time.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    if not _ROLE_NAME.fullmatch(name):
        raise ConfigError(f"create_import_role: name is {name!r}, but must be 1 to 64 letters, digits or +=,.@-_")
    iam = aws_client("iam", session, endpoint_url=endpoint_url, region=region)
    sts = aws_client("sts", session, endpoint_url=endpoint_url, region=region)
    try:
        caller = sts.get_caller_identity()
        documents = role_documents(
            account=caller["Account"],
            bucket=bucket,
            prefix=prefix,
            bucket_owner=bucket_owner,
            kms_key_arn=kms_key_arn,
            vpc_region=sts.meta.region_name if vpc else None,
            partition=caller["Arn"].split(":")[1],
        )
        role = _role(iam, name)
        if role is None:
            trust = json.dumps(documents.trust)
            iam.create_role(RoleName=name, Description=_DESCRIPTION, AssumeRolePolicyDocument=trust)
        elif role.get("Description") != _DESCRIPTION:
            raise BedrockError(
                f"a role {name!r} exists that create_import_role did not make ({role['Arn']}). Choose another name, or "
                "give it the documents of role_documents() yourself."
            )
        elif role["AssumeRolePolicyDocument"] != documents.trust:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(documents.trust))
        # One policy per place: reading another one takes nothing from the first.
        place = f"{bucket}/{prefix.strip('/')}"
        policy = f"read-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        if _policy(iam, name, policy) != documents.permissions:
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(documents.permissions))
        started = clock()
        while not (
            (role := _role(iam, name))
            and role["AssumeRolePolicyDocument"] == documents.trust
            and _policy(iam, name, policy) == documents.permissions
        ):
            waited = clock() - started
            if waited >= propagation_s:
                raise BedrockError(
                    f"IAM does not show role {name!r} as it was made, {waited:.0f} s after. Run it again."
                )
            sleep(_POLL_S)
    except (BotoCoreError, ClientError) as error:
        raise bedrock_error(error, f"making role {name!r}") from error
    arn = str(role["Arn"])
    logger.info("role %s may read s3://%s", arn, place)
    return arn


def _role(iam: Any, name: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        role: dict[str, Any] = iam.get_role(RoleName=name)["Role"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        return None
    return role


def _policy(iam: Any, name: str, policy: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        document: dict[str, Any] = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        return None
    return document


def _vpc_statements(arn: str, region: str, account: str) -> list[dict[str, Any]]:
    """Network interfaces of import jobs, and no others: told by the tags that Bedrock gives them."""
    ec2 = f"{arn}:ec2:{region}:{account}"
    jobs = [f"{arn}:bedrock:{region}:{account}:model-import-job/*"]

    def tagged(kind: str) -> dict[str, Any]:
        return {
            "StringEquals": {f"{kind}/BedrockManaged": ["true"]},
            "ArnLike": {f"{kind}/BedrockModelImportJobArn": jobs},
        }

    interface = [f"{ec2}:network-interface/*"]
    return [
        {
            "Sid": "DescribeNetwork",
            "Effect": "Allow",
            "Action": [
                f"ec2:Describe{what}"
                for what in ("NetworkInterfaces", "Vpcs", "DhcpOptions", "Subnets", "SecurityGroups")
            ],
            "Resource": "*",  # these actions know no resources
        },
        {
            "Sid": "CreateInterfaceWithTags",
            "Effect": "Allow",
            "Action": ["ec2:CreateNetworkInterface"],
            "Resource": interface,
            "Condition": tagged("aws:RequestTag"),
        },
        {
            "Sid": "CreateInterfaceInNetwork",
            "Effect": "Allow",
            "Action": ["ec2:CreateNetworkInterface"],
            "Resource": [f"{ec2}:subnet/*", f"{ec2}:security-group/*"],
        },
        {
            "Sid": "UseInterface",
            "Effect": "Allow",
            "Action": [
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            ],
            "Resource": interface,
            "Condition": tagged("aws:ResourceTag"),
        },
        {
            "Sid": "TagInterface",
            "Effect": "Allow",
            "Action": ["ec2:CreateTags"],
            "Resource": interface,
            "Condition": {
                "StringEquals": {"ec2:CreateAction": ["CreateNetworkInterface"]},
                "ForAllValues:StringEquals": {"aws:TagKeys": ["BedrockManaged", "BedrockModelImportJobArn"]},
            },
        },
    ]
