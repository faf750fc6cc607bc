"""The CreateTrainingJob request: built in one place, and checked against botocore's own model of the service.

Source: "CreateTrainingJob", docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlquarry.credentials import credentials_in, find_credential
from sqlquarry.sagemaker.bootstrap import PROCESSES, SECRETS
from sqlquarry.sagemaker.metrics import METRIC_DEFINITIONS
from sqlquarry.sagemaker.packaging import WITHOUT_HASHES

if TYPE_CHECKING:
    from sqlquarry.sagemaker.launcher import SageMakerLauncher

CHECKPOINTS = "/opt/ml/checkpoints"
_BOOTSTRAP = "/opt/ml/input/data/code/bootstrap.py"
# Runs the very bytes that it has compared with the digest in the request; an argument has at most 256 characters. -P
# keeps the working directory, where somebody might put a json.py, off the path.
_RUN_VERIFIED = (
    "import hashlib,sys;p,h=sys.argv[1:3];b=open(p,'rb').read();m=p+' was changed on S3';"
    "hashlib.sha256(b).hexdigest()==h or (open('/opt/ml/output/failure','w').write(m),sys.exit(m));"
    "del sys.argv[1:3];exec(compile(b,p,'exec'))"
)
# Of a job's environment, by botocore's model.
_VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,511}")
_LONGEST_VALUE, _MOST_VARIABLES = 512, 100
_RESERVED = ("SQLQUARRY_", "SM_")  # ours and SageMaker's
_SECRET_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN)$|PASSWORD|SECRET", re.IGNORECASE)
_SECRET_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@-]+")


def training_request(
    launcher: SageMakerLauncher,
    image: str,
    *,
    channels: Mapping[str, str],
    digests: Mapping[str, str],
    bootstrap_sha256: str,
    checkpoints: str,
    output: str,
    processes: int | None = None,
) -> dict[str, Any]:
    """The request but for the job's name.

    Args:
        launcher: holds role, machines, limits and network.
        image: URI of the container.
        channels: name -> ``s3://`` prefix of every input.
        digests: name -> `Channel.digest` of the inputs that the launcher sends; the job verifies them.
        bootstrap_sha256: SHA-256 (hex) of the first program.
        checkpoints: ``s3://`` prefix that SageMaker copies the checkpoints to and from.
        output: ``s3://`` prefix below which it makes a folder for the job.
        processes: of each machine; None starts one for each of its GPUs.
    """
    key = launcher.kms_key_arn
    # Every machine gets all files of a channel: training itself shares the rows out.
    source = {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated"}
    request: dict[str, Any] = {
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "-P", "-c", _RUN_VERIFIED, _BOOTSTRAP, bootstrap_sha256],
            "ContainerArguments": [
                *(f"{name}={digest}" for name, digest in digests.items()),
                *([f"{PROCESSES}={processes}"] if processes else []),
                "install-without-hashes" if launcher.requirements == WITHOUT_HASHES else "install",
                "train",
            ],
            "MetricDefinitions": METRIC_DEFINITIONS,
        },
        "RoleArn": launcher.role_arn,
        "InputDataConfig": [
            {"ChannelName": name, "DataSource": {"S3DataSource": {**source, "S3Uri": uri}}}
            for name, uri in channels.items()
        ],
        # Bedrock reads single files; an archive would have to be unpacked again.
        "OutputDataConfig": {"S3OutputPath": output, "CompressionType": "NONE"} | ({"KmsKeyId": key} if key else {}),
        "ResourceConfig": {
            "InstanceType": launcher.instance_type,
            "InstanceCount": launcher.instance_count,
            "VolumeSizeInGB": launcher.volume_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": launcher.max_run_s},
        "CheckpointConfig": {"S3Uri": checkpoints, "LocalPath": CHECKPOINTS},
    }
    if key:
        request["ResourceConfig"]["VolumeKmsKeyId"] = key
    if launcher.keep_alive_s:
        request["ResourceConfig"]["KeepAlivePeriodInSeconds"] = launcher.keep_alive_s
    if launcher.spot:
        request["EnableManagedSpotTraining"] = True
        request["StoppingCondition"]["MaxWaitTimeInSeconds"] = launcher.max_wait_s or 2 * launcher.max_run_s
    if launcher.subnets:
        request["VpcConfig"] = {
            "Subnets": list(launcher.subnets),
            "SecurityGroupIds": list(launcher.security_group_ids),
        }
    if launcher.secret_arns or launcher.environment:
        request["Environment"] = {**launcher.environment, **_secrets(launcher.secret_arns)}
    if launcher.tags:
        request["Tags"] = [{"Key": name, "Value": value} for name, value in launcher.tags.items()]
    return request


def environment_problems(environment: Mapping[str, object], secret_arns: Mapping[str, object]) -> list[str]:
    """What cannot work of the two; no value is repeated, which may be a secret in the wrong place.

    Args:
        environment: variable -> value.
        secret_arns: variable -> ARN of a secret.
    """
    found = {
        "environment has {}, which looks like a secret; give its secret's ARN in secret_arns instead": [
            name for name in environment if _SECRET_NAME.search(name)
        ],
        "environment has {}, whose value holds a credential (not shown); put it into a secret of Secrets Manager and "
        "give its ARN in secret_arns": [
            name for name, value in environment.items() if isinstance(value, str) and find_credential(value)
        ],
        "environment has {}, which is not a variable's name": [
            name for name in environment if not _VARIABLE.fullmatch(name)
        ],
        f"environment has {{}}, whose value must be text of at most {_LONGEST_VALUE} characters": [
            name for name, value in environment.items() if not _is_text(value)
        ],
        "{} is in environment and in secret_arns, but must be in one": [
            name for name in environment if name in secret_arns
        ],
        f"{{}} begins with {' or '.join(_RESERVED)}, which are not free": [
            name for name in (*environment, *secret_arns) if name.startswith(_RESERVED)
        ],
    }
    problems = [message.format(", ".join(map(repr, names))) for message, names in found.items() if names]
    # Not even the names: name and value may have been exchanged.
    rule = ""
    if not all(_VARIABLE.fullmatch(name) and _is_secret_arn(arn) for name, arn in secret_arns.items()):
        rule = "variables' names with the ARNs of Secrets Manager secrets"
    elif not all(map(_is_text, _secrets(secret_arns).values())):
        rule = f"at most {_LONGEST_VALUE} characters as JSON, the longest value of one variable"
    if rule:
        problems.append(f"secret_arns is (not shown), but must be {rule}")
    if len(environment) + bool(secret_arns) > _MOST_VARIABLES:
        problems.append(
            f"environment has {len(environment)} variables, but {_MOST_VARIABLES} are a job's limit"
            + (", one of them for secret_arns" if secret_arns else "")
        )
    return problems


def report_problems(
    report_to: Sequence[str], environment: Mapping[str, str], secret_arns: Mapping[str, str]
) -> list[str]:
    """Return what the services of `report_to` lack; the container has no one to log in, and is gone after the job."""
    lacking = []
    if "wandb" in report_to and "WANDB_API_KEY" not in secret_arns and environment.get("WANDB_MODE") != "offline":
        lacking.append(
            "report_to 'wandb' needs the ARN of the secret with the API key, secret_arns={'WANDB_API_KEY': …}, or "
            "environment={'WANDB_MODE': 'offline'}"
        )
    if "mlflow" in report_to and not {**environment, **secret_arns}.get("MLFLOW_TRACKING_URI"):
        lacking.append(
            "report_to 'mlflow' needs the address of a tracking server, environment={'MLFLOW_TRACKING_URI': …}; "
            "without it the figures would be lost with the container"
        )
    return lacking


def credential_problems(request: Mapping[str, Any]) -> list[str]:
    """Return which parts of a request hold a credential, which everybody could read who may look at the job."""
    return [
        f"{place} holds {kind} (not shown); leave it out, or give a variable's secret by its ARN in secret_arns"
        for place, kind in credentials_in(request)
    ]


def _secrets(secret_arns: Mapping[str, object]) -> dict[str, str]:
    """The variable that tells the container where the secrets are."""
    packed = json.dumps(dict(secret_arns), sort_keys=True, separators=(",", ":"))
    return {SECRETS: packed} if secret_arns else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_VALUE


def _is_secret_arn(value: object) -> bool:
    return isinstance(value, str) and _SECRET_ARN.fullmatch(value) is not None


def violations(request: Mapping[str, Any], service_model: Any) -> list[str]:
    """What the service would refuse, by botocore's model of it: types, names, patterns, lengths and known values.

    Args:
        request: of CreateTrainingJob.
        service_model: ``client.meta.service_model`` of a SageMaker client.
    """
    from botocore.validate import ParamValidator

    shape = service_model.operation_model("CreateTrainingJob").input_shape
    report = ParamValidator().validate(request, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found or list(_beyond_types(request, shape, ""))


def _beyond_types(value: Any, shape: Any, path: str) -> Iterator[str]:
    """Patterns, lengths and enumerations, which botocore leaves to the service."""
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from _beyond_types(inner, shape.members[name], f"{path}.{name}" if path else name)
        return
    if shape.type_name == "list":
        for inner in value:
            yield from _beyond_types(inner, shape.member, path)
    if shape.type_name == "map":
        for name, inner in value.items():
            yield from _beyond_types(inner, shape.value, f"{path}.{name}")
    facts = shape.metadata
    if (known := facts.get("enum")) and value not in known:
        yield f"{path} is {value!r}, which this botocore does not know; it knows {', '.join(_nearest(value, known))}"
    size = value if shape.type_name in ("integer", "long") else len(value) if hasattr(value, "__len__") else None
    if size is not None and not isinstance(size, bool) and size > facts.get("max", size):
        yield f"{path} is {value!r}, beyond the limit of {facts['max']}"
    pattern = facts.get("pattern", "")
    # \p{…} is Java's; Python's re does not have it.
    if pattern and r"\p" not in pattern and not re.fullmatch(pattern, value):
        yield f"{path} is {value!r}, but must match {pattern}"


def _nearest(value: str, known: list[str]) -> list[str]:
    """Return the known values of the same family (ml.g5.…), else those that are spelled most like this one."""
    family = value.rpartition(".")[0]
    of_family = [name for name in known if name.rpartition(".")[0] == family]
    return of_family or [*(difflib.get_close_matches(value, known) or known[:3]), "…"]
