"""Refuse training jobs that SageMaker would refuse immediately, and jobs that this emulator cannot run.

Sources: CreateTrainingJob (API reference) and botocore's service model for rules and limits. Error messages are the
service's own, as reported by users, unless they mention this emulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from sqlquarry.emulator.requests.errors import invalid
from sqlquarry.emulator.requests.parameters import validate
from sqlquarry.emulator.sagemaker.container import PROGRAM

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateTrainingJobRequestTypeDef


def check_request(
    parameters: CreateTrainingJobRequestTypeDef,
    *,
    region: str,
    role_is_trusted: Callable[[str], bool],
    has_objects: Callable[[str], bool],
) -> None:
    """Check a request before a job is created.

    Args:
        parameters: parameters of CreateTrainingJob.
        region: region of the job.
        role_is_trusted: returns whether a role with this ARN exists and SageMaker may assume it.
        has_objects: returns whether any object has this prefix (an S3 URI).

    Raises:
        ApiError: ValidationException that names the first problem.
    """
    validate("CreateTrainingJob", parameters, service="sagemaker")
    for problem in (*_contradictions(parameters), *_not_emulated(parameters)):
        raise invalid(problem)
    role = parameters["RoleArn"]
    if not role_is_trusted(role):
        raise invalid(
            f"Could not assume role {role}. Please ensure that the role exists and allows principal "
            "'sagemaker.amazonaws.com' to assume the role.",
        )
    for channel in parameters.get("InputDataConfig", []):
        uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
        if not has_objects(uri):
            raise invalid(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({region}), that objects exist under that S3 prefix, and that the role "
                f'"{role}" has "s3:ListBucket" permissions on bucket "{urlparse(uri).netloc}".',
            )


def _contradictions(parameters: CreateTrainingJobRequestTypeDef) -> Iterator[str]:
    """Yield a message for each conflict between members, which the service refuses."""
    algorithm = parameters["AlgorithmSpecification"]
    if ("TrainingImage" in algorithm) == ("AlgorithmName" in algorithm):
        yield "You must specify exactly one of TrainingImage and AlgorithmName"
    limits = parameters.get("StoppingCondition", {})
    run_s, wait_s = limits.get("MaxRuntimeInSeconds"), limits.get("MaxWaitTimeInSeconds")
    if parameters.get("EnableManagedSpotTraining"):
        if wait_s is None or wait_s < (run_s or 0):
            yield (
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
        if "ResourceConfig" in parameters and parameters["ResourceConfig"].get("KeepAlivePeriodInSeconds"):
            yield "KeepAlivePeriodInSeconds is not supported with managed spot training"
    elif wait_s is not None:
        yield "MaxWaitTimeInSeconds is only supported with managed spot training"
    names = [channel["ChannelName"] for channel in parameters.get("InputDataConfig", [])]
    if len(names) != len(set(names)):
        yield f"ChannelName must be unique within InputDataConfig: {', '.join(names)}"


def _not_emulated(parameters: CreateTrainingJobRequestTypeDef) -> Iterator[str]:
    """Yield a message for each member that the service accepts but this emulator would treat differently."""
    algorithm = parameters["AlgorithmSpecification"]
    program = algorithm.get("ContainerEntrypoint", ["train"])[0]
    if not PROGRAM.fullmatch(program):
        yield f"this emulator has no images, so ContainerEntrypoint must begin with python3, not {program}"
    if not {"InstanceType", "InstanceCount"} <= parameters.get("ResourceConfig", {}).keys():
        yield (
            "this emulator requires ResourceConfig.InstanceType and InstanceCount, because it does not support "
            "instance groups and training plans"
        )
    if "StoppingCondition" not in parameters:
        yield "this emulator requires StoppingCondition"
    for channel in parameters.get("InputDataConfig", []):
        source = channel["DataSource"].get("S3DataSource")
        mode = channel.get("InputMode", algorithm["TrainingInputMode"])
        shown = (source.get("S3DataType") if source else None, mode, channel.get("CompressionType", "None"))
        if shown[0] != "S3Prefix" or shown[1] not in ("File", "FastFile") or shown[2] != "None":
            yield (
                "this emulator supports uncompressed channels of type S3Prefix in mode File or FastFile, but "
                f"{channel['ChannelName']} is {', '.join(map(str, shown))}"
            )
