"""boto3 sessions and clients that use the caller's credentials and endpoints, with few retries by botocore."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from sqlquarry.aws.owners import BUCKET_OWNERS, OwnerRule, stated_owners
from sqlquarry.errors import ConfigError
from sqlquarry.extras import require

if TYPE_CHECKING:
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.client import BaseClient
    from botocore.config import Config
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sts import STSClient

_AWS_HOST = re.compile(r"(.*\.)?amazonaws\.com(\.cn)?")
_accounts: WeakKeyDictionary[boto3.Session, str] = WeakKeyDictionary()  # session -> account of its credentials


def aws_session(region_name: str | None = None) -> boto3.Session:
    """Return a boto3 session with the default credentials.

    Args:
        region_name: region of the session. None uses the configured region.

    Raises:
        MissingExtraError: boto3 is not installed.
    """
    require("aws", "Amazon Web Services")
    import boto3

    return boto3.session.Session(region_name=region_name) if region_name else boto3.session.Session()


class ClientOptions(TypedDict, total=False):
    """Options of a client. botocore's defaults apply to all options that are not given, except `attempts`.

    Args:
        region: region to use instead of the session's.
        attempts: maximum number of times a request is sent. The default is 2.
        connect_timeout_s: seconds to wait for a connection.
        read_timeout_s: seconds to wait for an answer.
        max_pool_connections: maximum number of connections that are kept open.
        sign_payloads: sign the content of uploads to S3. S3 does not need that over TLS.
    """

    region: str | None
    attempts: int
    connect_timeout_s: float
    read_timeout_s: float
    max_pool_connections: int
    sign_payloads: bool


@overload
def aws_client(
    service: Literal["bedrock"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> BedrockClient: ...
@overload
def aws_client(
    service: Literal["bedrock-runtime"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> BedrockRuntimeClient: ...
@overload
def aws_client(
    service: Literal["ec2"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> EC2Client: ...
@overload
def aws_client(
    service: Literal["iam"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> IAMClient: ...
@overload
def aws_client(
    service: Literal["kms"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> KMSClient: ...
@overload
def aws_client(
    service: Literal["logs"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> CloudWatchLogsClient: ...
@overload
def aws_client(
    service: Literal["s3"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> S3Client: ...
@overload
def aws_client(
    service: Literal["sagemaker"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> SageMakerClient: ...
@overload
def aws_client(
    service: Literal["secretsmanager"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> SecretsManagerClient: ...
@overload
def aws_client(
    service: Literal["service-quotas"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> ServiceQuotasClient: ...
@overload
def aws_client(
    service: Literal["sts"], session: boto3.Session | None = None, **options: Unpack[ClientOptions]
) -> STSClient: ...
@overload
def aws_client(service: str, session: boto3.Session | None = None, **options: Unpack[ClientOptions]) -> Any: ...
def aws_client(service: str, session: boto3.Session | None = None, **options: Unpack[ClientOptions]) -> object:
    """Return a boto3 client. An S3 client names the expected owner of the bucket in every request (`OwnerRule`).

    botocore retries a request at most `attempts` - 1 times and gives up within seconds. Callers that must wait longer
    do so themselves.

    Args:
        service: name of the service in boto3.
        session: boto3 session. None uses the default credentials.
        options: see `ClientOptions`.

    Raises:
        MissingExtraError: boto3 is not installed.
        ConfigError: no region is configured, or `session` is not a session.
    """
    if session is not None and not callable(getattr(session, "client", None)):
        raise ConfigError(
            f"session must be a boto3 session such as boto3.Session(profile_name=…), but is {session!r:.80}"
        )
    owners = stated_owners(session)
    session = session or aws_session()
    from botocore.exceptions import NoRegionError

    region = options.get("region")
    try:
        client: BaseClient = session.client(  # type: ignore[call-overload] # boto3's overloads name each service
            service, region_name=region, config=_config(options)
        )
    except NoRegionError as error:
        raise ConfigError(
            "no AWS region is configured. Pass session=boto3.Session(region_name='us-east-1') or set AWS_DEFAULT_REGION"
        ) from error
    if service == "s3":
        OwnerRule(owners, lambda: _account(session, region)).apply_to(client)
    return client


def _config(options: ClientOptions) -> Config:
    """Return botocore's settings for the given options only, so that the session's own defaults stay in force."""
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "total_max_attempts": options.get("attempts", 2)})
    if "connect_timeout_s" in options:
        config = config.merge(Config(connect_timeout=options["connect_timeout_s"]))
    if "read_timeout_s" in options:
        config = config.merge(Config(read_timeout=options["read_timeout_s"]))
    if "max_pool_connections" in options:
        config = config.merge(Config(max_pool_connections=options["max_pool_connections"]))
    if not options.get("sign_payloads", True):
        config = config.merge(Config(s3={"payload_signing_enabled": False}))
    return config


def transfer_config(part_bytes: int = 8 * 2**20) -> TransferConfig:
    """Return the `Config` that every `upload_file` and `download_file` must use.

    It forces boto3's classic client. If the AWS CRT is installed, boto3 may otherwise transfer files with a separate
    client, which `OwnerRule` cannot reach.

    Args:
        part_bytes: part size. Files of at least this size are sent in parts. boto3's own default is 8 MiB.
    """
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=part_bytes, multipart_chunksize=part_bytes, preferred_transfer_client="classic"
    )


def session_environment(session: boto3.Session | None) -> dict[str, str]:
    """Return environment variables that give a child process a session's credentials, region and endpoints.

    They also pass on the owners that `expect_bucket_owners` sets for the session.

    The variables contain the secret key, so set them for that process only. The child process cannot renew temporary
    credentials.

    Args:
        session: boto3 session. None means the default credentials, which a child process finds by itself.

    Raises:
        ConfigError: the session has no credentials.
    """
    owners = stated_owners(session)
    variables = {BUCKET_OWNERS: json.dumps(owners)} if owners else {}
    if session is None:
        return variables
    credentials = session.get_credentials()
    if credentials is None:
        raise ConfigError("the session has no credentials to pass on. Log in, or pass a session that has credentials.")
    frozen = credentials.get_frozen_credentials()
    variables |= {"AWS_ACCESS_KEY_ID": frozen.access_key or "", "AWS_SECRET_ACCESS_KEY": frozen.secret_key or ""}
    variables["AWS_SESSION_TOKEN"] = frozen.token or ""  # empty, so that the process inherits no token of another key
    if region := session.region_name:
        variables |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    for service in ("s3", "sts"):
        endpoint = session.client(service, region_name=region or "us-east-1").meta.endpoint_url
        if not _AWS_HOST.fullmatch(urlsplit(endpoint).hostname or ""):
            variables[f"AWS_ENDPOINT_URL_{service.upper()}"] = endpoint
    return variables


def _account(session: boto3.Session, region: str | None) -> str:
    """Return the account of a session's credentials, and cache it. GetCallerIdentity needs no permission."""
    if session not in _accounts:
        sts = aws_client("sts", session, region=region or session.region_name or "us-east-1")
        _accounts[session] = str(sts.get_caller_identity()["Account"])
    return _accounts[session]
