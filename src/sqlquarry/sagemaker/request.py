"""Build the CreateTrainingJob request.

Source: "CreateTrainingJob", docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlquarry.sagemaker.bootstrap import PROCESSES
from sqlquarry.sagemaker.metrics import METRIC_DEFINITIONS
from sqlquarry.sagemaker.settings import Compute, Networking, StoppingCondition

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        AlgorithmSpecificationTypeDef,
        ChannelTypeDef,
        CreateTrainingJobRequestTypeDef,
        OutputDataConfigTypeDef,
        S3DataSourceTypeDef,
    )

_CHECKPOINTS = "/opt/ml/checkpoints"
_BOOTSTRAP = "/opt/ml/input/data/code/bootstrap.py"
# This runs the same bytes that it has compared with the digest in the request. An argument can have at most 256
# characters. -P keeps the working directory off the path, because somebody might put a json.py there.
_RUN_VERIFIED = (
    "import hashlib,sys;p,h=sys.argv[1:3];b=open(p,'rb').read();m=p+' was changed on S3';"
    "hashlib.sha256(b).hexdigest()==h or (open('/opt/ml/output/failure','w').write(m),sys.exit(m));"
    "del sys.argv[1:3];exec(compile(b,p,'exec'))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFiles:
    """The locations of a job's inputs, checkpoints and results on S3.

    Args:
        channels: name -> ``s3://`` prefix of every input.
        digests: name -> `Channel.digest` of the inputs that the launcher sends. The job verifies them.
        bootstrap_sha256: SHA-256 (hex) of the first program.
        checkpoints: ``s3://`` prefix that SageMaker copies the checkpoints to and from.
        results: ``s3://`` prefix below which SageMaker creates a folder for the job.
    """

    channels: Mapping[str, str]
    digests: Mapping[str, str]
    bootstrap_sha256: str
    checkpoints: str
    results: str


def training_request(
    name: str,
    files: JobFiles,
    *,
    image: str,
    role_arn: str,
    compute: Compute,
    networking: Networking | None,
    stopping: StoppingCondition,
    kms_key_arn: str | None,
    environment: Mapping[str, str],
    tags: Mapping[str, str],
    has_hashes: bool,
    processes: int | None,
) -> CreateTrainingJobRequestTypeDef:
    """Return the request.

    Args:
        name: the job's name.
        files: the locations of its files.
        image: URI of the container.
        role_arn: the job's role.
        compute: the machines.
        networking: the VPC, if any.
        stopping: the time limits.
        kms_key_arn: the key for the volumes and the results.
        environment: variables of the job's process.
        tags: the job's tags.
        has_hashes: whether the job's requirements have hashes. If so, pip requires them.
        processes: number of processes on each machine. None starts one for each GPU.
    """
    request: CreateTrainingJobRequestTypeDef = {
        "TrainingJobName": name,
        "AlgorithmSpecification": _algorithm(image, files, has_hashes=has_hashes, processes=processes),
        "RoleArn": role_arn,
        "InputDataConfig": [_channel(channel, uri) for channel, uri in files.channels.items()],
        "OutputDataConfig": _output(files.results, kms_key_arn),
        "ResourceConfig": compute.resource_config(kms_key_arn),
        "StoppingCondition": stopping.limits(spot=compute.spot),
        "CheckpointConfig": {"S3Uri": files.checkpoints, "LocalPath": _CHECKPOINTS},
    }
    if compute.spot:
        request["EnableManagedSpotTraining"] = True
    if networking:
        request["VpcConfig"] = networking.vpc_config()
    if environment:
        request["Environment"] = environment
    if tags:
        request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    return request


def _algorithm(
    image: str, files: JobFiles, *, has_hashes: bool, processes: int | None
) -> AlgorithmSpecificationTypeDef:
    """Return the image and the command that verifies, installs and trains."""
    return {
        "TrainingImage": image,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "-P", "-c", _RUN_VERIFIED, _BOOTSTRAP, files.bootstrap_sha256],
        "ContainerArguments": [
            *(f"{name}={digest}" for name, digest in files.digests.items()),
            *([f"{PROCESSES}={processes}"] if processes else []),
            "install" if has_hashes else "install-without-hashes",
            "train",
        ],
        "MetricDefinitions": METRIC_DEFINITIONS,
    }


def _channel(name: str, uri: str) -> ChannelTypeDef:
    """Return an input channel. Every machine gets all files, because training itself distributes the rows."""
    source: S3DataSourceTypeDef = {
        "S3DataType": "S3Prefix",
        "S3DataDistributionType": "FullyReplicated",
        "S3Uri": uri,
    }
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _output(uri: str, kms_key_arn: str | None) -> OutputDataConfigTypeDef:
    """Return the output location. Results are uncompressed, because Bedrock reads single files, not an archive."""
    output: OutputDataConfigTypeDef = {"S3OutputPath": uri, "CompressionType": "NONE"}
    if kms_key_arn:
        output["KmsKeyId"] = kms_key_arn
    return output
