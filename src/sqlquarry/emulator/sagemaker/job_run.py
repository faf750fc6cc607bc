"""Run one training job, from the start of its instances to its end.

Sources: DescribeTrainingJob ("SecondaryStatus") and "Managed Spot Training Lifecycle" (developer guide) for stages and
endings, StopTrainingJob for the 120 seconds between SIGTERM and the end.
"""

from __future__ import annotations

import math
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.emulator.clock import Clock
from sqlquarry.emulator.faults import Faults, SpotInterruption, TrainingFails
from sqlquarry.emulator.sagemaker.checkpoint_sync import CheckpointSync
from sqlquarry.emulator.sagemaker.container import Cluster, Container
from sqlquarry.emulator.sagemaker.job_record import TrainingJobRecord
from sqlquarry.emulator.sagemaker.s3_files import S3Files

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_logs.type_defs import InputLogEventTypeDef
    from mypy_boto3_sagemaker.literals import SecondaryStatusType

GRACE_S = 120.0
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_TICK_S = 0.05  # real time between two checks of the processes
_LOG_BATCH = 1000  # events per request (CloudWatch accepts 10,000)
_STEP = re.compile(r"\bstep\W{0,4}(\d+)", re.IGNORECASE)


class ClosedError(Exception):
    """The emulator is closing, so the job's result is no longer needed."""


class JobFailedError(Exception):
    """The job ends Failed. The message is its FailureReason."""


