"""Check that the service role exists, that Bedrock may assume it, and that it may read the bucket.

Source: "Create a service role for model import", Bedrock user guide, model-import-iam-role.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import error_code
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error, warning
from sqlquarry.files.metadata import JsonObject

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iam.type_defs import ContextEntryTypeDef
    from mypy_boto3_sts import STSClient

_SERVICE = "bedrock.amazonaws.com"
_WHY = "Bedrock must assume the role, otherwise CreateModelImportJob answers: The provided role ARN is invalid"


def check_role(role_arn: str, iam: IAMClient, sts: STSClient) -> Iterator[PreflightFinding]:
    """Check that the role exists in the caller's account and trusts the service."""
    from botocore.exceptions import ClientError

    account = str(sts.get_caller_identity()["Account"])
    owner = role_arn.split(":")[4]
    if owner != account:
        message = f"the role belongs to account {owner}, but the caller to {account}"
        why = "A role can only be passed within its own account"
        yield error("role", role_arn, message, why, f"Use a role in {account}")
        return
    try:
        role = iam.get_role(RoleName=role_arn.rsplit("/", 1)[-1])["Role"]
    except ClientError as problem:
        if error_code(problem) != "NoSuchEntity":
            raise
        yield error("role", role_arn, "the role does not exist", _WHY, "Create the role, or use the ARN of another one")
        return
    yield from _check_trust(role_arn, account, role["AssumeRolePolicyDocument"])


def _check_trust(role_arn: str, account: str, policy: object) -> Iterator[PreflightFinding]:
    """Check that a trust policy lets Bedrock assume the role for jobs of this account only."""
    about_bedrock = [statement for statement in _statements(policy) if _is_about_bedrock(statement)]
    trusting = [_conditions(statement) for statement in about_bedrock if statement.get("Effect") == "Allow"]
    # A Deny wins over any Allow. One with a condition may not apply, and is left to AWS.
    if any(s.get("Effect") == "Deny" and not s.get("Condition") for s in about_bedrock):
        fix = f"Remove the statement that denies sts:AssumeRole to the service principal {_SERVICE}"
        yield error("role-trust", role_arn, f"its trust policy denies {_SERVICE}", _WHY, fix)
        return
    if not trusting:
        fix = f"Allow sts:AssumeRole to the service principal {_SERVICE}"
        yield error("role-trust", role_arn, f"its trust policy does not allow {_SERVICE}", _WHY, fix)
        return
    accounts = [condition.get("aws:sourceaccount") for condition in trusting]
    if all(values is not None and account not in values for values in accounts):
        message = f"its trust policy allows aws:SourceAccount {accounts[0]}, not {account}"
        yield error("role-trust", role_arn, message, _WHY, f"Set aws:SourceAccount to {account}")
    elif None in accounts:
        message = "its trust policy has no condition on aws:SourceAccount"
        why = "Without it, other accounts' jobs could use the role through Bedrock (the confused deputy)"
        yield warning("role-trust", role_arn, message, why, f"Add StringEquals aws:SourceAccount = {account}")
    if all("aws:sourcearn" in condition for condition in trusting):
        message = "its trust policy has a condition on aws:SourceArn"
        why = "AWS documents it, but users report imports that fail with it: The provided role ARN is invalid"
        yield warning("role-trust", role_arn, message, why, "If that happens, keep only aws:SourceAccount")


def check_role_permissions(
    role_arn: str, bucket: str, prefix: str, *, kms_key: str | None, iam: IAMClient, sts: STSClient
) -> Iterator[PreflightFinding]:
    """Check with IAM's policy simulation that the role may list the prefix, read its objects, and decrypt them."""
    account = str(sts.get_caller_identity()["Account"])
    partition = role_arn.split(":")[1]
    wanted = [
        ("s3:ListBucket", f"arn:{partition}:s3:::{bucket}", "the bucket"),
        ("s3:GetObject", f"arn:{partition}:s3:::{bucket}/{prefix}config.json", "the files"),
    ]
    if kms_key is not None and kms_key.startswith("arn:"):
        wanted.append(("kms:Decrypt", kms_key, "the key that the bucket is encrypted with"))
    # The condition keys of the documented policy. The bucket is assumed to belong to the caller.
    context: list[ContextEntryTypeDef] = [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in (("aws:ResourceAccount", account), ("s3:prefix", prefix))
    ]
    for action, resource, what in wanted:
        result = iam.simulate_principal_policy(
            PolicySourceArn=role_arn, ActionNames=[action], ResourceArns=[resource], ContextEntries=context
        )["EvaluationResults"][0]
        if result["EvalDecision"] == "allowed":
            continue
        message = f"{action} on {resource}: {result['EvalDecision']}"
        unknown = result.get("MissingContextValues")
        # A simulation cannot decide conditions on values that only a real request has.
        severity = warning if unknown else error
        hint = f" (its conditions need {', '.join(unknown)})" if unknown else ""
        why = "The job fails when it reads the uploaded files"
        yield severity("role-permissions", role_arn, message + hint, why, f"Allow the role {action} on {what}")


def _statements(policy: object) -> list[JsonObject]:
    statements = policy.get("Statement", []) if isinstance(policy, Mapping) else []
    return [statements] if isinstance(statements, dict) else list(statements)


def _many(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _is_about_bedrock(statement: JsonObject) -> bool:
    """Return whether a statement of a trust policy is about Bedrock assuming the role."""
    principal = statement.get("Principal")
    services = _many(principal.get("Service")) if isinstance(principal, Mapping) else _many(principal)
    actions = _many(statement.get("Action"))
    return bool({_SERVICE, "*"} & set(services)) and bool({"sts:AssumeRole", "sts:*", "*"} & set(actions))


def _conditions(statement: JsonObject) -> dict[str, list[str]]:
    """Return condition key -> values, for all operators. Keys are in lower case, because IAM ignores case."""
    return {
        key.lower(): _many(value)
        for operands in (statement.get("Condition") or {}).values()
        for key, value in operands.items()
    }
