"""A boto3 session that reaches nothing but the emulator."""

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
    """Make a session whose every client and resource goes to `endpoint_url`, and signs with `key`.

    It reads no profile, configuration file or token of the user's, uses no proxy, and refuses to make a client for
    another endpoint (`EmulatorError`).
    """
    core: Any = botocore.session.Session(
        # (key in the configuration file, environment variable, default, conversion)
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    core.register_component("data_loader", _service_models())
    options: dict[str, Any] = {  # botocore-stubs does not know all of them
        "proxies": {},  # None would mean the environment's
        "auth_scheme_preference": "sigv4",  # botocore would prefer a bearer token in the environment
        # Two hashes over all weights, which protect from a network that is not there.
        "request_checksum_calculation": "when_required",
        "s3": {"payload_signing_enabled": False},
    }
    core.set_default_client_config(Config(**options))
    create_client = core.create_client

    def create_loopback_client(*args: object, **keywords: object) -> object:
        if keywords.get("endpoint_url") not in (None, endpoint_url):
            raise EmulatorError(
                f"this session belongs to the emulator at {endpoint_url}, so it makes no client for "
                f"{keywords['endpoint_url']}. Use a boto3 session of your own."
            )
        return create_client(*args, **keywords | {"endpoint_url": endpoint_url})

    # Every client is made here: Session.client passes keywords to it, and Session.resource calls Session.client.
    core.create_client = create_loopback_client
    return boto3.Session(
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        aws_session_token=key.token,
        region_name=region,
        botocore_session=core,
    )


def environment(endpoint_url: str, region: str, key: AccessKey) -> dict[str, str]:
    """Return environment variables that lead any AWS SDK of another process to `endpoint_url` and nowhere else."""
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
    # Reading botocore's service models takes most of the time of making a session and its clients.
    return Loader()
