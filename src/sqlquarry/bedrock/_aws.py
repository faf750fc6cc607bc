"""How this phase makes boto3 clients: the caller's session and endpoint, few retries of botocore's own."""

from __future__ import annotations

from typing import Any

from sqlquarry import extras
from sqlquarry.errors import ConfigError


def aws_client(
    service: str, session: Any, endpoint_url: str | None, region: str | None, *, attempts: int = 2, **options: Any
) -> Any:
    """A boto3 client; `session` None means the default credentials, `region` None the session's own.

    botocore retries only once; waits that take minutes are ours, because its own end after seconds.

    Raises:
        MissingExtraError: boto3 is not installed.
        ConfigError: no region is known.
    """
    extras.require("aws", "Amazon Bedrock")
    import boto3
    from botocore.config import Config
    from botocore.exceptions import NoRegionError

    config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, **options)
    try:
        session = session or boto3.session.Session()
        return session.client(service, region_name=region, endpoint_url=endpoint_url, config=config)
    except NoRegionError as error:
        raise ConfigError(
            "no AWS region is known: pass region='us-east-1', a session with a region, or set AWS_DEFAULT_REGION"
        ) from error
