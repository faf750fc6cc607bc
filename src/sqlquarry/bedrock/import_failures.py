"""The reasons that Bedrock gives for failed import jobs, each with its cause and a fix.

AWS publishes no list of failure messages, so the fragments come from AWS's samples and pages and from public reports.
An unknown message is passed on unchanged.
"""

from __future__ import annotations

from typing import NamedTuple


class _JobFailure(NamedTuple):
    fragments: tuple[str, ...]  # in lower case. One of them in the message is enough
    cause: str
    fix: str


# The first match counts, so reasons that name a file come before reasons about a file's content.
_JOB_FAILURES = (
    _JobFailure(
        ("adapter",),
        "the prefix contains a LoRA adapter instead of full weights",
        "merge it (AdapterMerger), then import the merged model",
    ),
    _JobFailure(
        ("size mismatch", "quantiz", "quantis", "gguf", "awq", "bitsandbytes"),
        "the prefix contains quantized weights, or leftovers of another model",
        "upload 16-bit weights to an empty prefix",
    ),
    _JobFailure(
        ("index.json", "weight_map"),
        "several shards need a model.safetensors.index.json that lists every tensor",
        "run preflight to see what is missing, then upload to an empty prefix",
    ),
    _JobFailure(
        ("tokenizer", "extra_special_tokens", "has no attribute 'keys'"),
        "transformers 4.51.3 cannot read the tokenizer's files (transformers 5 writes a newer format)",
        "import the local directory instead of the prefix, because import_model rewrites these files",
    ),
    _JobFailure(
        ("architecture", "model_type", "model type"),
        "Custom Model Import does not serve this architecture",
        "start from a base model with a supported architecture (preflight lists them)",
    ),
    _JobFailure(
        ("kms", "decrypt"),
        "the role may not use the bucket's key",
        "grant the role kms:Decrypt and kms:DescribeKey in its own policy and in the key's policy "
        "(create_import_role(…, kms_key_arn=…))",
    ),
    _JobFailure(
        ("access", "denied", "not authorized", "permission", "getobject", "listbucket", "forbidden", "assume"),
        "the role may not read the prefix",
        "grant the role s3:GetObject and s3:ListBucket on the prefix (create_import_role does), with "
        "aws:ResourceAccount = the account that owns the bucket, and kms:Decrypt if the bucket is encrypted",
    ),
    _JobFailure(
        ("truncated", "not a safetensors file", "headertoo", "incomplete"),
        "a weight file is incomplete, or is not a safetensors file",
        "run import_model again, which compares every object with its SHA-256 and uploads those that differ",
    ),
    _JobFailure(
        ("config.json", "expected file", "model.tar.gz", "not found", "no such key"),
        "the URI is an archive, the wrong folder level, or a partial upload",
        "use an uncompressed prefix with the model's files directly below it (preflight checks this)",
    ),
)


def job_advice(failure_message: str) -> str:
    """Return the cause and fix of a failed import job, or "" if its reason is unknown."""
    message = failure_message.lower()
    for fragments, cause, fix in _JOB_FAILURES:
        if any(fragment in message for fragment in fragments):
            return f"Cause: {cause}. Fix: {fix}."
    return ""
