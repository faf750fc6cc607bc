"""What AWS's errors and the reasons of failed training jobs mean, and what to do."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sqlquarry.credentials import redacted
from sqlquarry.errors import TrainingError

_RENEW = "Renew the credentials (aws sso login, or a new session). A running job continues: launcher.attach(name)."
_LOG_IN = "Log in to AWS (aws configure, aws sso login), or pass a session that has credentials."
_NETWORK = "Check the network, the region and endpoint_url. A running job continues: launcher.attach(name)."
_BUCKET_RIGHTS = (
    "The caller needs s3:ListBucket, s3:GetObject and s3:PutObject there, and kms:GenerateDataKey with a key."
)


class _Known(NamedTuple):
    code: str
    fragment: str  # lower case; "" fits any message
    advice: str


_ERRORS = (
    _Known(
        "ValidationException",
        "assume",
        "SageMaker cannot take the role: its trust policy must allow sts:AssumeRole to sagemaker.amazonaws.com; a role "
        "that was just made takes a minute to be known.",
    ),
    _Known("ValidationException", "not found", "Check the job's name, the region and the account."),
    _Known(
        "ValidationException",
        "image",
        "Check the image's URI and that it is in the job's region; the role needs ecr:BatchGetImage and "
        "ecr:GetDownloadUrlForLayer on it, and ecr:GetAuthorizationToken.",
    ),
    _Known(
        "ValidationException",
        "s3",
        "The role needs s3:ListBucket, s3:GetObject and s3:PutObject on the bucket (and kms rights on its key), and "
        "the bucket must lie in the job's region.",
    ),
    _Known(
        "AccessDeniedException",
        "passrole",
        "The caller needs iam:PassRole on the role, with iam:PassedToService = sagemaker.amazonaws.com.",
    ),
    _Known(
        "AccessDeniedException",
        "",
        "The caller needs sagemaker:CreateTrainingJob, DescribeTrainingJob and StopTrainingJob, iam:PassRole on the "
        "role, and logs:DescribeLogStreams and logs:GetLogEvents on /aws/sagemaker/TrainingJobs.",
    ),
    _Known("ResourceInUse", "", "Another job has this name; give another `name`."),
    _Known("NoSuchBucket", "", "Create the bucket in the job's region, or give another `bucket`."),
    _Known("404", "", "Create the bucket in the job's region, or give another `bucket`."),
    _Known("AccessDenied", "", _BUCKET_RIGHTS),
    _Known("403", "", _BUCKET_RIGHTS),
    _Known("ThrottlingException", "", "Too many requests; try again in a minute."),
    *(_Known(code, "", _RENEW) for code in ("ExpiredTokenException", "ExpiredToken", "RequestExpired")),
    *(
        _Known(code, "", "The credentials are not valid (any more). Log in again, and check this machine's clock.")
        for code in ("UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "AuthFailure")
    ),
    *(_Known(code, "", _LOG_IN) for code in ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError")),
    *(
        _Known(code, "", _NETWORK)
        for code in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError")
    ),
)


class _Failure(NamedTuple):
    fragments: tuple[str, ...]  # of FailureReason, in lower case; any of them
    advice: str


_AGAIN = "launch the same again: it resumes from the newest checkpoint"
# The first that fits counts.
_JOB_FAILURES = (
    _Failure(
        ("capacityerror", "insufficient capacity", "unable to provision"),
        "AWS has no such machines free. Launch the same again later, or on another instance_type or in other subnets; "
        "checkpoints are found again in the same bucket and prefix.",
    ),
    _Failure(
        ("out of memory", "outofmemory"),
        "Lower TrainingConfig.max_sequence_tokens, keep gradient_checkpointing on, or take an instance with more GPU "
        "memory.",
    ),
    _Failure(
        ("no space left",),
        "Raise volume_gb; of instance types with disks of their own (ml.g5, ml.p4d), take a larger one.",
    ),
    _Failure(
        ("is gated",),
        "Accept the model's licence on the hub, and give the token's secret: secret_arns={'HF_TOKEN': …}.",
    ),
    _Failure(
        ("secretsmanager", "getsecretvalue"),
        "The role needs secretsmanager:GetSecretValue on each of secret_arns (and kms:Decrypt on their key).",
    ),
    _Failure(
        ("no run could be begun in",),
        "Check the key's secret in secret_arns, the server's address in environment, and that the job can reach it; "
        f"then {_AGAIN}.",
    ),
    _Failure(("pip install",), f"Look into the log for the package that could not be installed; then {_AGAIN}."),
    _Failure(
        ("accessdenied", "access denied", "forbidden", "not authorized"),
        "The role may not do what the job needs: s3:ListBucket, s3:GetObject and s3:PutObject on the bucket, kms "
        "rights on its key, ecr and logs (the managed policy AmazonSageMakerFullAccess holds the last two).",
    ),
    _Failure(("internalservererror", "internal error"), f"A fault of the service or the machine: {_AGAIN}."),
)


def error_code(error: Exception) -> str:
    """AWS's code of a botocore ClientError; the class's name of any other error."""
    response: dict[str, Any] | None = getattr(error, "response", None)
    return str(response["Error"]["Code"]) if response else type(error).__name__


def explained(error: Exception, doing: str, advice: str | None = None) -> TrainingError:
    """Return our error for one of botocore's: what was being done, AWS's answer, what to do next; no secrets.

    `advice` takes the place of the table's. What S3 and STS append to signature errors, the request as they saw it, is
    left out, also of `error`, which tracebacks show as the cause.
    """
    text, code = str(error).lower(), error_code(error)
    if advice is None:
        advice = next((known.advice for known in _ERRORS if known.code == code and known.fragment in text), "")
    said = redacted(re.sub(r"The (?:Canonical String|String-to-Sign)\b.*", "", str(error), flags=re.DOTALL).strip())
    error.args = (said,)
    return TrainingError(f"{doing} failed: {said.rstrip('.')}. {advice}".rstrip())


def quota_advice(error: Exception, *, instance_type: str, count: int, spot: bool, region: str) -> str:
    """Which quota to ask for, by the name that AWS gives it.

    Source: "Amazon SageMaker endpoints and quotas", docs.aws.amazon.com/general/latest/gr/sagemaker.html; most
    accounts start at 0 for GPU instances.
    """
    named = re.search(r"service limit '([^']+)'", str(error))
    quota = named[1] if named else f"{instance_type} for {'spot ' if spot else ''}training job usage"
    return (
        f"Ask for at least {count} of the quota '{quota}' of Amazon SageMaker in {region} (console: Service Quotas; an "
        f"answer takes hours to days), or choose an instance_type that the account has. "
        f"{'On-demand' if spot else 'Spot'} machines have a quota of their own (spot={not spot})."
    )


def job_advice(failure_reason: str) -> str:
    """What to do about a failed job; launching again where its reason is unknown."""
    reason = failure_reason.lower()
    known = (one.advice for one in _JOB_FAILURES if any(fragment in reason for fragment in one.fragments))
    return next(known, f"Once the cause is gone, {_AGAIN}.")
