"""Create or update the role that Bedrock assumes to read a model."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import aws_errors, error_code
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock.role_documents import RoleDocuments, role_documents
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iam.type_defs import RoleTypeDef

logger = visible_logger(__name__)

_DESCRIPTION = "Amazon Bedrock reads models for Custom Model Import (SQLQuarry)"
_ROLE_NAME = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
_POLLING = Polling(interval_s=2.0)
_LONGEST_WAIT_S = 60.0


def create_import_role(
    name: str,
    *,
    bucket: str,
    prefix: str = "",
    bucket_owner: str | None = None,
    kms_key_arn: str | None = None,
    vpc: bool = False,
    session: boto3.Session | None = None,
    polling: Polling = _POLLING,
) -> str:
    """Create the role that `BedrockImporter` needs, or update a role that this function created, and return its ARN.

    A second call with the same arguments changes nothing. A call with another bucket or prefix also lets the role
    read that prefix. The call returns once IAM shows the role and its policy. Bedrock may need minutes more before it
    accepts the role, and `BedrockImporter` waits for that.

    Args:
        name: the role's name.
        bucket: as in `role_documents`.
        prefix: as in `role_documents`.
        bucket_owner: as in `role_documents`.
        kms_key_arn: as in `role_documents`.
        vpc: jobs read the bucket through a VPC in the session's region.
        session: a boto3 session that may manage IAM. None uses the default credentials.
        polling: how often to ask IAM for the role, and for how long. The default is every 2 s for 60 s.

    Raises:
        ConfigError: a value is invalid.
        BedrockError: IAM refused a request, a role of this name exists that this function did not create, or IAM does
            not show the role in time.
    """
    if not _ROLE_NAME.fullmatch(name):
        raise ConfigError(f"create_import_role: name is {name!r}, but must have 1 to 64 letters, digits or +=,.@-_")
    iam, sts = aws_client("iam", session), aws_client("sts", session)
    place = f"{bucket}/{prefix.strip('/')}"
    with aws_errors(BedrockError, f"creating role {name!r}", service="bedrock"):
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
        role = _ImportRole(iam, name, place, documents)
        role.write()
        arn = role.wait(polling.with_timeout(_LONGEST_WAIT_S))
    logger.info("role %s may read s3://%s", arn, place)
    return arn


@dataclass(frozen=True, slots=True)
class _ImportRole:
    """The desired state of a role.

    Args:
        iam: an IAM client.
        name: the role's name.
        place: the ``bucket/prefix`` that it may read.
        documents: the role's policies.
    """

    iam: IAMClient
    name: str
    place: str
    documents: RoleDocuments

    @property
    def policy(self) -> str:
        """The name of the policy for this prefix. Each prefix has its own, so a role can have several."""
        return f"read-{hashlib.sha256(self.place.encode()).hexdigest()[:12]}"

    def write(self) -> None:
        """Create the role and its policies if they are missing, and update them if they differ.

        Raises:
            BedrockError: a role of this name exists that `create_import_role` did not create.
        """
        trust, permissions = map(json.dumps, self.documents)
        role = _role(self.iam, self.name)
        if role is None:
            self.iam.create_role(RoleName=self.name, Description=_DESCRIPTION, AssumeRolePolicyDocument=trust)
        elif role.get("Description") != _DESCRIPTION:
            raise BedrockError(
                f"a role {self.name!r} already exists ({role['Arn']}), and create_import_role did not create it. "
                "Choose another name, or attach the policies that role_documents() returns to it yourself."
            )
        elif not self._is_trusted(role):
            self.iam.update_assume_role_policy(RoleName=self.name, PolicyDocument=trust)
        if not self._is_permitted():
            self.iam.put_role_policy(RoleName=self.name, PolicyName=self.policy, PolicyDocument=permissions)

    def wait(self, polling: Polling) -> str:
        """Wait until IAM shows the role as written, and return its ARN.

        Raises:
            BedrockError: IAM does not show it in time.
        """
        started = polling.clock()
        while not ((role := _role(self.iam, self.name)) and self._is_trusted(role) and self._is_permitted()):
            waited = polling.clock() - started
            if polling.is_over(waited):
                raise BedrockError(
                    f"IAM still does not show role {self.name!r} as written after {waited:.0f} s. Run "
                    "create_import_role again."
                )
            polling.sleep(polling.interval_s)
        return role["Arn"]

    def _is_trusted(self, role: RoleTypeDef) -> bool:
        shown: object = role["AssumeRolePolicyDocument"]
        return shown == self.documents.trust

    def _is_permitted(self) -> bool:
        return _policy(self.iam, self.name, self.policy) == self.documents.permissions


def _role(iam: IAMClient, name: str) -> RoleTypeDef | None:
    from botocore.exceptions import ClientError

    try:
        return iam.get_role(RoleName=name)["Role"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        return None


def _policy(iam: IAMClient, name: str, policy: str) -> object:
    """Return the document of a role's policy, or None if the role has no such policy."""
    from botocore.exceptions import ClientError

    try:
        return iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        return None
