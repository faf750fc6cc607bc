"""Check the format of a request to the service: names, URI, region, role, key and VPC.

Source: the service's API model (CreateModelImportJob), and for regions "Use Custom model import …",
docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sqlquarry.bedrock.import_request import KMS_KEY, MAX_NETWORK_IDS, ImportRequest, are_network_ids
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error, warning

REGIONS = ("eu-central-1", "us-east-1", "us-east-2", "us-west-2")
_MODEL_NAME = re.compile(r"([0-9a-zA-Z][_-]?)+")
# The API's own [a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])* accepts the same names, but needs exponential time to refuse
# "a------_".
_JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+\-.]*")
_S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?")
_BUCKET = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/.*)?", re.DOTALL)
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::[0-9]{12}:role/.+")
_PATTERN = "CreateModelImportJob refuses values that do not match its pattern"


def names_a_bucket(uri: str) -> bool:
    """Return whether an S3 URI can be listed, even if the service would refuse it."""
    return _BUCKET.fullmatch(uri) is not None


def check_request(request: ImportRequest) -> Iterator[PreflightFinding]:
    """Check everything about the request that needs no network."""
    yield from _names(request)
    yield from _place(request.s3_uri)
    if request.region is not None and request.region not in REGIONS:
        message = f"Custom Model Import is not known to be in {request.region}"
        fix = f"Use one of {', '.join(REGIONS)}, unless the service is available in this region by now"
        yield warning("region", "region", message, "A job can only be created in a region with the service", fix)
    if request.role_arn is not None and not _ROLE.fullmatch(request.role_arn):
        fix = "Use arn:aws:iam::<account>:role/<name>"
        yield error("role-arn", "role_arn", f"{request.role_arn!r} is not the ARN of a role", _PATTERN, fix)
    yield from _key(request.kms_key_id, request.region)
    if request.vpc_config is not None:
        yield from _network(request.vpc_config)


def _names(request: ImportRequest) -> Iterator[PreflightFinding]:
    name, job_name = request.name, request.job_name
    if name is not None and not (len(name) <= 63 and _MODEL_NAME.fullmatch(name)):
        fix = "Use at most 63 letters, digits and single - or _ between them (no dots, no --)"
        yield error("model-name", "name", f"{name!r} is not a valid name for an imported model", _PATTERN, fix)
    if job_name is not None and not (len(job_name) <= 63 and _JOB_NAME.fullmatch(job_name)):
        fix = "Use at most 63 letters, digits, +, - and ., beginning with a letter or digit"
        yield error("job-name", "job_name", f"{job_name!r} is not a valid name for an import job", _PATTERN, fix)


def _place(uri: str | None) -> Iterator[PreflightFinding]:
    if uri is None:
        return
    if not (len(uri) <= 1024 and _S3_URI.fullmatch(uri)):
        fix = "Use s3://bucket/prefix/ with letters, digits and - ! _ * ' ( ) . only (no spaces, =, + or @)"
        yield error("s3-uri", "s3_uri", f"the service does not accept {uri!r}", _PATTERN, fix)
    elif uri.endswith((".gz", ".tgz", ".tar", ".zip", ".safetensors")):
        why = "An import job looks for config.json directly below the URI"
        yield error("s3-uri", "s3_uri", f"{uri!r} is a file, not a prefix", why, "Use a prefix with unpacked files")


def _key(key: str | None, region: str | None) -> Iterator[PreflightFinding]:
    if key is None:
        return
    if not KMS_KEY.fullmatch(key):
        fix = "Use the ARN, the id or the alias/… of a symmetric key"
        yield error("kms-key", "kms_key_id", f"{key!r} is not a KMS key", _PATTERN, fix)
    elif region is not None and key.startswith("arn:") and (other := key.split(":")[3]) != region:
        message = f"the key is in {other}, but the model is in {region}"
        why = "The service encrypts only with keys in its own region"
        yield error("kms-key", "kms_key_id", message, why, f"Use a key in {region}")


def _network(config: Mapping[str, object]) -> Iterator[PreflightFinding]:
    for key, most in MAX_NETWORK_IDS.items():
        if not are_network_ids(config.get(key), most):
            fix = f"Use a list of 1 to {most} ids"
            yield error("vpc", f"vpc_config[{key!r}]", f"it is {config.get(key)!r}", _PATTERN, fix)
    if unknown := config.keys() - MAX_NETWORK_IDS.keys():
        fix = "Leave them out. Only subnetIds and securityGroupIds are allowed"
        yield error("vpc", "vpc_config", f"unknown keys {sorted(unknown)}", _PATTERN, fix)
