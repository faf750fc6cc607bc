"""The reasons that SageMaker gives for failed training jobs, and what to do about them and about refused requests."""

from __future__ import annotations

import re
from typing import NamedTuple

from sqlquarry.aws.failures import described
from sqlquarry.errors import TrainingError


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
        "Lower TrainingConfig.max_length, keep gradient_checkpointing on, or take an instance with more GPU memory.",
    ),
    _Failure(
        ("no space left",),
        "Raise volume_size_in_gb; of instance types with disks of their own (ml.g5, ml.p4d), take a larger one.",
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


def training_error(error: Exception, doing: str, advice: str | None = None) -> TrainingError:
    """Return the error to raise for a failed request of a training job; arguments as in `described`."""
    return TrainingError(described(error, doing, advice, service="sagemaker"))


def quota_advice(error: Exception, *, instance_type: str, count: int, spot: bool, region: str) -> str:
    """Say which quota to ask for, by the name that AWS gives it.

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
    """Say what to do about a failed job; to launch it again if its reason is unknown."""
    reason = failure_reason.lower()
    known = (one.advice for one in _JOB_FAILURES if any(fragment in reason for fragment in one.fragments))
    return next(known, f"Once the cause is gone, {_AGAIN}.")
