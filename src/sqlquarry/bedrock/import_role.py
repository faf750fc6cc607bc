"""Make the role that Bedrock assumes to read a model, or complete the one that was made here before."""

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
    """Make the role that `BedrockImporter` needs, or complete the one that this function made; returns its ARN.

    A second call changes nothing; one for another bucket or prefix lets the role read that too. Returns once IAM shows
    role and policy; Bedrock itself may need minutes more, which `BedrockImporter` waits for.

    Args:
        name: the role's name.
        bucket: as `role_documents`.
        prefix: as `role_documents`.
        bucket_owner: as `role_documents`.
        kms_key_arn: as `role_documents`.
        vpc: jobs read the bucket through a VPC of the session's region.
        session: a boto3 session that may manage IAM; None uses the default credentials.
        polling: how often to ask IAM for the role, and how long; by default every 2 s, for 60 s.

    Raises:
        ConfigError: bad values.
        BedrockError: IAM refused, there is a role of this name that this function did not make, or IAM does not show
            it in time.
    """
    if not _ROLE_NAME.fullmatch(name):
        raise ConfigError(f"create_import_role: name is {name!r}, but must be 1 to 64 letters, digits or +=,.@-_")
    iam, sts = aws_client("iam", session), aws_client("sts", session)
    place = f"{bucket}/{prefix.strip('/')}"
    with aws_errors(BedrockError, f"making role {name!r}", service="bedrock"):
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
    """A role as it is to be.

    Args:
        iam: the client that makes it.
        name: the role's name.
        place: what it may read, ``bucket/prefix``.
        documents: its policies.
    """

    iam: IAMClient
    name: str
    place: str
    documents: RoleDocuments

    @property
    def policy(self) -> str:
        """The name of the policy for the place; another place has a policy of its own, so the role keeps both."""
        return f"read-{hashlib.sha256(self.place.encode()).hexdigest()[:12]}"

    def write(self) -> None:
        """Write what is missing or differs.

        Raises:
            BedrockError: there is a role of this name that `create_import_role` did not make.
        """
        trust, permissions = map(json.dumps, self.documents)
        role = _role(self.iam, self.name)
        if role is None:
            self.iam.create_role(RoleName=self.name, Description=_DESCRIPTION, AssumeRolePolicyDocument=trust)
        elif role.get("Description") != _DESCRIPTION:
            raise BedrockError(
                f"a role {self.name!r} exists that create_import_role did not make ({role['Arn']}). Choose another "
                "name, or give it the documents of role_documents() yourself."
            )
        elif not self._is_trusted(role):
            self.iam.update_assume_role_policy(RoleName=self.name, PolicyDocument=trust)
        if not self._is_permitted():
            self.iam.put_role_policy(RoleName=self.name, PolicyName=self.policy, PolicyDocument=permissions)

    def wait(self, polling: Polling) -> str:
        """Wait until IAM shows the role as it was written, and return its ARN.

        Raises:
            BedrockError: IAM does not show it in time.
        """
        started = polling.clock()
        while not ((role := _role(self.iam, self.name)) and self._is_trusted(role) and self._is_permitted()):
            waited = polling.clock() - started
            if polling.is_over(waited):
                raise BedrockError(
                    f"IAM does not show role {self.name!r} as it was made, {waited:.0f} s after. Run it again."
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
    """Return the document of a policy of a role; None if it has no such policy."""
    from botocore.exceptions import ClientError

    try:
        return iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        return None
