"""What the request to the service must look like: names, URI, region, role, key and VPC, by their form alone.

Source: the service's API model (CreateModelImportJob), and for regions "Use Custom model import …",
docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.bedrock.preflight.findings import Finding, error, warning
from sqlquarry.files.locations import S3Location

REGIONS = ("eu-central-1", "us-east-1", "us-east-2", "us-west-2")
MAX_SUBNETS, MAX_SECURITY_GROUPS = 16, 5
_MODEL_NAME = re.compile(r"([0-9a-zA-Z][_-]?)+")
# The API's own [a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])* accepts the same, but takes exponential time to refuse "a------_".
_JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+\-.]*")
_S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?")
_BUCKET = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/.*)?", re.DOTALL)
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::[0-9]{12}:role/.+")
_KEY_ARN = re.compile(
    r"arn:aws(-[^:]+)?:kms:(?P<region>[a-zA-Z0-9-]*):[0-9]{12}:(key/[a-zA-Z0-9-]{36}|alias/[a-zA-Z0-9-_/]+)"
)
_KEY_NAME = re.compile(r"[a-zA-Z0-9-]{36}|alias/[a-zA-Z0-9-_/]+")
_NETWORK_ID = re.compile(r"[-0-9a-zA-Z]{1,32}")


@dataclass(frozen=True, slots=True)
class Request:
    """What an import is to be asked with; None is not checked.

    Args:
        name: the imported model's name.
        job_name: the import job's name.
        s3_uri: where the files lie, or will.
        region: where the model is served.
        role_arn: the role that the service assumes.
        kms_key_id: the key that the imported model is encrypted with.
        vpc_config: ``{"subnetIds": […], "securityGroupIds": […]}``.
    """

    name: str | None = None
    job_name: str | None = None
    s3_uri: str | None = None
    region: str | None = None
    role_arn: str | None = None
    kms_key_id: str | None = None
    vpc_config: Mapping[str, Sequence[str]] | None = None


def given_uri(uri: str | Path | None) -> str | None:
    """Return an S3 URI as text, which is left as it is; a path has lost a slash.

    Raises:
        ConfigError: the path is not on S3.
    """
    return f"{S3Location.parse(uri)}/" if isinstance(uri, Path) else uri


def names_a_bucket(uri: str) -> bool:
    """Whether an S3 URI can be listed at all, whatever the service makes of it."""
    return _BUCKET.fullmatch(uri) is not None


def check_request(request: Request) -> Iterator[Finding]:
    """Everything about the request that needs no network."""
    pattern = "CreateModelImportJob refuses what does not match its pattern"
    name, job_name, uri = request.name, request.job_name, request.s3_uri
    if name is not None and not (len(name) <= 63 and _MODEL_NAME.fullmatch(name)):
        fix = "Use at most 63 letters, digits and single - or _ between them (no dots, no --)"
        yield error("model-name", "name", f"{name!r} is not a valid name for an imported model", pattern, fix)
    if job_name is not None and not (len(job_name) <= 63 and _JOB_NAME.fullmatch(job_name)):
        fix = "Use at most 63 letters, digits, +, - and ., a letter or digit first"
        yield error("job-name", "job_name", f"{job_name!r} is not a valid name for an import job", pattern, fix)
    if uri is not None and not (len(uri) <= 1024 and _S3_URI.fullmatch(uri)):
        fix = "Use s3://bucket/prefix/ with letters, digits and - ! _ * ' ( ) . only (no spaces, =, + or @)"
        yield error("s3-uri", "s3_uri", f"{uri!r} is not what the service takes", pattern, fix)
    elif uri is not None and uri.endswith((".gz", ".tgz", ".tar", ".zip", ".safetensors")):
        why = "An import job looks for config.json right below the URI"
        yield error("s3-uri", "s3_uri", f"{uri!r} is a file, not a prefix", why, "Give the prefix of unpacked files")
    if request.region is not None and request.region not in REGIONS:
        message = f"Custom Model Import is not known to be in {request.region}"
        fix = f"Use one of {', '.join(REGIONS)}, unless the service has come to this region since"
        yield warning("region", "region", message, "A job can be created only where the service is", fix)
    if request.role_arn is not None and not _ROLE.fullmatch(request.role_arn):
        fix = "Give arn:aws:iam::<account>:role/<name>"
        yield error("role-arn", "role_arn", f"{request.role_arn!r} is not the ARN of a role", pattern, fix)
    yield from _key(request.kms_key_id, request.region, pattern)
    if request.vpc_config is not None:
        yield from _network(request.vpc_config, pattern)


def _key(key: str | None, region: str | None, pattern: str) -> Iterator[Finding]:
    if key is None or _KEY_NAME.fullmatch(key):
        return
    arn = _KEY_ARN.fullmatch(key)
    if arn is None:
        fix = "Give the ARN, the id or the alias/… of a symmetric key"
        yield error("kms-key", "kms_key_id", f"{key!r} is not a KMS key", pattern, fix)
    elif region is not None and arn["region"] != region:
        message = f"the key is in {arn['region']}, the model in {region}"
        why = "The service encrypts with keys of its own region only"
        yield error("kms-key", "kms_key_id", message, why, f"Give a key in {region}")


def _network(config: Mapping[str, Sequence[str]], pattern: str) -> Iterator[Finding]:
    for key, most in (("subnetIds", MAX_SUBNETS), ("securityGroupIds", MAX_SECURITY_GROUPS)):
        ids = config.get(key) or ()
        bad = [value for value in ids if not _NETWORK_ID.fullmatch(value)]
        if isinstance(ids, str) or not 1 <= len(ids) <= most or bad:
            fix = f"Give a list of 1 to {most} ids"
            yield error("vpc", f"vpc_config[{key!r}]", f"it is {config.get(key)!r}", pattern, fix)
    if unknown := config.keys() - {"subnetIds", "securityGroupIds"}:
        fix = "Leave them out; the keys are subnetIds and securityGroupIds"
        yield error("vpc", "vpc_config", f"it has the keys {sorted(unknown)}", pattern, fix)
