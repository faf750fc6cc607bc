"""What AWS's errors mean and what to do: one table for error codes, one for the reasons of failed import jobs.

No catalogue of failure messages is published, so the fragments come from AWS's samples and pages and from public
reports; an unknown message is passed on as it is.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlquarry.aws.failures import COMMON_ERRORS, KnownError, described, error_code
from sqlquarry.errors import BedrockError

CONCURRENT_JOBS = "concurrent model import"  # a quota of one running job per account and region, not adjustable
INVALID_ROLE = "role arn is invalid"
# Gone on one of the next tries. S3's error responses: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT_CODES = (
    *("InternalError", "InternalServerException", "ServiceUnavailable", "ServiceUnavailableException", "SlowDown"),
    *("RequestTimeout", "ThrottlingException", "BadDigest", "500", "502", "503", "504"),
)


_ERRORS = (
    KnownError(
        "ValidationException",
        INVALID_ROLE,
        "A role that was just made takes minutes to be known; then check that its trust policy names "
        "bedrock.amazonaws.com, and drop an aws:SourceArn condition in favour of aws:SourceAccount "
        "(sqlquarry.bedrock.create_import_role makes such a role).",
    ),
    KnownError(
        "ValidationException",
        "doesn't support the model",
        "This model answers InvokeModel, not Converse: ask it so, or through ImportedModel, which does that by itself.",
    ),
    KnownError(
        "ValidationException",
        "model identifier is invalid",
        "Check the ARN, the region and that the model was not deleted meanwhile.",
    ),
    KnownError(
        "ValidationException",
        "name",
        "Names of jobs and models are unique per account and region; choose another job_name or name.",
    ),
    KnownError(
        "ServiceQuotaExceededException",
        CONCURRENT_JOBS,
        "One import job runs at a time; wait for the other one.",
    ),
    KnownError(
        "ServiceQuotaExceededException",
        "",
        "An account holds 3 imported models unless quota L-45B04988 is raised; delete one that is not needed.",
    ),
    KnownError("ConflictException", "", "Names are unique per account and region; choose another job_name or name."),
    KnownError("TooManyTagsException", "", "Give fewer tags."),
    KnownError(
        "AccessDeniedException",
        "",
        "The caller needs bedrock:CreateModelImportJob, Get…, List…, InvokeModel on imported-model/*, and iam:PassRole "
        "on the role with iam:PassedToService = bedrock.amazonaws.com; accounts of AWS events often lack them.",
    ),
    KnownError("NoSuchBucket", "", "Create the bucket in the region of the import, or give another s3_uri."),
    KnownError(
        "ResourceNotFoundException",
        "",
        "Check the ARN, the region and the account. If it was deleted, import_model makes it again from what is on S3.",
    ),
    KnownError("ThrottlingException", "", "Lower `concurrency`, or ask for a higher request rate in Service Quotas."),
    KnownError(
        "ModelErrorException",
        "",
        "The model could not answer this request: check the prompt's length, and with probe_parity that the weights "
        "are sound.",
    ),
    *(
        KnownError(code, "", "The service is in trouble. Ask again later; what is done already is kept.")
        for code in (
            *("InternalServerException", "ServiceUnavailableException", "ModelTimeoutException"),
            "ModelStreamErrorException",
        )
    ),
    *COMMON_ERRORS,
)


class _JobFailure(NamedTuple):
    fragments: tuple[str, ...]  # lower case; any of them in the message
    cause: str
    fix: str


# The first that fits counts, so what names a file stands before what the file is about.
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


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed on the next try: a broken connection, or a service in trouble."""
    from botocore.exceptions import ConnectionError as NoConnectionError
    from botocore.exceptions import HTTPClientError

    return isinstance(error, NoConnectionError | HTTPClientError) or error_code(error) in _TRANSIENT_CODES


def explained(error: Exception, doing: str, advice: str | None = None) -> BedrockError:
    """Return the error to raise for one of botocore's, as `sqlquarry.aws.failures.described` words it.

    `advice` takes the place of the table's.
    """
    return BedrockError(described(error, doing, advice, known=_ERRORS))


def job_advice(failure_message: str) -> str:
    """Cause and fix of a failed import job, "" where its reason is unknown."""
    message = failure_message.lower()
    for fragments, cause, fix in _JOB_FAILURES:
        if any(fragment in message for fragment in fragments):
            return f"Cause: {cause}. To do: {fix}."
    return ""