class TrainingJobRun:
    """Runs one job and records its stages.

    Args:
        job: job to run.
        directory: new directory for the file systems of the instances.
        session: boto3 session of this emulator.
        aws: environment variables that make AWS clients use the emulator.
        faults: faults to apply.
        clock: returns the time in seconds. Limits are measured by it.
        now: returns the emulator's date and time.
        closing: set when the emulator closes.
    """

    def __init__(
        self,
        job: TrainingJobRecord,
        *,
        directory: Path,
        session: boto3.Session,
        aws: dict[str, str],
        faults: Faults,
        clock: Clock,
        now: Callable[[], datetime],
        closing: threading.Event,
    ) -> None:
        self._job, self._directory, self._aws = job, directory, aws
        self._files, self._logs = S3Files(session.client("s3")), session.client("logs")
        self._faults, self._clock, self._now, self._closing = faults, clock, now, closing
        self._created = clock()
        self._step = -1
        limits = job.parameters["StoppingCondition"]
        self._max_runtime_s = limits.get("MaxRuntimeInSeconds", math.inf)
        self._max_wait_s = limits.get("MaxWaitTimeInSeconds", math.inf)
        self._ending: SecondaryStatusType | None = None  # why the job is being stopped
        self._interruption: SpotInterruption | None = None  # the fault that ended the current attempt
        self._kill_at = math.inf  # when processes that got SIGTERM are killed
        self._failed: list[Container] = []  # instances that failed by themselves, so that the others were stopped

    def run(self) -> None:
        """Run the job until it has ended or the emulator closes."""
        try:
            while self._attempt():
                pass
        except ClosedError:
            pass
        except JobFailedError as error:
            self._job.enter("Failed", self._now(), failure=str(error))
        except Exception as error:  # noqa: BLE001 - the job must end after any error
            reason = f"InternalServerError: {type(error).__name__}: {error}"
            self._job.enter("Failed", self._now(), failure=reason)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _attempt(self) -> bool:
        """Run the job on new instances. Return True if it was interrupted and must start again."""
        if fault := self._faults.take(TrainingFails):
            raise JobFailedError(fault.message)
        with reserved_port() as port:
            return self._attempt_on(port)

    def _attempt_on(self, port: int) -> bool:
        hosts = _host_names(self._job.parameters["ResourceConfig"].get("InstanceCount", 1))
        cluster = Cluster(self._job.arn, self._job.parameters, hosts, port, self._aws)
        containers = [Container(cluster, rank, self._directory / f"algo-{rank + 1}") for rank in range(len(hosts))]
        self._job.enter("Downloading", self._now())
        arrived = self._clock()
        syncs = self._download(containers)
        try:
            self._job.enter("Training", self._now())
            self._watch(containers, syncs)
        finally:
            for container in containers:
                container.kill()
            self._job.trained_s += self._clock() - arrived
        for sync in syncs:
            sync.push()
        if self._interruption:
            self._job.enter("Interrupted", self._now())
            shutil.rmtree(self._directory)
            return self._wait_for_capacity(self._interruption.capacity_after_s)
        self._finish(containers)
        return False

    def _download(self, containers: Sequence[Container]) -> list[CheckpointSync]:
        parameters = self._job.parameters
        checkpoints = parameters.get("CheckpointConfig")
        syncs = []
        self._require("s3:ListBucket", "s3:GetObject")
        try:
            for container in containers:
                for channel in parameters.get("InputDataConfig", []):
                    source = channel["DataSource"]["S3DataSource"]
                    sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
                    share = {"host": container.rank, "hosts": len(containers)} if sharded else {}
                    self._files.download(source["S3Uri"], container.channel(channel["ChannelName"]), **share)
                if checkpoints:
                    local = Path(container.local(checkpoints.get("LocalPath", "/opt/ml/checkpoints")))
                    local.mkdir(parents=True, exist_ok=True)
                    syncs.append(CheckpointSync(self._files, local, checkpoints["S3Uri"]))
                    syncs[-1].restore()
        except Exception as error:
            raise JobFailedError(f"ClientError: Data download failed:{error}") from error
        return syncs

    def _watch(self, containers: Sequence[Container], syncs: Sequence[CheckpointSync]) -> None:
        """Run every entry point until all have ended."""
        fault = self._faults.take(SpotInterruption) if self._job.is_spot else None
        self._interruption, self._kill_at = None, math.inf
        began = self._clock()
        streams = [self._log_stream(container) for container in containers]
        for container in containers:
            container.start()
        while True:
            running = [container for container in containers if container.exit_status is None]
            if self._closing.is_set():
                raise ClosedError
            for container, stream in zip(containers, streams, strict=True):
                self._relay(container, stream)
            if not running:
                return
            for sync in syncs:
                sync.push_if_due()
            if self._kill_at == math.inf:
                self._failed = [container for container in containers if container.exit_status]
                self._terminate_if_due(running, fault, began)
            elif self._clock() >= self._kill_at:
                for container in running:
                    container.kill()
            time.sleep(_TICK_S)

    def _terminate_if_due(self, running: Sequence[Container], fault: SpotInterruption | None, began: float) -> None:
        """Send SIGTERM to running instances if the job must stop, is interrupted, or another instance has failed."""
        self._ending = self._ending or self._limit(began)
        if self._ending:
            self._job.enter("Stopping", self._now())
        elif self._is_due(fault, began):
            self._interruption = fault
        if self._ending or self._interruption or self._failed:
            self._kill_at = self._clock() + GRACE_S
            for container in running:
                container.terminate()

    def _limit(self, began: float) -> SecondaryStatusType | None:
        """Return the status of the limit or request that ends the job now, or None if the job may continue."""
        now = self._clock()
        if self._job.stop_requested:
            return "Stopped"
        if self._job.trained_s + now - began >= self._max_runtime_s:
            return "MaxRuntimeExceeded"
        return "MaxWaitTimeExceeded" if now - self._created >= self._max_wait_s else None

    def _is_due(self, fault: SpotInterruption | None, began: float) -> bool:
        if fault is None:
            return False
        if fault.after_step is not None:
            return self._step >= fault.after_step
        return self._clock() - began >= (fault.after_s or 0.0)

    def _wait_for_capacity(self, seconds: float) -> bool:
        """Wait for new instances, and return whether they become available before the job must end."""
        self._job.enter("Starting", self._now())
        until = self._clock() + seconds
        while True:
            if self._closing.is_set():
                raise ClosedError
            if ending := self._limit(self._clock()):
                self._job.enter("Stopping", self._now())
                self._job.enter(ending, self._now())
                return False
            if self._clock() >= until:
                return True
            time.sleep(_TICK_S)

    def _finish(self, containers: Sequence[Container]) -> None:
        failed = self._failed or [container for container in containers if container.exit_status]
        if not self._ending:
            self._job.enter("Uploading", self._now())
        self._require("s3:PutObject")
        try:
            self._upload([container.root for container in containers])
        except Exception as error:
            raise JobFailedError(f"ClientError: Artifact upload failed:{error}") from error
        if self._ending:
            self._job.enter(self._ending, self._now())
        elif failed:
            first = next((container for container in containers if container.failure), failed[0])
            raise JobFailedError(f"AlgorithmError: {first.failure}, exit code: {first.exit_status}")
        else:
            self._job.enter("Completed", self._now())

    def _require(self, *actions: str) -> None:
        role = self._job.parameters["RoleArn"]
        if denied := [action for action in actions if self._faults.denies(action)]:
            raise JobFailedError(
                f"ClientError: AccessDenied (403): the role {role} is not allowed to perform {denied[0]}"
            )

    def _upload(self, roots: Sequence[Path]) -> None:
        uri = self._job.output_uri
        for directory, archive in (("model", "model.tar.gz"), ("output/data", "output.tar.gz")):
            sources = [root / directory for root in roots]
            if self._job.is_compressed:
                self._files.upload_archive(sources, f"{uri}/{archive}")
            else:
                for source in sources:
                    self._files.upload(source, f"{uri}/{Path(directory).name}/")

    def _log_stream(self, container: Container) -> str:
        name = f"{self._job.name}/algo-{container.rank + 1}-{time.time_ns() // 1_000_000}"
        self._logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=name)
        return name

    def _relay(self, container: Container, stream: str) -> None:
        lines = container.new_lines()
        for start in range(0, len(lines), _LOG_BATCH):
            # Use the real clock, because CloudWatch refuses times that are far from the present.
            time_ms = time.time_ns() // 1_000_000
            events: list[InputLogEventTypeDef] = [
                {"timestamp": time_ms, "message": line} for line in lines[start : start + _LOG_BATCH]
            ]
            self._logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=events)
        for line in lines:
            self._step = max(self._step, *map(int, _STEP.findall(line)), -1)


def _host_names(count: int) -> tuple[str, ...]:
    # Several hosts must be able to resolve each other's names. On loopback, that works for IP addresses only.
    return ("algo-1",) if count == 1 else tuple(f"127.0.0.{number + 1}" for number in range(count))


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port for the first host and yield it.

    The port is bound here, so that the kernel does not assign it to a program that requests any free port. Nobody
    listens on it, so a program that requests this port by number can use it.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        yield int(reservation.getsockname()[1])
