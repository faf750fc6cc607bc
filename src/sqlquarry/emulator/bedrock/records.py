"""Import jobs and imported models, and how Bedrock's operations show them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlquarry.emulator.bedrock.admission import Admitted
from sqlquarry.emulator.bedrock.warmth import Warmth
from sqlquarry.emulator.requests.api import Parameters


@dataclass(slots=True)
class Model:
    """An imported model: a snapshot of its files, which later changes in S3 do not reach."""

    arn: str
    name: str
    job: Job
    directory: Path
    admitted: Admitted
    warmth: Warmth
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def summary(self) -> dict[str, Any]:
        """The entry in ListImportedModels."""
        return {
            "modelArn": self.arn,
            "modelName": self.name,
            "creationTime": self.created,
            "modelArchitecture": self.admitted.architecture,
            "instructSupported": self.admitted.converses,
        }

    def details(self) -> dict[str, Any]:
        """The answer of GetImportedModel."""
        gigabytes = self.admitted.weight_bytes / 1e9
        key = self.job.key_arn
        return self.summary() | {
            "jobName": self.job.parameters["jobName"],
            "jobArn": self.job.arn,
            "modelDataSource": self.job.parameters["modelDataSource"],
            "customModelUnits": {
                # Published points only: 4B 1 unit, 8B 2, 70B 8; the thresholds between them are ours.
                "customModelUnitsPerModelCopy": 1 if gigabytes < 10 else 2 if gigabytes < 40 else 8,
                "customModelUnitsVersion": "v1.0",
            },
            **({"modelKmsKeyArn": key} if key else {}),
        }


@dataclass(slots=True)
class Job:
    """An import job: its end is decided when it is created, and shows after some looks at it."""

    arn: str
    parameters: Parameters
    polls_left: int
    due: float  # by the emulator's clock; it does not end before
    outcome: Model | str | None = None  # the model, or why there is none; None while files are copied
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None

    @property
    def status(self) -> str:
        """InProgress, Completed or Failed."""
        if self.ended is None:
            return "InProgress"
        return "Completed" if isinstance(self.outcome, Model) else "Failed"

    @property
    def key_arn(self) -> str | None:
        """The KMS key that the request named, by id or ARN."""
        key: str | None = self.parameters.get("importedModelKmsKeyId")
        if key is None or key.startswith("arn:"):
            return key
        _, partition, _, region, account, _ = self.arn.split(":", 5)
        return f"arn:{partition}:kms:{region}:{account}:{key if key.startswith('alias/') else f'key/{key}'}"

    def summary(self) -> dict[str, Any]:
        """The entry in ListModelImportJobs."""
        shown: dict[str, Any] = {
            "jobArn": self.arn,
            "jobName": self.parameters["jobName"],
            "importedModelName": self.parameters["importedModelName"],
            "status": self.status,
            "creationTime": self.created,
            "lastModifiedTime": self.ended or self.created,
        }
        if self.ended is not None:
            shown["endTime"] = self.ended
            if isinstance(self.outcome, Model):
                shown["importedModelArn"] = self.outcome.arn
        return shown

    def details(self) -> dict[str, Any]:
        """The answer of GetModelImportJob."""
        shown = self.summary()
        shown |= {
            key: self.parameters[key] for key in ("roleArn", "modelDataSource", "vpcConfig") if key in self.parameters
        }
        if self.key_arn:
            shown["importedModelKmsKeyArn"] = self.key_arn
        if self.status == "Failed":
            shown["failureMessage"] = self.outcome
        return shown
