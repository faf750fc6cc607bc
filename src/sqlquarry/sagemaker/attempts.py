"""Find and start the attempts of a job, which have the same content and names that differ only in a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import error_code
from sqlquarry.errors import TrainingError
from sqlquarry.sagemaker.failures import quota_advice, training_error
from sqlquarry.sagemaker.job import TrainingJob
from sqlquarry.sagemaker.settings import Compute

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import CreateTrainingJobRequestTypeDef

_MOST_ATTEMPTS = 99


def newest_attempt(name: str, job_named: Callable[[str], TrainingJob]) -> tuple[TrainingJob | None, str]:
    """Return the newest attempt (or None) and the name of the next one.

    Args:
        name: the name of the first attempt.
        job_named: returns the job with a name. The job need not exist.

    Raises:
        TrainingError: all names are taken, or a request to AWS failed.
    """
    newest = None
    for number in range(1, _MOST_ATTEMPTS + 1):
        job = job_named(_numbered(name, number))
        if not job.exists():
            return newest, job.name
        newest = job
    raise TrainingError(f"{_MOST_ATTEMPTS} jobs {name}-… failed or were stopped. Launch the job with another name.")


def last_name(name: str) -> str:
    """Return the name of the last possible attempt, which is the longest."""
    return _numbered(name, _MOST_ATTEMPTS)


def start(sagemaker: SageMakerClient, request: CreateTrainingJobRequestTypeDef, compute: Compute) -> None:
    """Create a job, unless another process has just created the same one.

    Args:
        sagemaker: a SageMaker client.
        request: the CreateTrainingJob request.
        compute: the request's machines, for the advice about quotas.

    Raises:
        TrainingError: AWS refused a request. The message says what to do.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        sagemaker.create_training_job(**request)
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ResourceInUse":  # another process was faster, with the same content
            return
        advice = None
        if error_code(error) == "ResourceLimitExceeded":
            advice = quota_advice(
                error,
                instance_type=compute.instance_type,
                count=compute.instance_count,
                spot=compute.spot,
                region=sagemaker.meta.region_name,
            )
        raise training_error(error, f"starting the training job {request['TrainingJobName']}", advice) from error


def _numbered(name: str, attempt: int) -> str:
    return name if attempt == 1 else f"{name}-{attempt}"
