"""Save checkpoints from which a killed run resumes: adapter, Adam's moments and the number of steps, in one file.

The order of the rows, the rates and dropout depend only on the number of the step (`schedule`, `loop`). So nothing else
has to be saved, and the file fits any number of processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.errors import ConfigError, TrainingError
from sqlquarry.files.digests import sha256_file
from sqlquarry.files.locations import S3Location, located
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    import boto3
    import torch

logger = visible_logger(__name__)
# The name contains the SHA-256 of the content, so a cut or damaged file is detected.
_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a run after `step` optimizer steps.

    Args:
        step: number of finished steps.
        tensors: ``adapter.<name>``, ``exp_avg.<name>`` and ``exp_avg_sq.<name>`` of each trained parameter, on the CPU.
        facts: other values that a resumed run needs (sums for the log), as text.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, str]


class Store(Protocol):
    """A directory or S3 prefix with checkpoint files."""

    def workspace(self) -> Path | None:
        """Return the directory in which to create a file before `put`, or None for any directory."""
        ...

    def names(self) -> list[str]:
        """Return all file names."""
        ...

    def fetch(self, name: str, folder: Path) -> Path:
        """Return the local path of a file. A file in S3 is copied into `folder`."""
        ...

    def put(self, path: Path, name: str) -> None:
        """Store a finished local file. It appears completely or not at all."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file."""
        ...


class Checkpoints:
    """Checkpoint files of one run in a directory or below an ``s3://`` prefix, written while training continues.

    Args:
        place: the directory or prefix.
        kept: number of newest files to keep. At least 2, so that one remains if the last is damaged.
        session: the boto3 session for S3. None uses the default credentials.

    Raises:
        ConfigError: `place` is a bucket without a prefix, or a file.
    """

    def __init__(self, place: str | Path, *, kept: int = 2, session: boto3.Session | None = None) -> None:
        where = located(place)
        self.place, self.kept = str(where), kept
        self._store: Store = _Prefix(where, session) if isinstance(where, S3Location) else _Folder(where)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint in the background, after the previous one. The snapshot's tensors must not change.

        Raises:
            TrainingError: the previous checkpoint could not be written.
        """
        self.wait()
        self._pending = self._writer.submit(self._write, snapshot)

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            TrainingError: the last checkpoint could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except Exception as error:
                older = self._steps()
                rest = f"The newest one is from step {older[-1][0]}." if older else "There is no earlier checkpoint."
                raise TrainingError(
                    f"a checkpoint could not be written to {self.place}: {error}. {rest} Free some space or use "
                    "another checkpoint_dir, and run again."
                ) from error

    def latest(self) -> Snapshot | None:
        """Return the newest valid checkpoint, or None if there is none. Skip damaged ones with a warning."""
        for step, name in reversed(self._steps()):
            with tempfile.TemporaryDirectory() as folder:
                path = self._store.fetch(name, Path(folder))
                if sha256_file(path)[:16] == _fields(name)[1] and (snapshot := _read(path, step)):
                    return snapshot
            logger.warning("The checkpoint %s in %s is damaged. Trying the one before it.", name, self.place)
        return None

    def clear(self) -> None:
        """Remove all checkpoints of a finished run."""
        self.wait()
        for _, name in self._steps():
            self._store.delete(name)
        if isinstance(self._store, _Folder):
            with contextlib.suppress(OSError):  # the directory contains other files
                self._store.root.rmdir()

    def _steps(self) -> list[tuple[int, str]]:
        return sorted((_fields(name)[0], name) for name in self._store.names() if _NAME.fullmatch(name))

    def _write(self, snapshot: Snapshot) -> None:
        from safetensors.torch import save_file

        with tempfile.TemporaryDirectory(dir=self._store.workspace()) as folder:
            path = Path(folder) / "new.safetensors"
            save_file(dict(snapshot.tensors), path, metadata=dict(snapshot.facts))
            name = f"step-{snapshot.step:08d}-{sha256_file(path)[:16]}.safetensors"
            self._store.put(path, name)
        for _, old in self._steps()[: -self.kept]:
            self._store.delete(old)


def _fields(name: str) -> tuple[int, str]:
    match = _NAME.fullmatch(name)
    assert match is not None  # noqa: S101 - the caller has filtered the names
    return int(match[1]), match[2]


def _read(path: Path, step: int) -> Snapshot | None:
    """Return the content of a checkpoint, or None if the file is not safetensors."""
    from safetensors import SafetensorError, safe_open

    with contextlib.suppress(SafetensorError), safe_open(path, "pt") as file:
        return Snapshot(step, {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118 - it is not a dict
    return None


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root
        if root.exists() and not root.is_dir():
            raise ConfigError(f"checkpoint_dir is {root}, which is a file. Give a directory.")
        for leftover in root.glob("tmp*"):  # from a process that was killed while it wrote
            shutil.rmtree(leftover, ignore_errors=True)

    def workspace(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)  # only rank 0 writes, so other machines get no empty directory
        return self.root

    def names(self) -> list[str]:
        return [path.name for path in self.root.glob("*")]

    def fetch(self, name: str, folder: Path) -> Path:  # noqa: ARG002 - the file is already local
        return self.root / name

    def put(self, path: Path, name: str) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(self.root / name)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


class _Prefix:
    def __init__(self, location: S3Location, session: boto3.Session | None) -> None:
        self._prefix = S3Prefix.open(location.require_prefix("checkpoint_dir"), session)

    def workspace(self) -> None:
        return None

    def names(self) -> list[str]:
        with aws_errors(TrainingError, f"listing the checkpoints in {self._prefix.location}"):
            return list(self._prefix.objects())

    def fetch(self, name: str, folder: Path) -> Path:
        with aws_errors(TrainingError, f"reading {self._prefix.location.uri_of(name)}"):
            self._prefix.download(name, folder / name)
        return folder / name

    def put(self, path: Path, name: str) -> None:
        with aws_errors(TrainingError, f"writing {self._prefix.location.uri_of(name)}"):
            self._prefix.upload(path, name)

    def delete(self, name: str) -> None:
        with aws_errors(TrainingError, f"deleting {self._prefix.location.uri_of(name)}"):
            self._prefix.delete(name)
