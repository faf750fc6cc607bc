"""The parameters of an import (names, S3 URI, role, tags, key and network) and the service's limits on them.

Source: the service's API model (CreateModelImportJob).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from sqlquarry.credentials import credentials_in
from sqlquarry.files.locations import S3Location

MAX_TAGS = 200
OWN_TAGS = 2  # the library adds these to the caller's tags
MAX_NETWORK_IDS = {"subnetIds": 16, "securityGroupIds": 5}
NETWORK_ID = re.compile(r"[-0-9a-zA-Z]{1,32}")
KMS_KEY = re.compile(
    r"(arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{12}:((key/[a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)))"
    r"|([a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+)"
)
_TAG_TEXT = re.compile(r"[a-zA-Z0-9\s._:/=+@-]*")


class VpcConfig(TypedDict):
    """The network through which an import job reads the bucket, with boto3's key names."""

    subnetIds: Sequence[str]
    securityGroupIds: Sequence[str]


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """The parameters of an import. A value of None is not checked.

    Args:
        name: the imported model's name.
        job_name: the import job's name.
        s3_uri: the prefix of the files.
        region: the region that serves the model.
        role_arn: the role that the service assumes.
        kms_key_id: the key that encrypts the imported model.
        vpc_config: the network through which the job reads the bucket.
    """

    name: str | None = None
    job_name: str | None = None
    s3_uri: str | None = None
    region: str | None = None
    role_arn: str | None = None
    kms_key_id: str | None = None
    vpc_config: VpcConfig | None = None


def given_uri(uri: str | Path | None) -> str | None:
    """Return an S3 URI as text. Text stays unchanged. A `Path` has lost a slash, which is restored.

    Raises:
        ConfigError: the path is not on S3.
    """
    return f"{S3Location.parse(uri)}/" if isinstance(uri, Path) else uri


def option_problems(
    tags: Mapping[str, str] | None, kms_key_id: str | None, vpc_config: VpcConfig | None
) -> Iterator[str]:
    """Yield a message for each of these options that the service would refuse."""
    yield from _tag_problems(tags or {})
    if kms_key_id is not None and not (len(kms_key_id) <= 2048 and KMS_KEY.fullmatch(kms_key_id)):
        yield f"kms_key_id is {kms_key_id!r}, but must be the id or ARN of a key, or alias/…"
    if vpc_config is not None:
        yield from _network_problems(vpc_config)


def _tag_problems(tags: Mapping[str, str]) -> Iterator[str]:
    exposed = dict(credentials_in(tags, "tags"))
    for place, kind in exposed.items():
        yield f"{place} contains {kind} (not shown), but tags are not secret, so leave it out"
    for key, value in () if exposed else tags.items():
        if not (1 <= len(key) <= 128 and len(value) <= 256 and _TAG_TEXT.fullmatch(key) and _TAG_TEXT.fullmatch(value)):
            yield f"tag {key!r}={value!r} must be 1-128 and 0-256 letters, digits, spaces or any of . _ : / = + @ -"
        if key.lower().startswith(("aws:", "sqlquarry:")):
            yield f"tag {key!r} begins with a reserved prefix (aws:, sqlquarry:)"
    if len(tags) > (most := MAX_TAGS - OWN_TAGS):
        yield f"{len(tags)} tags are given, but at most {most} fit, because the library adds two"


def _network_problems(vpc_config: Mapping[str, object]) -> Iterator[str]:
    if set(vpc_config) != set(MAX_NETWORK_IDS):
        yield f"vpc_config has the keys {sorted(vpc_config)}, but needs exactly {sorted(MAX_NETWORK_IDS)}"
    for key, most in MAX_NETWORK_IDS.items():
        ids = vpc_config.get(key, ["x"])
        if not are_network_ids(ids, most):
            yield f"vpc_config {key!r} is {ids!r}, but must be a list of 1 to {most} ids"


def are_network_ids(ids: object, most: int) -> bool:
    """Return whether `ids` is a collection of 1 to `most` ids of subnets or security groups."""
    if isinstance(ids, str) or not isinstance(ids, Collection):
        return False
    return 1 <= len(ids) <= most and all(isinstance(item, str) and NETWORK_ID.fullmatch(item) for item in ids)
