"""Which training jobs SageMaker refuses at once, and which this emulator does, because it could not run them.

Rules and limits: CreateTrainingJob (API reference), by botocore's service model where it holds them. Words: the
service's own, as users report them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlparse

from sqlquarry.emulator.requests.api import ApiError, Parameters, validate
from sqlquarry.emulator.training.container import PROGRAM


def refuse(
    parameters: Parameters,
    *,
    region: str,
    role_is_trusted: Callable[[str], bool],
    has_objects: Callable[[str], bool],
) -> None:
    """Check a request as a whole, without a job.

    Args:
        parameters: of CreateTrainingJob.
        region: where the job would run.
        role_is_trusted: whether a role of this ARN exists and SageMaker may assume it.
        has_objects: whether the keys of any objects begin with this URI.

    Raises:
        ApiError: ValidationException.
    """
    validate("CreateTrainingJob", parameters, service="sagemaker")
    for problem in (*_contradictions(parameters), *_not_emulated(parameters)):
        raise ApiError("ValidationException", problem)
    role = parameters["RoleArn"]
    if not role_is_trusted(role):
        raise ApiError(
            "ValidationException",
            f"Could not assume role {role}. Please ensure that the role exists and allows principal "
            "'sagemaker.amazonaws.com' to assume the role.",
        )
    for channel in parameters.get("InputDataConfig", []):
        uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
        if not has_objects(uri):
            raise ApiError(
                "ValidationException",
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({region}), that objects exist under that S3 prefix, and that the role "
                f'"{role}" has "s3:ListBucket" permissions on bucket "{urlparse(uri).netloc}".',
            )


def _contradictions(parameters: Parameters) -> Iterator[str]:
    """What the service refuses: members that exclude or need each other."""
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
        if parameters.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds"):
            yield "KeepAlivePeriodInSeconds is not supported with managed spot training"
    elif wait_s is not None:
        yield "MaxWaitTimeInSeconds is only supported with managed spot training"
    names = [channel["ChannelName"] for channel in parameters.get("InputDataConfig", [])]
    if len(names) != len(set(names)):
        yield f"ChannelName must be unique within InputDataConfig: {', '.join(names)}"


def _not_emulated(parameters: Parameters) -> Iterator[str]:
    """What the service would take and this emulator would run otherwise, so no test passes for a wrong reason."""
    algorithm = parameters["AlgorithmSpecification"]
    program = algorithm.get("ContainerEntrypoint", ["train"])[0]
    if not PROGRAM.fullmatch(program):
        yield f"this emulator has no images: ContainerEntrypoint must begin with python3, not {program}"
    if not {"InstanceType", "InstanceCount"} <= parameters.get("ResourceConfig", {}).keys():
        yield "this emulator needs ResourceConfig.InstanceType and InstanceCount; it has no groups or plans"
    if "StoppingCondition" not in parameters:
        yield "this emulator needs StoppingCondition"
    for channel in parameters.get("InputDataConfig", []):
        source = channel["DataSource"].get("S3DataSource", {})
        mode = channel.get("InputMode", algorithm["TrainingInputMode"])
        shown = (source.get("S3DataType"), mode, channel.get("CompressionType", "None"))
        if shown[0] != "S3Prefix" or shown[1] not in ("File", "FastFile") or shown[2] != "None":
            yield (
                f"this emulator reads channels of type S3Prefix in mode File, uncompressed; {channel['ChannelName']} "
                f"is {', '.join(map(str, shown))}"
            )
