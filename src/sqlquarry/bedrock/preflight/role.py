"""Checks of the service role: that it exists, that Bedrock may assume it, and that it may read the bucket.

Source: "Create a service role for model import", Bedrock user guide, model-import-iam-role.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlquarry.aws.failures import error_code
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error, warning

_SERVICE = "bedrock.amazonaws.com"
_WHY = "Bedrock assumes the role to read the files; else CreateModelImportJob says: The provided role ARN is invalid"


def check_role(role_arn: str, iam: Any, sts: Any) -> Iterator[PreflightFinding]:
    """The role exists in the caller's account, and trusts the service."""
    from botocore.exceptions import ClientError

    account = str(sts.get_caller_identity()["Account"])
    owner = role_arn.split(":")[4]
    if owner != account:
        message = f"the role is of account {owner}, the caller of {account}"
        yield error("role", role_arn, message, "A role can be passed within its account only", f"Use one in {account}")
        return
    try:
        role = iam.get_role(RoleName=role_arn.rsplit("/", 1)[-1])["Role"]
    except ClientError as problem:
        if error_code(problem) != "NoSuchEntity":
            raise
        yield error("role", role_arn, "there is no such role", _WHY, "Create it, or give the ARN of another one")
        return
    trusting = [s for s in _statements(role["AssumeRolePolicyDocument"]) if _trusts_bedrock(s)]
    if not trusting:
        fix = f"Allow sts:AssumeRole to the service principal {_SERVICE}"
        yield error("role-trust", role_arn, f"its trust policy does not allow {_SERVICE}", _WHY, fix)
        return
    conditions = [_conditions(statement) for statement in trusting]
    accounts = [condition.get("aws:sourceaccount") for condition in conditions]
    if all(values is not None and account not in values for values in accounts):
        message = f"its trust policy allows aws:SourceAccount {accounts[0]}, not {account}"
        yield error("role-trust", role_arn, message, _WHY, f"Set aws:SourceAccount to {account}")
    elif None in accounts:
        message = "its trust policy has no condition on aws:SourceAccount"
        why = "Without it, other accounts' jobs could use the role through Bedrock (the confused deputy)"
        yield warning("role-trust", role_arn, message, why, f"Add StringEquals aws:SourceAccount = {account}")
    if all("aws:sourcearn" in condition for condition in conditions):
        yield warning(
            "role-trust",
            role_arn,
            "its trust policy has a condition on aws:SourceArn",
            "AWS documents it, but some imports are reported to fail with it: The provided role ARN is invalid",
            "Where that happens keep aws:SourceAccount only",
        )


def check_role_permissions(
    role_arn: str, bucket: str, prefix: str, *, kms_key: str | None, iam: Any, sts: Any
) -> Iterator[PreflightFinding]:
    """IAM's simulation allows the role to list the prefix, to read its objects, and to decrypt them."""
    account = str(sts.get_caller_identity()["Account"])
    partition = role_arn.split(":")[1]
    wanted = [
        ("s3:ListBucket", f"arn:{partition}:s3:::{bucket}", "the bucket"),
        ("s3:GetObject", f"arn:{partition}:s3:::{bucket}/{prefix}config.json", "the files"),
    ]
    if kms_key is not None and kms_key.startswith("arn:"):
        wanted.append(("kms:Decrypt", kms_key, "the key that the bucket is encrypted with"))
    # As the documented policy conditions them; the bucket is taken to belong to the caller.
    context = [
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
        # What depends on values that only a real request has is not decided by a simulation.
        severity = warning if unknown else error
        hint = f" (its conditions ask for {', '.join(unknown)})" if unknown else ""
        why = "The job fails once it reads what was uploaded"
        yield severity("role-permissions", role_arn, message + hint, why, f"Allow the role {action} on {what}")


def _statements(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    statements = policy.get("Statement", [])
    return [statements] if isinstance(statements, Mapping) else list(statements)


def _many(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _trusts_bedrock(statement: Mapping[str, Any]) -> bool:
    principal = statement.get("Principal")
    services = _many(principal.get("Service")) if isinstance(principal, Mapping) else _many(principal)
    actions = _many(statement.get("Action"))
    return (
        statement.get("Effect") == "Allow"
        and bool({_SERVICE, "*"} & set(services))
        and any(action in ("sts:AssumeRole", "sts:*", "*") for action in actions)
    )


def _conditions(statement: Mapping[str, Any]) -> dict[str, list[str]]:
    """Condition key in lower case (IAM ignores case) -> values, whatever the operator."""
    return {
        key.lower(): _many(value)
        for operands in (statement.get("Condition") or {}).values()
        for key, value in operands.items()
    }
