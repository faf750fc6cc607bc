"""Sessions and clients of boto3: the caller's session and endpoint, and few retries by botocore itself."""

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
_accounts: WeakKeyDictionary[boto3.Session, str] = WeakKeyDictionary()  # session -> the account of its credentials


def aws_session(region_name: str | None = None) -> boto3.Session:
    """Return a boto3 session with the default credentials.

    Args:
        region_name: its region; the configured one if not given.

    Raises:
        MissingExtraError: boto3 is not installed.
    """
    require("aws", "Amazon Web Services")
    import boto3

    return boto3.session.Session(region_name=region_name) if region_name else boto3.session.Session()


class ClientOptions(TypedDict, total=False):
    """How a client reaches its service; what is left out is botocore's default.

    Args:
        region: another region than the session's.
        attempts: how often a request is sent at most; 2 by default.
        connect_timeout_s: how long to wait for a connection.
        read_timeout_s: how long to wait for an answer.
        max_pool_connections: connections that are kept open.
        sign_payloads: sign the content of uploads to S3; over TLS the service does not need it.
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
    """Return a boto3 client; a client of S3 names the expected owner of the bucket in every request (`OwnerRule`).

    botocore sends a request again at most `attempts` - 1 times. Callers of this function make longer waits, because
    botocore gives up after seconds.

    Args:
        service: the service's name in boto3.
        session: a boto3 session; None uses the default credentials.
        options: how the client reaches the service.

    Raises:
        MissingExtraError: boto3 is not installed.
        ConfigError: no region is known, or `session` is not a session.
    """
    if session is not None and not callable(getattr(session, "client", None)):
        raise ConfigError(
            f"session is {session!r:.80}, but must be a boto3 session, such as boto3.Session(profile_name=…)"
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
            "no AWS region is known: pass session=boto3.Session(region_name='us-east-1'), or set AWS_DEFAULT_REGION"
        ) from error
    if service == "s3":
        OwnerRule(owners, lambda: _account(session, region)).apply_to(client)
    return client


def _config(options: ClientOptions) -> Config:
    """Return botocore's settings, only with what is given: anything else would replace the session's own defaults."""
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
    """Return the `Config` of every `upload_file` and `download_file`.

    Where the AWS CRT is installed, boto3 may transfer files with a client of its own, which `OwnerRule` cannot reach.

    Args:
        part_bytes: size of the parts of a file that is not smaller than this; boto3's own default is 8 MiB.
    """
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=part_bytes, multipart_chunksize=part_bytes, preferred_transfer_client="classic"
    )


def session_environment(session: boto3.Session | None) -> dict[str, str]:
    """Return environment variables with which a child process has a session's credentials, region and endpoint.

    The owners that `expect_bucket_owners` states for the session are passed on, too.

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
    variables |= {"AWS_ACCESS_KEY_ID": frozen.access_key or "", "AWS_SECRET_ACCESS_KEY": frozen.secret_key or ""}
    variables["AWS_SESSION_TOKEN"] = frozen.token or ""  # empty, so that no token of another key is inherited
    if region := session.region_name:
        variables |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    for service in ("s3", "sts"):
        endpoint = session.client(service, region_name=region or "us-east-1").meta.endpoint_url
        if not _AWS_HOST.fullmatch(urlsplit(endpoint).hostname or ""):
            variables[f"AWS_ENDPOINT_URL_{service.upper()}"] = endpoint
    return variables


def _account(session: boto3.Session, region: str | None) -> str:
    """Return the account of a session's credentials, asking once; GetCallerIdentity needs no permission."""
    if session not in _accounts:
        sts = aws_client("sts", session, region=region or session.region_name or "us-east-1")
        _accounts[session] = str(sts.get_caller_identity()["Account"])
    return _accounts[session]
