"""Use a local directory as the storage of a merge."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.errors import MergeError
from sqlquarry.files.locks import LOCK_FILE, only_writer
from sqlquarry.files.metadata import read_bytes
from sqlquarry.files.writing import write_atomically
from sqlquarry.merging.storage.protocols import AGAIN, Sink

if TYPE_CHECKING:
    from io import FileIO


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local file."""

    path: Path

    @property
    def name(self) -> str:
        """See `StoredFile`."""
        return self.path.name

    @property
    def size(self) -> int:
        """See `StoredFile`."""
        return self.path.stat().st_size

    def read_into(self, offset: int, view: memoryview) -> int:
        """See `StoredFile`."""
        with self.path.open("rb", buffering=0) as file:
            done = 0
            while done < len(view) and (count := os.preadv(file.fileno(), [view[done:]], offset + done)):
                done += count
        return done

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class LocalDirectory:
    """A local directory. The first write creates it."""

    path: Path

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        if not self.path.exists():
            return {}
        if not self.path.is_dir():
            raise MergeError(f"{self.path} is a file, not a directory. Pass a directory.")
        return {entry.name: entry.stat().st_size for entry in self.path.iterdir() if entry.is_file()}

    def file(self, name: str) -> LocalFile:
        """See `Storage`."""
        if not (self.path / name).is_file():
            raise MergeError(f"{self.path / name} is missing. Download or train it again.")
        return LocalFile(self.path / name)

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        return read_bytes(self.path / name)

    def write(self, name: str, content: bytes) -> None:
        """See `Storage`."""
        with self._writing(name):
            write_atomically(self.path / name, content)

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """See `Storage`."""
        with ExitStack() as stack:
            try:
                stack.enter_context(only_writer(self.path))
            except OSError as error:
                raise self._failed(LOCK_FILE, error) from error
            yield

    def version(self, name: str) -> None:
        """See `Storage`."""

    def replace(self, name: str, content: bytes, version: str | None) -> None:  # noqa: ARG002 - the lock excludes others
        """See `Storage`."""
        self.write(name, content)

    def delete(self, name: str) -> None:
        """See `Storage`."""
        (self.path / name).unlink(missing_ok=True)
        self._temporary(name).unlink(missing_ok=True)

    @contextmanager
    def create(self, name: str, nbytes: int) -> Iterator[Sink]:  # noqa: ARG002 - S3 sizes its parts by it
        """See `Storage`."""
        temporary = self._temporary(name)
        try:
            with self._writing(name):
                with temporary.open("wb", buffering=0) as file:
                    yield _WholeWrites(file)
                    os.fsync(file.fileno())
                temporary.replace(self.path / name)
        finally:
            temporary.unlink(missing_ok=True)

    def why_empty(self) -> str:
        """See `Storage`."""
        return "the directory does not exist."

    def require_room(self, nbytes: int) -> None:
        """See `Storage`."""
        existing = next(part for part in (self.path.absolute(), *self.path.absolute().parents) if part.exists())
        if (free := shutil.disk_usage(existing).free) < nbytes:
            raise MergeError(
                f"the merged weights need {nbytes / 1e9:.2f} GB, but {self.path} has only {free / 1e9:.2f} GB free. "
                "Free some space or choose another disk."
            )

    def _temporary(self, name: str) -> Path:
        return self.path / f".{name}.tmp"

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: OSError) -> MergeError:
        return MergeError(
            f"writing {self.path / name} failed: {error.strerror or error}. Free some space or repair the disk. {AGAIN}"
        )

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class _WholeWrites:
    """An unbuffered file that repeats short writes. The kernel writes at most 2 GiB at once."""

    file: FileIO

    def write(self, data: memoryview) -> None:
        while data:
            data = data[self.file.write(data) :]
