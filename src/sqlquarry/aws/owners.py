"""Name the expected bucket owner in every S3 request, so that S3 refuses requests to a bucket of another account.

Anybody may take the name of a deleted bucket. Without this check, weights and records would then be sent to that
account, and its objects would be trusted.

Source: "Verifying bucket ownership with bucket owner condition",
docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sqlquarry.errors import ConfigError, MetadataError
from sqlquarry.files.metadata import JsonObject, parse_object

if TYPE_CHECKING:
    import boto3
    from botocore.awsrequest import AWSResponse
    from botocore.client import BaseClient
    from botocore.model import OperationModel

ACCOUNT_ID = re.compile(r"[0-9]{12}")
_BUCKET = re.compile(r"[\w.:-]+(/[\w.:-]+)*")  # bucket name, or ARN of an access point
_CONTEXT = "sqlquarry.owners"
BUCKET_OWNERS = "SQLQUARRY_BUCKET_OWNERS"  # environment variable: bucket -> owner, as JSON
_by_session: WeakKeyDictionary[boto3.Session, dict[str, str | None]] = WeakKeyDictionary()
_by_default: dict[str, str | None] = {}


def expect_bucket_owners(owners: Mapping[str, str | None], *, session: boto3.Session | None = None) -> None:
    """Set the owners of buckets that do not belong to the session's own account.

    Every S3 request names the account that must own the bucket, and S3 refuses the request if another account owns it.
    The default is the account of the credentials. Set the owners of shared and public buckets before you use them::

        expect_bucket_owners({"shared-models": "210987654321", "public-data": None})

    Args:
        owners: bucket -> 12-digit ID of the account that owns it. None turns the check off for this bucket.
        session: boto3 session that the owners apply to. None applies them to requests with the default credentials.

    Raises:
        ConfigError: a key is not a bucket name, or an owner is not an account ID.
    """
    bad = [f"{bucket!r} is not a bucket name" for bucket in owners if not _BUCKET.fullmatch(bucket)]
    bad += [
        f"the owner of {bucket!r} must be a 12-digit account ID or None, but is {owner!r}"
        for bucket, owner in owners.items()
        if owner is not None and not (isinstance(owner, str) and ACCOUNT_ID.fullmatch(owner))
    ]
    if bad:
        raise ConfigError("expect_bucket_owners: " + "; ".join(bad))
    stated_owners(session).update(owners)


def stated_owners(session: boto3.Session | None) -> dict[str, str | None]:
    """Return the dictionary to which `expect_bucket_owners` adds the owners for a session.

    For the default credentials, it includes the owners that a parent process passes on (`session_environment`).

    Raises:
        ConfigError: the environment variable of the parent process cannot be parsed.
    """
    if session is not None:
        return _by_session.setdefault(session, {})
    if inherited := os.environ.pop(BUCKET_OWNERS, ""):
        try:
            expect_bucket_owners(parse_object(inherited.encode(), BUCKET_OWNERS))
        except MetadataError as error:
            raise ConfigError(f"cannot parse the environment variable {BUCKET_OWNERS}: {error}") from error
    return _by_default


class OwnerRule:
    """Adds the expected owner to the requests of S3 clients, and explains refusals.

    Args:
        owners: bucket -> account that owns it, or None if the owner is not to be checked.
        account: returns the owner of all other buckets.
    """

    def __init__(self, owners: Mapping[str, str | None], account: Callable[[], str]) -> None:
        self._owners, self._account = owners, account

    def apply_to(self, client: BaseClient) -> None:
        """Make a client apply this rule before each request and after each answer."""
        client.meta.events.register("before-parameter-build.s3", self._add_owners)
        client.meta.events.register("after-call.s3", self._explain_refusal)

    def _add_owners(self, params: JsonObject, model: OperationModel, context: JsonObject, **_: object) -> None:
        """Set ExpectedBucketOwner, and for a copy also ExpectedSourceBucketOwner, unless the caller has set them."""
        members = model.input_shape.members if model.input_shape else {}
        source = params.get("CopySource", "")
        source_bucket = source.get("Bucket") if isinstance(source, Mapping) else source.lstrip("/").partition("/")[0]
        buckets = {"ExpectedBucketOwner": params.get("Bucket"), "ExpectedSourceBucketOwner": source_bucket}
        for name, bucket in buckets.items():
            if name in members and bucket and name not in params and (owner := self._owner(bucket)):
                params[name] = owner
        context[_CONTEXT] = {bucket: params[name] for name, bucket in buckets.items() if bucket and name in params}

    def _owner(self, bucket: str) -> str | None:
        if bucket in self._owners:
            return self._owners[bucket]
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._account()
        except (BotoCoreError, ClientError) as error:
            message = (
                f"{error} (sts:GetCallerIdentity was called, because a request to bucket {bucket} names the account "
                "that must own the bucket. To avoid this call, set the owner with "
                "sqlquarry.aws.expect_bucket_owners.)"
            )
            error.args = (message,)
            raise

    def _explain_refusal(
        self, parsed: JsonObject, context: JsonObject, http_response: AWSResponse, **_: object
    ) -> None:
        """Add the expected owner to a 403, because S3 also answers "Access Denied" if a permission is missing."""
        owners, refusal = context.get(_CONTEXT), parsed.get("Error", {})
        if http_response.status_code != 403 or not owners or refusal.get("Code") not in ("AccessDenied", "403"):
            return
        whose = " or ".join(f"bucket {bucket} is not owned by account {owner}" for bucket, owner in owners.items())
        example = ", ".join(f"{bucket!r}: '<account>'" for bucket in owners)
        refusal["Message"] = (
            f"{str(refusal.get('Message', 'Access Denied')).rstrip('.')}. Either a permission is missing, or {whose}. "
            "If the bucket is meant to belong to another account, call "
            f"sqlquarry.aws.expect_bucket_owners({{{example}}}). Otherwise somebody else may have taken the bucket's "
            "name, so use another bucket"
        )
