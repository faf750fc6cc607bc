"""One training job, as DescribeTrainingJob and ListTrainingJobs show it."""

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

# Secondary status -> the status it belongs to, and the words that come with it, as SDKs print them.
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
# Of the time that a spot job ran: the service bills what the market asks, which saves "up to 90 %"; this share is ours.
_SPOT_SHARE = 0.3
_MAX_REASON = 1024  # characters (the shape FailureReason)


@dataclass(slots=True)
class TrainingJobRecord:
    """A training job: what was asked for, and how far it is.

    Args:
        arn: its ARN.
        parameters: of CreateTrainingJob.
        created: when it was created, by the emulator's clock.
    """

    arn: str
    parameters: CreateTrainingJobRequestTypeDef
    created: datetime
    stop_requested: bool = False
    failure: str | None = None
    trained_s: float = 0.0  # on instances, interrupted runs included
    started: datetime | None = None
    ended: datetime | None = None
    _transitions: list[SecondaryStatusTransitionTypeDef] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """The name that the request gave."""
        return self.parameters["TrainingJobName"]

    @property
    def status(self) -> TrainingJobStatusType:
        """InProgress, Stopping, Completed, Failed or Stopped."""
        return _STATUSES[self.secondary_status][0]

    @property
    def secondary_status(self) -> SecondaryStatusType:
        """The stage that it is in."""
        return self._transitions[-1]["Status"]

    @property
    def is_spot(self) -> bool:
        """Whether its instances may be taken away."""
        return bool(self.parameters.get("EnableManagedSpotTraining"))

    @property
    def output_uri(self) -> str:
        """The prefix of all that the job writes, without a slash at its end."""
        return f"{self.parameters['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"

    @property
    def is_compressed(self) -> bool:
        """Whether outputs become archives."""
        return self.parameters["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP"

    def enter(self, secondary_status: SecondaryStatusType, now: datetime, *, failure: str | None = None) -> None:
        """Begin a stage; `failure` says why the job is Failed."""
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
