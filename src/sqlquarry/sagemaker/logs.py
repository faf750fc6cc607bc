"""A job's log lines as they come, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from sqlquarry.aws.failures import error_code
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.sagemaker.metrics import Progress
from sqlquarry.text import visible, visible_logger

logger = visible_logger(__name__)
LOG_GROUP = "/aws/sagemaker/TrainingJobs"


class LogFollower:
    """Reads what CloudWatch has got of a job since the last reading, one stream for each machine.

    Args:
        client: of CloudWatch Logs.
        job: the job's name.
    """

    def __init__(self, client: Any, job: str) -> None:
        self._client, self._job = client, job
        self._places: dict[str, str] = {}  # stream -> token of what follows

    def lines(self) -> Iterator[str]:
        """New lines; of several machines, each with the machine's name before it.

        A log that cannot be read yields nothing: the job does not depend on it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            hosts = {stream: stream.removeprefix(f"{self._job}/").rpartition("-")[0] for stream in self._streams()}
            several = len(set(hosts.values())) > 1  # a spot job's machine has a stream for each of its starts
            for stream, host in hosts.items():
                for line in self._new(stream):
                    yield f"{host}: {line}" if several else line
        except (BotoCoreError, ClientError) as error:
            # The group is made with the account's first job, the streams minutes after the job.
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
            page = self._client.get_log_events(
                logGroupName=LOG_GROUP,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
            self._places[stream] = page["nextForwardToken"]
            yield from (event["message"].rstrip("\n") for event in page["events"])
            if page["nextForwardToken"] == token:  # the end, so far
                return


class Display:
    """Shows a job: its state, its lines, and a bar of its steps; a context manager."""

    def __init__(self, job: str, *, show: bool = True) -> None:
        self._bar = ProgressBar(job, unit="step", show=show)
        self._state = ""

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, traceback)

    def state(self, state: str) -> None:
        """The job's secondary status; shown when it changes."""
        if state != self._state:
            self._state = state
            self._bar.note = state
            self._print(f"[{state}]")

    def line(self, line: str) -> Progress | None:
        """A line of the log; what it says of the progress moves the bar instead, where there is one."""
        progress = Progress.parse(line)
        if progress is not None:
            speed = f", {progress.tokens_per_s:,.0f} tokens/s" if progress.tokens_per_s else ""
            described = f"loss {progress.loss:.3f}{speed}"
            self._bar.update(progress.step, total=progress.steps, note=described)
        if progress is None or not self._bar.is_redrawn:
            self._print(line)
        return progress

    def _print(self, line: str) -> None:
        # A bar that a program drew itself begins its next state with a carriage return.
        self._bar.print(visible(line.replace("\r", "\n")))
