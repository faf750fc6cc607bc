"""Sessions and clients of boto3: the caller's session and endpoint, and few retries by botocore itself."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from sqlquarry.aws.owners import BUCKET_OWNERS, OwnerRule, stated_owners
from sqlquarry.errors import ConfigError
from sqlquarry.extras import require

_AWS_HOST = re.compile(r"(.*\.)?amazonaws\.com(\.cn)?")
_accounts: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # session -> the account of its credentials


def aws_session(region: str | None = None) -> Any:
    """Return a boto3 session with the default credentials.

    Raises:
        MissingExtraError: boto3 is not installed.
    """
    require("aws", "Amazon Web Services")
    import boto3

    return boto3.session.Session(region_name=region) if region else boto3.session.Session()


def aws_client(
    service: str,
    session: Any = None,
    endpoint_url: str | None = None,
    region: str | None = None,
    *,
    attempts: int = 2,
    **options: Any,
) -> Any:
    """Return a boto3 client; a client of S3 names the expected owner of the bucket in every request (`OwnerRule`).

    botocore sends a request again at most `attempts` - 1 times. Callers of this function make longer waits, because
    botocore gives up after seconds.

    Args:
        service: the service's name in boto3.
        session: a boto3 session; None uses the default credentials.
        endpoint_url: another address.
        region: None uses the session's.
        attempts: how often a request is sent at most.
        options: of `botocore.config.Config`.

    Raises:
        MissingExtraError: boto3 is not installed.
        ConfigError: no region is known, or the session is a text.
    """
    if isinstance(session, str):
        raise ConfigError(
            f"session is {session!r:.60}, but must be a boto3 session. Of a profile: boto3.Session(profile_name=...)."
        )
    owners = stated_owners(session)
    session = session or aws_session()
    from botocore.config import Config
    from botocore.exceptions import NoRegionError

    config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, **options)
    try:
        client = session.client(service, region_name=region, endpoint_url=endpoint_url, config=config)
    except NoRegionError as error:
        raise ConfigError(
            "no AWS region is known: pass region='us-east-1', a session with a region, or set AWS_DEFAULT_REGION"
        ) from error
    if service == "s3":
        OwnerRule(owners, lambda: _account(session, endpoint_url, region)).apply_to(client)
    return client


def transfer_config(part_bytes: int = 8 * 2**20) -> Any:
    """Return the `Config` of every `upload_file` and `download_file`.

    Where the AWS CRT is installed, boto3 may transfer files with a client of its own, which `OwnerRule` cannot reach.

    Args:
        part_bytes: size of the parts of a file that is not smaller than this; boto3's own default is 8 MiB.
    """
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=part_bytes, multipart_chunksize=part_bytes, preferred_transfer_client="classic"
    )


def session_environment(session: Any) -> dict[str, str]:
    """Return environment variables with which a child process has a session's credentials, region and endpoint.

    What `expect_bucket_owners` was told for the session is passed on as well.

    They hold the secret key, so they belong in the environment of that process alone. Temporary credentials are
    passed as they are now, and that process cannot renew them.

    Args:
        session: a boto3 session; None, the default credentials, which a child process finds by itself.

    Raises:
        ConfigError: the session has no credentials.
    """
    owners = stated_owners(session)
    variables = {BUCKET_OWNERS: json.dumps(owners)} if owners else {}
    if session is None:
        return variables
    credentials = session.get_credentials()
    if credentials is None:
        raise ConfigError("the session has no credentials to pass on. Log in, or give a session that has them.")
    frozen = credentials.get_frozen_credentials()
    variables |= {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
    variables["AWS_SESSION_TOKEN"] = frozen.token or ""  # empty, so that no token of another key is inherited
    if region := session.region_name:
        variables |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    for service in ("s3", "sts"):
        endpoint = session.client(service, region_name=region or "us-east-1").meta.endpoint_url
        if not _AWS_HOST.fullmatch(urlsplit(endpoint).hostname or ""):
            variables[f"AWS_ENDPOINT_URL_{service.upper()}"] = endpoint
    return variables


def _account(session: Any, endpoint_url: str | None, region: str | None) -> str:
    """Return the account of a session's credentials, asking once; GetCallerIdentity needs no permission."""
    if session not in _accounts:
        # An address of S3 alone, such as a VPC endpoint's, does not answer for STS.
        if _AWS_HOST.fullmatch(urlsplit(endpoint_url or "").hostname or ""):
            endpoint_url = None
        sts = aws_client("sts", session, endpoint_url, region or session.region_name or "us-east-1")
        _accounts[session] = str(sts.get_caller_identity()["Account"])
    return _accounts[session]
