"""What an import reads below a prefix that was not uploaded by this library."""

from __future__ import annotations

from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.errors import BedrockError
from sqlquarry.manifests import MANIFEST, Manifest


def prefix_manifest(prefix: S3Prefix) -> Manifest:
    """Describe the files directly below a prefix, each by the SHA-256 in its metadata, or else by its ETag.

    A prefix that `upload` wrote has the digest of its own manifest.

    Raises:
        BedrockError: there are no files, or S3 refused.
    """
    uri = prefix.location.uri_of("")
    files: dict[str, dict[str, str | int]] = {}
    with aws_errors(BedrockError, f"reading {uri}", service="bedrock"):
        for name, item in prefix.objects().items():
            if name != MANIFEST:
                sha256 = prefix.recorded_sha256(name) or f"etag:{item.etag}"
                files[name] = {"sha256": sha256, "bytes": item.size}
    if not files:
        raise BedrockError(f"nothing lies directly below {uri}. Check the prefix; an import reads no deeper level.")
    return Manifest("s3-prefix", files, {})
