"""Follow and stop a training job on SageMaker, and query its results and its cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import aws_errors, error_code
from sqlquarry.aws.polling import Polling
from sqlquarry.errors import TrainingError, TrainingInterruptedError
from sqlquarry.sagemaker.failures import job_advice, training_error
from sqlquarry.sagemaker.logs import Display, LogFollower
from sqlquarry.sagemaker.metrics import Progress
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import DescribeTrainingJobResponseTypeDef

logger = visible_logger(__name__)
_ENDED = ("Completed", "Failed", "Stopped", "Deleting")
JOB_POLLING = Polling(interval_s=15.0)  # SageMaker ends every job by its own limit


@dataclass(slots=True)
class TrainingJob:
    """A training job of the account, identified by its name.

    Args:
        name: the job's name.
        sagemaker: a SageMaker client.
        logs: a CloudWatch Logs client.
        usd_per_hour: instance type -> US dollars per hour.
        polling: how often to look at a running job, and how long `wait` waits for its end.
        now: returns the time. Tests replace it.
        progress: progress in the newest log line that `wait` has shown, or None.
    """

    name: str
    _: KW_ONLY
    sagemaker: SageMakerClient
    logs: CloudWatchLogsClient
    usd_per_hour: Mapping[str, float]
    polling: Polling = JOB_POLLING
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    progress: Progress | None = None

    def wait(self, *, show_progress: bool = True) -> TrainingJob:
        """Wait until the job has ended, and show its log lines and progress on standard error.

        Ctrl-C ends the wait but not the job. `SageMakerLauncher.attach` finds the job again.

        Args:
            show_progress: False waits silently.

        Raises:
            TrainingInterruptedError: the job was stopped, or reached max_runtime_s or max_wait_s. If it is launched
                again, it resumes from its newest checkpoint.
            TrainingError: the job failed (the message contains SageMaker's reason and what to do), it runs for longer
                than `Polling.timeout_s`, or a request to AWS failed.
        """
        try:
            with Display(self.name, show=show_progress) as display:
                description = self._followed(display if show_progress else None)
        except KeyboardInterrupt:
            logger.warning("the training job %s continues. Follow it again with attach(%r)", self.name, self.name)
            raise
        _raise_unless_completed(description)
        return self

    def _followed(self, display: Display | None) -> DescribeTrainingJobResponseTypeDef:
        """Return the job's description once it has ended."""
        follower = LogFollower(self.logs, self.name)
        started = self.polling.clock()
        while True:
            description = self.describe()
            if display:
                display.state(description.get("SecondaryStatus", description["TrainingJobStatus"]))
                for line in follower.lines():
                    self.progress = display.line(line) or self.progress
            if description["TrainingJobStatus"] in _ENDED:
                return description
            if self.polling.is_over(self.polling.clock() - started):
                raise TrainingError(
                    f"the training job {self.name} has not ended within timeout_s={self.polling.timeout_s:g}, and "
                    f"continues. Follow it again with attach({self.name!r}). To wait longer, raise Polling.timeout_s."
                )
            self.polling.sleep(self.polling.interval_s)

    def stop(self) -> None:
        """Ask the job to stop. It writes a checkpoint within the 120 s that SageMaker allows.

        If the job has ended, nothing happens.

        Raises:
            TrainingError: AWS refused a request.
        """
        if self.status in _ENDED:
            return
        with aws_errors(TrainingError, f"stopping the training job {self.name}", service="sagemaker"):
            self.sagemaker.stop_training_job(TrainingJobName=self.name)

    @property
    def status(self) -> str:
        """SageMaker's status: InProgress, Completed, Failed, Stopping or Stopped."""
        return self.describe()["TrainingJobStatus"]

    @property
    def cost_usd(self) -> float | None:
        """US dollars for the machines so far, or None if the price of the instance type is unknown.

        This is SageMaker's billable seconds x machines x price per hour, without storage. When a spot job has ended,
        its billable seconds already include the savings. While it runs, the cost is that of on-demand machines.
        Source: "DescribeTrainingJob", BillableTimeInSeconds.
        """
        description = self.describe()
        machines = description["ResourceConfig"]
        price = self.usd_per_hour.get(machines["InstanceType"])
        if price is None:
            return None
        ended = description.get("TrainingEndTime", self.now())
        started = description.get("TrainingStartTime", ended)
        seconds = description.get("BillableTimeInSeconds", (ended - started).total_seconds())
        return seconds / 3600 * machines["InstanceCount"] * price

    @property
    def adapter_uri(self) -> str:
        """``s3://`` prefix of the adapter, which is complete once the job is Completed."""
        return f"{self._artifacts}/adapter"

    @property
    def merged_uri(self) -> str:
        """``s3://`` prefix of the merged model for `BedrockImporter`, complete once a merging job is Completed."""
        return f"{self._artifacts}/merged"

    def describe(self) -> DescribeTrainingJobResponseTypeDef:
        """Return SageMaker's description of the job.

        Raises:
            TrainingError: the job does not exist, or a request to AWS failed.
        """
        with aws_errors(TrainingError, f"looking at the training job {self.name}", service="sagemaker"):
            return self.sagemaker.describe_training_job(TrainingJobName=self.name)

    def exists(self) -> bool:
        """Return whether the account has a job of this name.

        Raises:
            TrainingError: a request to AWS failed.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.sagemaker.describe_training_job(TrainingJobName=self.name)
        except (BotoCoreError, ClientError) as error:
            # For an unknown name, the service answers with the generic code of a bad request.
            if error_code(error) == "ValidationException" and re.search("not (found|find)", str(error)):
                return False
            raise training_error(error, f"looking for the training job {self.name}") from error
        return True

    @property
    def _artifacts(self) -> str:
        description = self.describe()
        where = description.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        output = description["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        return (where or f"{output}/{self.name}/output/model").rstrip("/")


def _raise_unless_completed(description: DescribeTrainingJobResponseTypeDef) -> None:
    name, status = description["TrainingJobName"], description["TrainingJobStatus"]
    limits = description.get("StoppingCondition", {})
    if status == "Failed":
        reason = description.get("FailureReason", "no reason is given").rstrip()
        raise TrainingError(f"the training job {name} failed: {reason.rstrip('.')}. {job_advice(reason)}")
    if status != "Completed":
        why = {
            "MaxRuntimeExceeded": f"reached max_runtime_s={limits.get('MaxRuntimeInSeconds')}. Raise this limit",
            "MaxWaitTimeExceeded": f"reached max_wait_s={limits.get('MaxWaitTimeInSeconds')}, which includes waiting "
            "for spot machines. Raise this limit, or set spot=False",
        }.get(description.get("SecondaryStatus", ""), "was stopped")
        raise TrainingInterruptedError(
            f"the training job {name} {why}. Launch it again to resume from the newest checkpoint."
        )
