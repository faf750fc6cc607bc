"""Access to moto's process-global state: accounts with their roles, access keys and buckets."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from sqlquarry.emulator.requests.signature import AccessKey


def choose_account() -> str:
    """Return the account that every request of this process belongs to: $MOTO_ACCOUNT_ID, or a random one."""
    return os.environ.get("MOTO_ACCOUNT_ID") or str(secrets.randbelow(9 * 10**11) + 10**11)


def reset_moto() -> None:
    """Clear the state of every emulated service in this process."""
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()


def role_trusts(service: str, arn: str, *, account: str) -> bool:
    """Return whether an emulated role exists and allows a service ("bedrock.amazonaws.com") to assume it.

    Conditions are not evaluated. A statement that allows it counts as if its condition were met, and one that denies it
    as if its condition were not.
    """
    from moto.iam.exceptions import NotFoundException
    from moto.iam.models import iam_backends

    try:
        role = iam_backends[account]["aws"].get_role_by_arn(arn)
    except NotFoundException:
        return False
    document = json.loads(role.assume_role_policy_document or "{}")
    applying = [statement for statement in _listed(document.get("Statement")) if _is_about(statement, service)]
    is_denied = any(statement["Effect"] == "Deny" and not statement.get("Condition") for statement in applying)
    return not is_denied and any(statement["Effect"] == "Allow" for statement in applying)


def _is_about(statement: Mapping[str, object], service: str) -> bool:
    """Return whether a statement of a trust policy is about a service that assumes the role."""
    principal = statement.get("Principal")
    services = _listed(principal.get("Service") if isinstance(principal, Mapping) else principal)
    actions = _listed(statement.get("Action"))
    return bool({service, "*"} & set(services)) and bool({"sts:AssumeRole", "sts:*", "*"} & set(actions))


def _listed(value: Any) -> list[Any]:  # part of a policy, in which a list of one item may be written as the item
    return value if isinstance(value, list) else [] if value is None else [value]


def made_key(name: str, account: str) -> AccessKey | None:
    """Return a key that the emulated CreateAccessKey or AssumeRole has created, or None if the key is unknown."""
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    for role in list(sts_backends[account]["aws"].assumed_roles):
        if role.access_key_id == name:
            return AccessKey(name, role.secret_access_key, role.session_token)
    for user in list(iam_backends[account]["aws"].users.values()):
        for made in list(user.access_keys):
            if made.access_key_id == name and made.status == "Active":
                return AccessKey(name, made.secret_access_key)
    return None


def bucket_region(name: str, account: str) -> str | None:
    """Return the region of a bucket, or None if the bucket does not exist."""
    from moto.s3.models import s3_backends

    bucket = s3_backends[account]["aws"].buckets.get(name)
    return str(bucket.region_name) if bucket else None


def bucket_owner(name: str) -> str | None:
    """Return the account that owns a bucket, or None if the bucket does not exist."""
    from moto.s3.models import s3_backends

    owner = s3_backends.bucket_accounts.get(name)  # partition and account
    return str(owner[1]) if owner else None
