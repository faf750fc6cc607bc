"""The state of one training job, as DescribeTrainingJob and ListTrainingJobs show it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sqlquarry.emulator.requests.parameters import ApiAnswer

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.literals import SecondaryStatusType, TrainingJobStatusType
    from mypy_boto3_sagemaker.type_defs import (
        CreateTrainingJobRequestTypeDef,
        SecondaryStatusTransitionTypeDef,
        TrainingJobSummaryTypeDef,
    )

# Secondary status -> its primary status, and the message that SDKs print for it.
_STATUSES: Mapping[SecondaryStatusType, tuple[TrainingJobStatusType, str]] = {
    "Starting": ("InProgress", "Preparing the instances for training"),
    "Downloading": ("InProgress", "Downloading input data"),
    "Training": ("InProgress", "Training image download completed. Training in progress."),
    "Interrupted": ("InProgress", "The managed spot training instances were interrupted"),
    "Uploading": ("InProgress", "Uploading generated training model"),
    "Stopping": ("Stopping", "Stopping the training job"),
    "Completed": ("Completed", "Training job completed"),
    "Failed": ("Failed", "Training job failed"),
    "Stopped": ("Stopped", "Training job stopped"),
    "MaxRuntimeExceeded": ("Stopped", "Training job runtime exceeded MaxRuntimeInSeconds provided"),
    "MaxWaitTimeExceeded": ("Stopped", "Training job wait time exceeded MaxWaitTimeInSeconds provided"),
}
ENDED = ("Completed", "Failed", "Stopped")
# Share of a spot job's run time that is billed. The service bills the market price, which saves "up to 90 %". The value
# is this emulator's choice.
_SPOT_SHARE = 0.3
_MAX_REASON = 1024  # characters (shape FailureReason)


@dataclass(slots=True)
class TrainingJobRecord:
    """The request and the progress of a training job.

    Args:
        arn: ARN of the job.
        parameters: parameters of CreateTrainingJob.
        created: time of creation, by the emulator's clock.
    """

    arn: str
    parameters: CreateTrainingJobRequestTypeDef
    created: datetime
    stop_requested: bool = False
    failure: str | None = None
    trained_s: float = 0.0  # time on instances, including interrupted runs
    started: datetime | None = None
    ended: datetime | None = None
    _transitions: list[SecondaryStatusTransitionTypeDef] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """The job's name in the request."""
        return self.parameters["TrainingJobName"]

    @property
    def status(self) -> TrainingJobStatusType:
        """The status (InProgress, Stopping, Completed, Failed or Stopped)."""
        return _STATUSES[self.secondary_status][0]

    @property
    def secondary_status(self) -> SecondaryStatusType:
        """The current stage."""
        return self._transitions[-1]["Status"]

    @property
    def is_spot(self) -> bool:
        """Whether the job uses spot instances, which may be interrupted."""
        return bool(self.parameters.get("EnableManagedSpotTraining"))

    @property
    def output_uri(self) -> str:
        """The prefix of all outputs of the job, without a trailing slash."""
        return f"{self.parameters['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"

    @property
    def is_compressed(self) -> bool:
        """Whether outputs are packed into archives."""
        return self.parameters["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP"

    def enter(self, secondary_status: SecondaryStatusType, now: datetime, *, failure: str | None = None) -> None:
        """Begin a stage. `failure` is the reason if the job has failed."""
        with self._lock:
            if self._transitions:
                self._transitions[-1]["EndTime"] = now
            message = failure or _STATUSES[secondary_status][1]
            self._transitions.append({"Status": secondary_status, "StartTime": now, "StatusMessage": message})
            if secondary_status == "Downloading" and self.started is None:
                self.started = now
            if _STATUSES[secondary_status][0] in ENDED:
                self.failure = failure and failure[:_MAX_REASON]
                self._transitions[-1]["EndTime"] = self.ended = now

    def summary(self) -> TrainingJobSummaryTypeDef:
        """Return the entry in ListTrainingJobs."""
        with self._lock:
            shown: TrainingJobSummaryTypeDef = {
                "TrainingJobName": self.name,
                "TrainingJobArn": self.arn,
                "CreationTime": self.created,
                "LastModifiedTime": self._transitions[-1]["StartTime"],
                "TrainingJobStatus": self.status,
                "SecondaryStatus": self.secondary_status,
            }
            if self.ended:
                shown["TrainingEndTime"] = self.ended
            return shown

    def details(self) -> ApiAnswer:
        """Return the answer of DescribeTrainingJob."""
        shown: ApiAnswer = {name: value for name, value in self.parameters.items() if name != "Tags"}
        shown |= self.summary()
        with self._lock:
            shown["SecondaryStatusTransitions"] = [transition.copy() for transition in self._transitions]
            if self.started:
                shown["TrainingStartTime"] = self.started
            if self.failure is not None:
                shown["FailureReason"] = self.failure
            if self.ended and self.started:
                seconds = math.ceil(self.trained_s)
                shown["TrainingTimeInSeconds"] = seconds
                shown["BillableTimeInSeconds"] = math.ceil(seconds * _SPOT_SHARE) if self.is_spot else seconds
            if self.ended:
                model = "model.tar.gz" if self.is_compressed else "model/"
                shown["ModelArtifacts"] = {"S3ModelArtifacts": f"{self.output_uri}/{model}"}
        return shown
