"""Advice for the failure reasons of SageMaker training jobs and for refused requests."""

from __future__ import annotations

import re
from typing import NamedTuple

from sqlquarry.aws.failures import described
from sqlquarry.errors import TrainingError


class _Failure(NamedTuple):
    fragments: tuple[str, ...]  # in lower case. One of them in FailureReason is enough
    advice: str


_AGAIN = "launch the same job again, and it resumes from the newest checkpoint"
# The first match counts.
_JOB_FAILURES = (
    _Failure(
        ("capacityerror", "insufficient capacity", "unable to provision"),
        "AWS has no free machines of this type. Launch the same job later, or with another instance_type or other "
        "subnets. With the same bucket and prefix, it finds its checkpoints.",
    ),
    _Failure(
        ("out of memory", "outofmemory"),
        "Lower TrainingConfig.max_length, keep gradient_checkpointing on, or use an instance with more GPU memory.",
    ),
    _Failure(
        ("no space left",),
        "Raise volume_size_in_gb. If the instance type has its own disks (ml.g5, ml.p4d), use a larger type instead.",
    ),
    _Failure(
        ("is gated",),
        "Accept the model's license on the hub, and give the ARN of the token's secret: secret_arns={'HF_TOKEN': …}.",
    ),
    _Failure(
        ("secretsmanager", "getsecretvalue"),
        "The role needs secretsmanager:GetSecretValue on all secrets in secret_arns (and kms:Decrypt on their key).",
    ),
    _Failure(
        ("no run could be begun in",),
        "Check the API key's secret in secret_arns, the server's address in environment, and that the job can reach "
        f"the server. Then {_AGAIN}.",
    ),
    _Failure(("pip install",), f"Find the package that could not be installed in the log. Then {_AGAIN}."),
    _Failure(
        ("accessdenied", "access denied", "forbidden", "not authorized"),
        "The role lacks permissions that the job needs: s3:ListBucket, s3:GetObject and s3:PutObject on the bucket, "
        "kms rights on its key, ecr and logs (the managed policy AmazonSageMakerFullAccess contains the last two).",
    ),
    _Failure(
        ("internalservererror", "internal error"),
        f"The service or the machine failed. To continue, {_AGAIN}.",
    ),
)


def training_error(error: Exception, doing: str, advice: str | None = None) -> TrainingError:
    """Return the error to raise for a failed request of a training job. The arguments are those of `described`."""
    return TrainingError(described(error, doing, advice, service="sagemaker"))


def quota_advice(error: Exception, *, instance_type: str, count: int, spot: bool, region: str) -> str:
    """Return the advice to request a quota, with AWS's name for it.

    Most accounts start with a quota of 0 for GPU instances.
    Source: "Amazon SageMaker endpoints and quotas", docs.aws.amazon.com/general/latest/gr/sagemaker.html.
    """
    named = re.search(r"service limit '([^']+)'", str(error))
    quota = named[1] if named else f"{instance_type} for {'spot ' if spot else ''}training job usage"
    return (
        f"Request a quota of at least {count} for '{quota}' of Amazon SageMaker in {region} (console: Service Quotas, "
        f"an answer takes hours to days), or choose an instance_type for which the account has a quota. "
        f"{'On-demand' if spot else 'Spot'} machines have their own quota (spot={not spot})."
    )


def job_advice(failure_reason: str) -> str:
    """Return advice for a failed job. If the reason is unknown, the advice is to launch the job again."""
    reason = failure_reason.lower()
    known = (one.advice for one in _JOB_FAILURES if any(fragment in reason for fragment in one.fragments))
    return next(known, f"Fix the cause. Then {_AGAIN}.")
