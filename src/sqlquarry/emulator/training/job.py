"""One training job as its descriptions show it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlquarry.emulator.requests.api import Parameters

# Secondary status -> the status it belongs to, and the words that come with it, as SDKs print them.
_STATUSES = {
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
class TrainingJob:
    """A training job: what was asked for, and how far it is.

    Args:
        arn: its ARN.
        parameters: of CreateTrainingJob.
        created: when, by the emulator's clock.
    """

    arn: str
    parameters: Parameters
    created: datetime
    stop_requested: bool = False
    failure: str | None = None
    trained_s: float = 0.0  # on instances, interrupted runs included
    started: datetime | None = None
    ended: datetime | None = None
    _transitions: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.parameters["TrainingJobName"])

    @property
    def status(self) -> str:
        """InProgress, Stopping, Completed, Failed or Stopped."""
        return _STATUSES[self.secondary_status][0]

    @property
    def secondary_status(self) -> str:
        """The stage that it is in."""
        return str(self._transitions[-1]["Status"])

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
        return bool(self.parameters["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP")

    def enter(self, secondary_status: str, now: datetime, *, failure: str | None = None) -> None:
        """Go on to a stage; `failure` says why it is Failed."""
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

    def summary(self) -> dict[str, Any]:
        """The entry in ListTrainingJobs."""
        with self._lock:
            shown: dict[str, Any] = {
                "TrainingJobName": self.name,
                "TrainingJobArn": self.arn,
                "CreationTime": self.created,
                "LastModifiedTime": self._transitions[-1]["StartTime"],
                "TrainingJobStatus": self.status,
                "SecondaryStatus": self.secondary_status,
            }
            return shown | ({"TrainingEndTime": self.ended} if self.ended else {})

    def details(self) -> dict[str, Any]:
        """The answer of DescribeTrainingJob."""
        shown = {name: value for name, value in self.parameters.items() if name != "Tags"} | self.summary()
        with self._lock:
            shown["SecondaryStatusTransitions"] = [dict(transition) for transition in self._transitions]
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
