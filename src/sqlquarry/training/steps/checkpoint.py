"""What a killed run resumes from: adapter, Adam's moments and the number of steps, in one file that verifies itself.

The order of the rows, the rates and dropout are functions of the step's number (`schedule`, `loop`), so nothing else
has to be kept, and the file fits any number of processes.
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
# The name holds the SHA-256 of the content: a file that was cut or damaged betrays itself.
_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run after `step` optimiser steps.

    Args:
        step: steps done.
        tensors: ``adapter.<name>``, ``exp_avg.<name>`` and ``exp_avg_sq.<name>`` of each trained parameter, on the CPU.
        facts: what else the run resumes with (sums for the log), as text.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, str]


class Store(Protocol):
    """Where checkpoint files are."""

    def workspace(self) -> Path | None:
        """Where a file is to be made before `put`; None for anywhere."""
        ...

    def names(self) -> list[str]:
        """All file names."""
        ...

    def fetch(self, name: str, folder: Path) -> Path:
        """Return a local path of a file; `folder` may take a copy."""
        ...

    def put(self, path: Path, name: str) -> None:
        """Take over a finished local file, all or nothing."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file."""
        ...


class Checkpoints:
    """Checkpoint files of one run in a directory or below an ``s3://`` prefix, written while training continues.

    Args:
        place: the directory or prefix.
        kept: newest files that are kept; at least 2, so that one remains if the last is damaged.
        session: the boto3 session for S3; None uses the default credentials.

    Raises:
        ConfigError: the place is a whole bucket, or a file.
    """

    def __init__(self, place: str | Path, *, kept: int = 2, session: boto3.Session | None = None) -> None:
        where = located(place)
        self.place, self.kept = str(where), kept
        self._store: Store = _Prefix(where, session) if isinstance(where, S3Location) else _Folder(where)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Write in the background; the snapshot's tensors must not change. Waits for the one before, if need be.

        Raises:
            TrainingError: the file before could not be written.
        """
        self.wait()
        self._pending = self._writer.submit(self._write, snapshot)

    def wait(self) -> None:
        """Wait until the last file is written.

        Raises:
            TrainingError: it could not be.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except Exception as error:
                older = self._steps()
                rest = f"The one after step {older[-1][0]} is whole" if older else "There is none yet"
                raise TrainingError(
                    f"a checkpoint could not be written to {self.place}: {error}. {rest}; make room, or give another "
                    "place, and run again."
                ) from error

    def latest(self) -> Snapshot | None:
        """Return the newest valid checkpoint, None if there is none; damaged ones are skipped with a warning."""
        for step, name in reversed(self._steps()):
            with tempfile.TemporaryDirectory() as folder:
                path = self._store.fetch(name, Path(folder))
                if sha256_file(path)[:16] == _fields(name)[1] and (snapshot := _read(path, step)):
                    return snapshot
            logger.warning("the checkpoint %s in %s is damaged; taking the one before", name, self.place)
        return None

    def clear(self) -> None:
        """Remove every checkpoint: the run is finished."""
        self.wait()
        for _, name in self._steps():
            self._store.delete(name)
        if isinstance(self._store, _Folder):
            with contextlib.suppress(OSError):  # it holds files of others
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
    assert match is not None  # noqa: S101 - the caller has filtered
    return int(match[1]), match[2]


def _read(path: Path, step: int) -> Snapshot | None:
    """Return the content of a checkpoint; None if it is not safetensors, whatever its name promises."""
    from safetensors import SafetensorError, safe_open

    with contextlib.suppress(SafetensorError), safe_open(path, "pt") as file:
        return Snapshot(step, {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118 - it is not a dict
    return None


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root
        if root.exists() and not root.is_dir():
            raise ConfigError(f"checkpoint_dir is {root}, which is a file. Give a directory.")
        for leftover in root.glob("tmp*"):  # of a process that was killed while it wrote
            shutil.rmtree(leftover, ignore_errors=True)

    def workspace(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)  # by who writes: processes on other machines leave nothing there
        return self.root

    def names(self) -> list[str]:
        return [path.name for path in self.root.glob("*")]

    def fetch(self, name: str, folder: Path) -> Path:  # noqa: ARG002 - the file is here already
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
