"""A boto3 session that can only reach the emulator."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader

from sqlquarry.emulator.requests.signature import AccessKey
from sqlquarry.errors import EmulatorError


def loopback_session(endpoint_url: str, region: str, key: AccessKey) -> boto3.Session:
    """Create a session whose clients and resources all use `endpoint_url` and sign with `key`.

    It ignores the user's profiles, configuration files, tokens and proxies, and refuses to create a client for another
    endpoint (`EmulatorError`).
    """
    core: Any = botocore.session.Session(
        # Each value: (key in the configuration file, environment variable, default, conversion).
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    core.register_component("data_loader", _service_models())
    options: dict[str, Any] = {  # botocore-stubs lacks some of these options
        "proxies": {},  # None would use the proxies of the environment
        "auth_scheme_preference": "sigv4",  # botocore would prefer a bearer token in the environment
        # The next two options skip hashes over all weights. The hashes detect network errors, but there is no network.
        "request_checksum_calculation": "when_required",
        "s3": {"payload_signing_enabled": False},
    }
    core.set_default_client_config(Config(**options))
    create_client = core.create_client

    def create_loopback_client(*args: object, **keywords: object) -> object:
        if keywords.get("endpoint_url") not in (None, endpoint_url):
            raise EmulatorError(
                f"cannot create a client for {keywords['endpoint_url']}: this session belongs to the emulator at "
                f"{endpoint_url}. Use your own boto3 session."
            )
        return create_client(*args, **keywords | {"endpoint_url": endpoint_url})

    # Every client is created here. Session.client calls this method, and Session.resource calls Session.client.
    core.create_client = create_loopback_client
    return boto3.Session(
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        aws_session_token=key.token,
        region_name=region,
        botocore_session=core,
    )


def environment(endpoint_url: str, region: str, key: AccessKey) -> dict[str, str]:
    """Return environment variables that make the AWS SDKs of another process use `endpoint_url` only."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": key.id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@cache
def _service_models() -> Loader:
    # Cached, because loading botocore's service models takes most of the time to create a session and its clients.
    return Loader()
