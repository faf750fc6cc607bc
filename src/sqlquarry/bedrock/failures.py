"""What AWS's errors mean and what to do: one table for error codes, one for the reasons of failed import jobs.

No catalogue of failure messages is published, so the fragments come from AWS's samples and pages and from public
reports; an unknown message is passed on as it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlquarry.errors import BedrockError

CONCURRENT_JOBS = "concurrent model import"  # a quota of one running job per account and region, not adjustable
INVALID_ROLE = "role arn is invalid"


class _Known(NamedTuple):
    code: str
    fragment: str  # lower case, "" fits any message
    advice: str


_ERRORS = (
    _Known(
        "ValidationException",
        INVALID_ROLE,
        "A role that was just made takes minutes to be known; then check that its trust policy names "
        "bedrock.amazonaws.com, and drop an aws:SourceArn condition in favour of aws:SourceAccount.",
    ),
    _Known(
        "ValidationException",
        "doesn't support the model",
        "Imported models answer InvokeModel, not Converse.",
    ),
    _Known(
        "ServiceQuotaExceededException",
        CONCURRENT_JOBS,
        "One import job runs at a time; wait for the other one.",
    ),
    _Known(
        "ServiceQuotaExceededException",
        "",
        "An account holds 3 imported models unless quota L-45B04988 is raised; delete one that is not needed.",
    ),
    _Known("ConflictException", "", "Names are unique per account and region; choose another job_name or name."),
    _Known(
        "AccessDeniedException",
        "",
        "The caller needs bedrock:CreateModelImportJob, Get…, List…, InvokeModel on imported-model/*, and iam:PassRole "
        "on the role with iam:PassedToService = bedrock.amazonaws.com.",
    ),
    _Known("AccessDenied", "", "The caller needs s3:ListBucket, GetObject, PutObject and DeleteObject there."),
    _Known("403", "", "The caller needs s3:ListBucket, GetObject, PutObject and DeleteObject there."),
    _Known("NoSuchBucket", "", "Create the bucket in the region of the import, or give another s3_uri."),
    _Known("ResourceNotFoundException", "", "Check the ARN, the region and the account."),
    _Known("ThrottlingException", "", "Lower `concurrency`, or ask for a higher request rate in Service Quotas."),
    *(_Known(code, "", "Renew the credentials.") for code in ("ExpiredTokenException", "ExpiredToken")),
    _Known("NoCredentialsError", "", "Log in to AWS (aws configure, aws sso login), or pass a session that has them."),
    *(
        _Known(code, "", "Check the network, the region and endpoint_url, then run it again.")
        for code in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError")
    ),
)

_JOB_FAILURES = (
    ("config.json", "The URI must be an uncompressed prefix with the model's files directly below it."),
    ("architecture", "Start from a base model of a supported architecture."),
    ("index.json", "Several shards need model.safetensors.index.json; merge again and upload to an empty prefix."),
    ("size mismatch", "The prefix holds quantised or mixed weights; upload 16-bit weights to an empty prefix."),
    ("tokenizer", "The tokenizer's files are not what transformers 4.51.3 reads; import with this library's export."),
    ("kms", "The role needs kms:Decrypt and kms:DescribeKey on the bucket's key."),
    ("access", "The role needs s3:GetObject and s3:ListBucket on the bucket (and kms:Decrypt where it is encrypted)."),
)


def error_code(error: Exception) -> str:
    """AWS's code of a botocore ClientError; the class's name of any other error."""
    # botocore's errors of the connection have a `response` too, which is None.
    response: dict[str, Any] | None = getattr(error, "response", None)
    return str(response["Error"]["Code"]) if response else type(error).__name__


def says(error: Exception, code: str, fragment: str) -> bool:
    """Whether an error has this code and its message holds this text, in any case."""
    return error_code(error) == code and fragment in str(error).lower()


def explained(error: Exception, doing: str) -> BedrockError:
    """An error of ours for one of botocore's: what was being done, what AWS said, what to do next."""
    advice = next((known.advice for known in _ERRORS if says(error, known.code, known.fragment)), "")
    return BedrockError(f"{doing} failed: {error}. {advice}".rstrip())


def job_advice(failure_message: str) -> str:
    """What to do about a failed import job, "" where its reason is unknown."""
    message = failure_message.lower()
    return next((advice for fragment, advice in _JOB_FAILURES if fragment in message), "")
