"""Read the log lines of a running job and show them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from sqlquarry.aws.failures import error_code
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.sagemaker.metrics import Progress
from sqlquarry.text import visible, visible_logger

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import GetLogEventsRequestTypeDef

logger = visible_logger(__name__)
LOG_GROUP = "/aws/sagemaker/TrainingJobs"


class LogFollower:
    """Reads the log lines that CloudWatch has received from a job since the last read, one stream for each machine.

    Args:
        client: a CloudWatch Logs client.
        job: the job's name.
    """

    def __init__(self, client: CloudWatchLogsClient, job: str) -> None:
        self._client, self._job = client, job
        self._places: dict[str, str] = {}  # stream -> token of the next page

    def lines(self) -> Iterator[str]:
        """Yield new lines. If there are several machines, each line begins with the machine's name.

        If the log cannot be read, nothing is yielded, because the job does not depend on it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            hosts = {stream: stream.removeprefix(f"{self._job}/").rpartition("-")[0] for stream in self._streams()}
            several = len(set(hosts.values())) > 1  # a spot job's machine has a stream for each of its starts
            for stream, host in hosts.items():
                for line in self._new(stream):
                    yield f"{host}: {line}" if several else line
        except (BotoCoreError, ClientError) as error:
            # SageMaker creates the group with the account's first job, and the streams minutes after a job.
            if error_code(error) != "ResourceNotFoundException":
                logger.warning("the log of %s cannot be read: %s", self._job, error)

    def _streams(self) -> list[str]:
        pages = self._client.get_paginator("describe_log_streams").paginate(
            logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self._job}/"
        )
        return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]

    def _new(self, stream: str) -> Iterator[str]:
        while True:
            token = self._places.get(stream)
            request: GetLogEventsRequestTypeDef = {
                "logGroupName": LOG_GROUP,
                "logStreamName": stream,
                "startFromHead": True,
            }
            if token:
                request["nextToken"] = token
            page = self._client.get_log_events(**request)
            self._places[stream] = page["nextForwardToken"]
            yield from (event["message"].rstrip("\n") for event in page["events"])
            if page["nextForwardToken"] == token:  # there is nothing more yet
                return


class Display:
    """A context manager that shows a job's state, its log lines, and a progress bar of its steps."""

    def __init__(self, job: str, *, show: bool = True) -> None:
        self._bar = ProgressBar(job, unit="step", show=show)
        self._state = ""

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def state(self, state: str) -> None:
        """Show the job's secondary status if it has changed."""
        if state != self._state:
            self._state = state
            self._bar.note = state
            self._print(f"[{state}]")

    def line(self, line: str) -> Progress | None:
        """Show a log line, or move the bar if the line contains progress. Return the progress, or None."""
        progress = Progress.parse(line)
        if progress is not None:
            speed = f", {progress.tokens_per_s:,.0f} tokens/s" if progress.tokens_per_s else ""
            described = f"loss {progress.loss:.3f}{speed}"
            self._bar.update(progress.step, total=progress.steps, note=described)
        if progress is None or not self._bar.is_redrawn:
            self._print(line)
        return progress

    def _print(self, line: str) -> None:
        # Progress bars of other programs begin each update with a carriage return.
        self._bar.print(visible(line.replace("\r", "\n")))
