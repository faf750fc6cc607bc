"""Copy the checkpoints of a training job to S3 while it runs.

Source: "Use checkpoints in Amazon SageMaker AI" (SageMaker developer guide).
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from botocore.exceptions import BotoCoreError

from sqlquarry.emulator.sagemaker.s3_files import S3Files, files_below


class CheckpointSync:
    """Copies a checkpoint directory to S3 while it changes, and deletes nothing on S3.

    Args:
        files: access to S3.
        directory: local directory.
        uri: prefix on S3.
        interval_s: minimum number of seconds between two scans of the directory.
    """

    def __init__(self, files: S3Files, directory: Path, uri: str, *, interval_s: float = 1.0) -> None:
        self._files, self._directory, self._uri, self._interval_s = files, directory, uri, interval_s
        self._copied: dict[str, tuple[int, int]] = {}
        self._due = 0.0

    def restore(self) -> None:
        """Copy the files on S3 into the directory."""
        self._files.download(self._uri, self._directory)
        self._copied = self._seen()

    def push_if_due(self) -> None:
        """Call `push` unless the last call was less than `interval_s` ago."""
        if time.monotonic() >= self._due:
            self.push()
            self._due = time.monotonic() + self._interval_s

    def push(self) -> None:
        """Copy every file that is new or has changed."""
        seen = self._seen()
        for name, state in seen.items():
            if self._copied.get(name) != state:
                try:
                    self._files.upload(self._directory, self._uri, [name])
                except (OSError, BotoCoreError):
                    # The job may move or remove a file while it is copied. botocore has its own errors for that.
                    if (self._directory / name).exists():
                        raise
                self._copied[name] = state

    def _seen(self) -> dict[str, tuple[int, int]]:
        seen = {}
        for name in files_below(self._directory):
            with suppress(FileNotFoundError):
                stat = (self._directory / name).stat()
                seen[name] = (stat.st_mtime_ns, stat.st_size)
        return seen
