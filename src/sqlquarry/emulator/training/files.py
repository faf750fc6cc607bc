"""What a training job moves between emulated S3 and its instances: channels in, outputs out, checkpoints both ways.

Layouts: "Access training data" and "Use checkpoints in Amazon SageMaker AI" (SageMaker developer guide); places of the
outputs as ModelArtifacts.S3ModelArtifacts names them.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from botocore.exceptions import BotoCoreError


class S3Files:
    """Files below S3 prefixes.

    Args:
        client: a boto3 S3 client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def names(self, uri: str) -> dict[str, str]:
        """The keys that begin with a prefix -> each one's path below it, in order of the keys."""
        bucket, prefix = _split(uri)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: _below(prefix, key) for key in keys if not key.endswith("/")}

    def download(self, uri: str, directory: Path, *, host: int = 0, hosts: int = 1) -> None:
        """Copy every `hosts`-th object below a prefix, from the `host`-th on, into a directory.

        Raises:
            ValueError: a key would lie outside of the directory.
        """
        directory.mkdir(parents=True, exist_ok=True)
        for key, name in list(self.names(uri).items())[host::hosts]:
            if ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise ValueError(f"the key {key!r} leads out of the channel's directory")
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(_split(uri)[0], key, str(target))

    def upload(self, directory: Path, uri: str, names: Iterable[str] | None = None) -> None:
        """Copy files of a directory (all of them, where no names are given) below a prefix."""
        bucket, prefix = _split(uri)
        for name in list(_files(directory)) if names is None else names:
            self._client.upload_file(str(directory / name), bucket, f"{prefix.rstrip('/')}/{name}".lstrip("/"))

    def upload_archive(self, directories: Iterable[Path], uri: str) -> None:
        """Pack the files of directories into one ``.tar.gz`` object."""
        bucket, key = _split(uri)
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:
            with tarfile.open(archive.name, "w:gz") as tar:
                for directory in directories:
                    for name in _files(directory):
                        tar.add(directory / name, name)
            self._client.upload_file(archive.name, bucket, key)


class CheckpointSync:
    """Copies a checkpoint directory to S3 while it changes; nothing on S3 is ever deleted.

    Args:
        files: S3.
        directory: the local directory.
        uri: the prefix on S3.
        every_s: seconds between two looks at the directory.
    """

    def __init__(self, files: S3Files, directory: Path, uri: str, *, every_s: float = 1.0) -> None:
        self._files, self._directory, self._uri, self._every_s = files, directory, uri, every_s
        self._copied: dict[str, tuple[int, int]] = {}
        self._due = 0.0

    def restore(self) -> None:
        """Bring what lies on S3 into the directory."""
        self._files.download(self._uri, self._directory)
        self._copied = self._seen()

    def glance(self) -> None:
        """`push`, where it is time to."""
        if time.monotonic() >= self._due:
            self.push()
            self._due = time.monotonic() + self._every_s

    def push(self) -> None:
        """Copy every file that is new or has changed."""
        seen = self._seen()
        for name, state in seen.items():
            if self._copied.get(name) != state:
                try:
                    self._files.upload(self._directory, self._uri, [name])
                except (OSError, BotoCoreError):
                    # The job may move or remove a file at any moment of a copy, and botocore says so in its own terms.
                    if (self._directory / name).exists():
                        raise
                self._copied[name] = state

    def _seen(self) -> dict[str, tuple[int, int]]:
        seen = {}
        for name in _files(self._directory):
            with suppress(FileNotFoundError):
                stat = (self._directory / name).stat()
                seen[name] = (stat.st_mtime_ns, stat.st_size)
        return seen


def _files(directory: Path) -> Iterator[str]:
    # Path.rglob fails where the job removes a folder meanwhile, as it does after each checkpoint; os.walk goes on.
    found = (Path(folder, name) for folder, _, names in os.walk(directory) for name in names)
    for path in sorted(found):
        if path.is_file():
            yield path.relative_to(directory).as_posix()


def _split(uri: str) -> tuple[str, str]:
    parts = urlparse(uri)
    return parts.netloc, parts.path.lstrip("/")


def _below(prefix: str, key: str) -> str:
    if key == prefix:
        return PurePosixPath(key).name
    folder = f"{prefix.rstrip('/')}/"
    # A prefix may also end within a name: then the names keep what begins with it.
    return key.removeprefix(folder) if key.startswith(folder) or prefix == "" else key[prefix.rfind("/") + 1 :]
