"""Machines, network and time limits of a training job, with the names of the SageMaker Python SDK.

Each class checks its options and returns its part of the CreateTrainingJob request.
Source of the names: `sagemaker.train.configs` of the SageMaker Python SDK 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlquarry.options import check_options, check_rules

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import ResourceConfigTypeDef, StoppingConditionTypeDef, VpcConfigTypeDef

_GPU_FAMILIES = ("ml.g", "ml.p")
_UNUSABLE_FAMILIES = ("ml.trn", "ml.p6e")  # other accelerators than NVIDIA's, or processors other than x86


@check_options(also_called={"enable_managed_spot_training": "spot", "use_spot_instances": "spot"})
@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """The machines of a training job.

    Args:
        instance_type: the type of machine. Each machine runs one process per GPU, but not more than a step has rows.
            The default is the machine of the published recipe, with four A10G of 24 GB each.
        instance_count: number of machines.
        volume_size_in_gb: size of the volume, for instance types without their own disks.
        keep_alive_period_s: seconds for which the machines are kept (and billed) for the next job of the same kind.
            None releases them immediately.
        spot: use spare machines, which AWS can take away at any time. Training resumes from its checkpoint.

    Raises:
        ConfigError: options are invalid (all are listed).
    """

    instance_type: str = "ml.g5.12xlarge"
    instance_count: int = 1
    volume_size_in_gb: int = 200
    keep_alive_period_s: int | None = None
    spot: bool = False

    def __post_init__(self) -> None:
        check_rules(
            self,
            {
                "instance_type": (
                    not self.instance_type.startswith(_UNUSABLE_FAMILIES),
                    "an x86 machine with NVIDIA GPUs or without GPUs",
                ),
                "instance_count": (self.instance_count >= 1, "at least 1"),
                "volume_size_in_gb": (self.volume_size_in_gb >= 1, "at least 1"),
                # "Managed warm pools", considerations: spot machines cannot be kept.
                "keep_alive_period_s": (not (self.keep_alive_period_s and self.spot), "None with spot=True"),
            },
        )

    @property
    def processor(self) -> Literal["cpu", "gpu"]:
        """The kind of processor that the machines train on."""
        return "gpu" if self.instance_type.startswith(_GPU_FAMILIES) else "cpu"

    def resource_config(self, kms_key_arn: str | None) -> ResourceConfigTypeDef:
        """Return `ResourceConfig` of a request. `kms_key_arn` is the key of the volumes."""
        config: ResourceConfigTypeDef = {
            "InstanceType": self.instance_type,  # type: ignore[typeddict-item] # `violations` checks it
            "InstanceCount": self.instance_count,
            "VolumeSizeInGB": self.volume_size_in_gb,
        }
        if kms_key_arn:
            config["VolumeKmsKeyId"] = kms_key_arn
        if self.keep_alive_period_s:
            config["KeepAlivePeriodInSeconds"] = self.keep_alive_period_s
        return config


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class Networking:
    """The VPC that a training job runs in.

    Args:
        subnets: subnets of the VPC. They need access to a package index and to S3.
        security_group_ids: security groups of the same VPC.

    Raises:
        ConfigError: one of the options is empty.
    """

    subnets: Sequence[str]
    security_group_ids: Sequence[str]

    def __post_init__(self) -> None:
        for name in ("subnets", "security_group_ids"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        rule = "a list with at least one id"
        check_rules(
            self,
            {
                "subnets": (bool(self.subnets), rule),
                "security_group_ids": (bool(self.security_group_ids), rule),
            },
        )

    def vpc_config(self) -> VpcConfigTypeDef:
        """Return `VpcConfig` of a request."""
        return {"Subnets": list(self.subnets), "SecurityGroupIds": list(self.security_group_ids)}


@check_options(also_called={"max_run": "max_runtime_s", "max_wait": "max_wait_s"})
@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingCondition:
    """The time limits after which SageMaker stops a training job.

    Args:
        max_runtime_s: seconds of training after which the job is stopped.
        max_wait_s: with `Compute.spot`, seconds after which SageMaker gives up, including the wait for machines. "auto"
            means twice `max_runtime_s`.

    Raises:
        ConfigError: options are invalid (all are listed).
    """

    max_runtime_s: int = 24 * 3600
    max_wait_s: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        check_rules(
            self,
            {
                "max_runtime_s": (self.max_runtime_s >= 1, "at least 1"),
                "max_wait_s": (
                    self.max_wait_s == "auto" or self.max_wait_s >= self.max_runtime_s,
                    f"'auto' or at least max_runtime_s={self.max_runtime_s}",
                ),
            },
        )

    def limits(self, *, spot: bool) -> StoppingConditionTypeDef:
        """Return `StoppingCondition` of a request. SageMaker accepts MaxWaitTimeInSeconds only for spot machines."""
        limits: StoppingConditionTypeDef = {"MaxRuntimeInSeconds": self.max_runtime_s}
        if spot:
            limits["MaxWaitTimeInSeconds"] = 2 * self.max_runtime_s if self.max_wait_s == "auto" else self.max_wait_s
        return limits
