"""Copy files between the emulated S3 and the instances of a training job.

Sources: "Access training data" (SageMaker developer guide) for the layout of inputs, and
ModelArtifacts.S3ModelArtifacts for the locations of outputs.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlparse

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3Files:
    """Files below S3 prefixes.

    Args:
        client: boto3 S3 client.
    """

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def names(self, uri: str) -> dict[str, str]:
        """Return the keys below a prefix in sorted order, each with its path relative to the prefix."""
        bucket, prefix = _split(uri)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: _below(prefix, key) for key in keys if not key.endswith("/")}

    def download(self, uri: str, directory: Path, *, host: int = 0, hosts: int = 1) -> None:
        """Copy every `hosts`-th object below a prefix, starting at number `host`, into a directory.

        Raises:
            ValueError: the path of a key is outside the directory.
        """
        directory.mkdir(parents=True, exist_ok=True)
        for key, name in list(self.names(uri).items())[host::hosts]:
            if ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise ValueError(f"the path of the key {key!r} is outside the channel's directory")
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(_split(uri)[0], key, str(target))

    def upload(self, directory: Path, uri: str, names: Iterable[str] | None = None) -> None:
        """Copy files of a directory to a prefix. None copies all files."""
        bucket, prefix = _split(uri)
        for name in list(files_below(directory)) if names is None else names:
            self._client.upload_file(str(directory / name), bucket, f"{prefix.rstrip('/')}/{name}".lstrip("/"))

    def upload_archive(self, directories: Iterable[Path], uri: str) -> None:
        """Pack the files of several directories into one ``.tar.gz`` object."""
        bucket, key = _split(uri)
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:
            with tarfile.open(archive.name, "w:gz") as tar:
                for directory in directories:
                    for name in files_below(directory):
                        tar.add(directory / name, name)
            self._client.upload_file(archive.name, bucket, key)


def files_below(directory: Path) -> Iterator[str]:
    """Yield the relative paths of all files below a directory in sorted order."""
    # The job may remove a folder at the same time, as it does after each checkpoint. Then Path.rglob fails, but os.walk
    # continues.
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
    # A prefix may also end in the middle of a name. Then the relative paths keep the complete name.
    return key.removeprefix(folder) if key.startswith(folder) or prefix == "" else key[prefix.rfind("/") + 1 :]
