"""A training job on SageMaker: followed, stopped, and asked what it made and what it cost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlquarry.aws.failures import error_code
from sqlquarry.errors import TrainingError, TrainingInterruptedError
from sqlquarry.sagemaker.failures import job_advice, training_error
from sqlquarry.sagemaker.logs import Display, LogFollower
from sqlquarry.sagemaker.metrics import Progress
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
_ENDED = ("Completed", "Failed", "Stopped", "Deleting")


@dataclass(slots=True)
class TrainingJob:
    """One job of the account, by its name.

    Args:
        name: the job's name.
        sagemaker: a SageMaker client.
        logs: a CloudWatch Logs client.
        usd_per_hour: instance type -> US dollars per hour.
        poll_interval_s: seconds between two looks at a job that runs.
        sleep: waits; injected by tests.
        now: the time; injected by tests.
    """

    name: str
    _: KW_ONLY
    sagemaker: Any
    logs: Any
    usd_per_hour: Mapping[str, float]
    poll_interval_s: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    progress: Progress | None = None

    def wait(self, *, show: bool = True) -> TrainingJob:
        """Until the job has ended, with its log lines and progress on standard error.

        To stop waiting (Ctrl-C) does not stop the job; `SageMakerLauncher.attach` finds it again.

        Args:
            show: False waits silently.

        Raises:
            TrainingInterruptedError: the job was stopped, or ran into max_run_s or max_wait_s; launched again, it goes
                on from its newest checkpoint.
            TrainingError: it failed, with SageMaker's reason and what to do; or AWS could not be asked.
        """
        try:
            with Display(self.name, show=show) as display:
                description = self._followed(display if show else None)
        except KeyboardInterrupt:
            logger.warning("the training job %s continues; attach(%r) follows it again", self.name, self.name)
            raise
        _raise_unless_completed(description)
        return self

    def _followed(self, display: Display | None) -> dict[str, Any]:
        """The job's description once it has ended."""
        follower = LogFollower(self.logs, self.name)
        while True:
            description = self.describe()
            if display:
                display.state(description.get("SecondaryStatus", description["TrainingJobStatus"]))
                for line in follower.lines():
                    self.progress = display.line(line) or self.progress
            if description["TrainingJobStatus"] in _ENDED:
                return description
            self.sleep(self.poll_interval_s)

    def stop(self) -> None:
        """Ask the job to stop: it writes a checkpoint within the 120 s that SageMaker leaves it. An ended job stays so.

        Raises:
            TrainingError: AWS refused.
        """
        if self.status in _ENDED:
            return
        self._asked("stopping", lambda: self.sagemaker.stop_training_job(TrainingJobName=self.name))

    @property
    def status(self) -> str:
        """InProgress, Completed, Failed, Stopping or Stopped."""
        return str(self.describe()["TrainingJobStatus"])

    @property
    def cost_usd(self) -> float | None:
        """US dollars for the machines so far; None where the price of the instance type is not known.

        SageMaker's billable seconds x machines x price by the hour. An ended spot job's billable seconds are already
        reduced by its savings; while it runs, the figure is what on-demand machines would cost. Storage is not in it.
        Source: "DescribeTrainingJob", BillableTimeInSeconds.
        """
        description = self.describe()
        machines = description["ResourceConfig"]
        price = self.usd_per_hour.get(machines["InstanceType"])
        if price is None:
            return None
        seconds = description.get("BillableTimeInSeconds")
        if seconds is None:
            started = description.get("TrainingStartTime")
            ended = description.get("TrainingEndTime") or self.now()
            seconds = (ended - started).total_seconds() if started else 0.0
        return float(seconds / 3600 * machines["InstanceCount"] * price)

    @property
    def adapter_uri(self) -> str:
        """``s3://`` prefix of the adapter; it is there once the job is Completed."""
        return f"{self._artifacts}/adapter"

    @property
    def merged_uri(self) -> str:
        """``s3://`` prefix of the merged model, for `BedrockImporter`; there once a job that merges is Completed."""
        return f"{self._artifacts}/merged"

    def describe(self) -> dict[str, Any]:
        """SageMaker's description of the job.

        Raises:
            TrainingError: there is no such job, or AWS could not be asked.
        """
        found: dict[str, Any] = self._asked(
            "looking at", lambda: self.sagemaker.describe_training_job(TrainingJobName=self.name)
        )
        return found

    def exists(self) -> bool:
        """Whether the account has a job of this name.

        Raises:
            TrainingError: AWS could not be asked.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.sagemaker.describe_training_job(TrainingJobName=self.name)
        except (BotoCoreError, ClientError) as error:
            # The service's code for it is that of any bad request.
            if error_code(error) == "ValidationException" and re.search("not (found|find)", str(error)):
                return False
            raise training_error(error, f"looking for the training job {self.name}") from error
        return True

    @property
    def _artifacts(self) -> str:
        description = self.describe()
        where = description.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        output = description["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        return str(where or f"{output}/{self.name}/output/model").rstrip("/")

    def _asked(self, doing: str, ask: Callable[[], Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return ask()
        except (BotoCoreError, ClientError) as error:
            raise training_error(error, f"{doing} the training job {self.name}") from error


def _raise_unless_completed(description: Mapping[str, Any]) -> None:
    name, status = description["TrainingJobName"], description["TrainingJobStatus"]
    limits = description.get("StoppingCondition", {})
    if status == "Failed":
        reason = description.get("FailureReason", "no reason is given").rstrip()
        raise TrainingError(f"the training job {name} failed: {reason.rstrip('.')}. {job_advice(reason)}")
    if status != "Completed":
        why = {
            "MaxRuntimeExceeded": f"ran into max_run_s={limits.get('MaxRuntimeInSeconds')}; raise it",
            "MaxWaitTimeExceeded": f"ran into max_wait_s={limits.get('MaxWaitTimeInSeconds')}, waiting for spot "
            "machines included; raise it, or set spot=False",
        }.get(description.get("SecondaryStatus", ""), "was stopped")
        raise TrainingInterruptedError(
            f"the training job {name} {why}. What it learnt is kept: launch again to resume from the newest checkpoint."
        )
