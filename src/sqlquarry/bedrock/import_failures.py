"""The reasons that Bedrock gives for failed import jobs, each with its cause and what to do.

No catalogue of failure messages is published, so the fragments come from AWS's samples and pages and from public
reports; an unknown message is passed on as it is.
"""

from __future__ import annotations

from typing import NamedTuple


class _JobFailure(NamedTuple):
    fragments: tuple[str, ...]  # lower case; any of them in the message
    cause: str
    fix: str


# The first that fits counts, so reasons that name a file come before those that say what is in it.
_JOB_FAILURES = (
    _JobFailure(
        ("adapter",),
        "the prefix holds a LoRA adapter instead of full weights",
        "merge it (AdapterMerger), then import the merged model",
    ),
    _JobFailure(
        ("size mismatch", "quantiz", "quantis", "gguf", "awq", "bitsandbytes"),
        "the prefix holds quantised weights, or leftovers of another model",
        "upload 16-bit weights to an empty prefix",
    ),
    _JobFailure(
        ("index.json", "weight_map"),
        "several shards need a model.safetensors.index.json that names every tensor",
        "run preflight, which says what is missing; upload to an empty prefix",
    ),
    _JobFailure(
        ("tokenizer", "extra_special_tokens", "has no attribute 'keys'"),
        "the tokenizer's files are not what transformers 4.51.3 reads (transformers 5 writes others)",
        "import the directory with this library, which rewrites them, instead of the prefix as it is",
    ),
    _JobFailure(
        ("architecture", "model_type", "model type"),
        "Custom Model Import does not serve this architecture",
        "start from a base model of a supported one; preflight lists them",
    ),
    _JobFailure(
        ("kms", "decrypt"),
        "the role may not use the bucket's key",
        "grant it kms:Decrypt and kms:DescribeKey, in its policy and in the key's "
        "(create_import_role(…, kms_key_arn=…))",
    ),
    _JobFailure(
        ("access", "denied", "not authorized", "permission", "getobject", "listbucket", "forbidden", "assume"),
        "the role may not read the prefix",
        "grant it s3:GetObject and s3:ListBucket there (create_import_role does), with aws:ResourceAccount = the "
        "account that owns the bucket, and kms:Decrypt where it is encrypted",
    ),
    _JobFailure(
        ("truncated", "not a safetensors file", "headertoo", "incomplete"),
        "a weight file did not arrive whole, or is none",
        "run import_model again: it compares every object with its SHA-256 and sends what differs",
    ),
    _JobFailure(
        ("config.json", "expected file", "model.tar.gz", "not found", "no such key"),
        "the URI is an archive, another level of the tree, or a partial upload",
        "point at an uncompressed prefix with the model's files directly below it; preflight checks it",
    ),
)


def job_advice(failure_message: str) -> str:
    """Return cause and fix of a failed import job; "" if its reason is unknown."""
    message = failure_message.lower()
    for fragments, cause, fix in _JOB_FAILURES:
        if any(fragment in message for fragment in fragments):
            return f"Cause: {cause}. To do: {fix}."
    return ""
