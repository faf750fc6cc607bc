"""The state of import jobs and imported models, and their form in the answers of Bedrock's operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.emulator.bedrock.admission import AdmittedModel
from sqlquarry.emulator.bedrock.timing import ColdStart
from sqlquarry.emulator.requests.parameters import ApiAnswer

if TYPE_CHECKING:
    from mypy_boto3_bedrock.type_defs import CreateModelImportJobRequestTypeDef


@dataclass(slots=True)
class ImportedModelRecord:
    """An imported model. Its directory is a snapshot of the files, so later changes in S3 do not affect it."""

    arn: str
    name: str
    job: ImportJobRecord
    directory: Path
    admitted: AdmittedModel
    cold_start: ColdStart
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def summary(self) -> ApiAnswer:
        """Return the entry in ListImportedModels."""
        return {
            "modelArn": self.arn,
            "modelName": self.name,
            "creationTime": self.created,
            "modelArchitecture": self.admitted.architecture,
            "instructSupported": self.admitted.converses,
        }

    def details(self) -> ApiAnswer:
        """Return the answer of GetImportedModel."""
        gigabytes = self.admitted.weight_bytes / 1e9
        key = self.job.key_arn
        return self.summary() | {
            "jobName": self.job.parameters["jobName"],
            "jobArn": self.job.arn,
            "modelDataSource": self.job.parameters["modelDataSource"],
            "customModelUnits": {
                # AWS publishes 1 unit for 4B, 2 for 8B and 8 for 70B. The thresholds in between are this emulator's.
                "customModelUnitsPerModelCopy": 1 if gigabytes < 10 else 2 if gigabytes < 40 else 8,
                "customModelUnitsVersion": "v1.0",
            },
            **({"modelKmsKeyArn": key} if key else {}),
        }


@dataclass(slots=True)
class ImportJobRecord:
    """An import job. Its outcome is known early but is only shown after some polls."""

    arn: str
    parameters: CreateModelImportJobRequestTypeDef
    polls_left: int
    due: float  # earliest end, by the emulator's clock
    outcome: ImportedModelRecord | str | None = None  # the model or the failure message, or None while files are copied
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None

    @property
    def name(self) -> str:
        """The job's name in the request."""
        return self.parameters["jobName"]

    @property
    def status(self) -> str:
        """The status (InProgress, Completed or Failed)."""
        if self.ended is None:
            return "InProgress"
        return "Completed" if isinstance(self.outcome, ImportedModelRecord) else "Failed"

    @property
    def key_arn(self) -> str | None:
        """The ARN of the KMS key that the request names by ID or ARN."""
        key = self.parameters.get("importedModelKmsKeyId")
        if key is None or key.startswith("arn:"):
            return key
        _, partition, _, region, account, _ = self.arn.split(":", 5)
        return f"arn:{partition}:kms:{region}:{account}:{key if key.startswith('alias/') else f'key/{key}'}"

    def summary(self) -> ApiAnswer:
        """Return the entry in ListModelImportJobs."""
        shown: ApiAnswer = {
            "jobArn": self.arn,
            "jobName": self.parameters["jobName"],
            "importedModelName": self.parameters["importedModelName"],
            "status": self.status,
            "creationTime": self.created,
            "lastModifiedTime": self.ended or self.created,
        }
        if self.ended is not None:
            shown["endTime"] = self.ended
            if isinstance(self.outcome, ImportedModelRecord):
                shown["importedModelArn"] = self.outcome.arn
        return shown

    def details(self) -> ApiAnswer:
        """Return the answer of GetModelImportJob."""
        asked: ApiAnswer = dict(self.parameters)
        shown = self.summary() | {
            key: asked[key] for key in ("roleArn", "modelDataSource", "vpcConfig") if key in asked
        }
        if self.key_arn:
            shown["importedModelKmsKeyArn"] = self.key_arn
        if self.status == "Failed":
            shown["failureMessage"] = self.outcome
        return shown
