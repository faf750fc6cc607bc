"""Where checkpoints are read and merged models are written: a directory, or an S3 prefix that no local disk backs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlquarry.artifacts import write_atomically
from sqlquarry.errors import MergeError
from sqlquarry.extras import require
from sqlquarry.files.locations import S3Location, located
from sqlquarry.files.locks import LOCK_FILE, only_writer
from sqlquarry.files.metadata import read_bytes

AGAIN = "Run the same merge again: it resumes where it stopped."


class StoredFile(Protocol):
    """A file that is read by ranges."""

    @property
    def name(self) -> str:
        """Its name below its directory or prefix."""
        ...

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` with the bytes from `offset` on; the number of bytes there were."""
        ...


class Sink(Protocol):
    """A file that is being written in order."""

    def write(self, data: memoryview) -> object:
        """Append bytes, which may change once this returns."""
        ...


class Storage(Protocol):
    """A flat folder of files."""

    def sizes(self) -> dict[str, int]:
        """Name -> size in bytes of every file directly in it; empty where there is no such folder."""
        ...

    def file(self, name: str) -> StoredFile:
        """The file of this name, to be read by ranges.

        Raises:
            MergeError: it is missing.
        """
        ...

    def read(self, name: str) -> bytes:
        """The whole of a small file.

        Raises:
            MetadataError: it is larger than any such file.
        """
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        ...

    def reserve(self) -> AbstractContextManager[None]:
        """Be the only writer until the context ends, if the storage has locks.

        Raises:
            OutputInUseError: another process writes here.
        """
        ...

    def version(self, name: str) -> str | None:
        """Return what `replace` compares; None if there is no such file, or if the storage has locks."""
        ...

    def replace(self, name: str, content: bytes, version: str | None) -> str | None:
        """Write a small file and return its new version, unless it is no longer of the version given.

        Raises:
            OutputInUseError: another process has written it.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove a file, or what is left of an unfinished one; nothing where there is none."""
        ...

    def create(self, name: str, nbytes: int) -> AbstractContextManager[Sink]:
        """A large file of `nbytes`, there once the context ends without an error."""
        ...

    def why_empty(self) -> str:
        """Say why there may be no files here, and what to do."""
        ...

    def require_room(self, nbytes: int) -> None:
        """Refuse before any writing what cannot fit.

        Raises:
            MergeError: there is less room than `nbytes`.
        """
        ...


def open_storage(location: str | Path, session: Any = None, endpoint_url: str | None = None) -> Storage:
    """The directory or ``s3://bucket/prefix`` at `location`.

    Args:
        location: where.
        session: a boto3 session; None takes the default credentials.
        endpoint_url: another S3 endpoint.

    Raises:
        MissingExtraError: an S3 location, but boto3 is not installed.
        ConfigError: it is not a location.
    """
    place = located(location)
    if not isinstance(place, S3Location):
        return LocalDirectory(place)
    require("aws", f"merging with {place}")
    from sqlquarry.merging.s3 import S3Prefix

    return S3Prefix.open(place, session, endpoint_url)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine."""

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
    """A directory on this machine; made on the first write."""

    path: Path

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        if not self.path.exists():
            return {}
        if not self.path.is_dir():
            raise MergeError(f"{self.path} is a file. Give a directory.")
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

    def replace(self, name: str, content: bytes, version: str | None) -> None:  # noqa: ARG002 - there is the lock
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
        return "there is no such directory."

    def require_room(self, nbytes: int) -> None:
        """See `Storage`."""
        existing = next(part for part in (self.path.absolute(), *self.path.absolute().parents) if part.exists())
        if (free := shutil.disk_usage(existing).free) < nbytes:
            raise MergeError(
                f"the merged weights need {nbytes / 1e9:.2f} GB, but {self.path} has only {free / 1e9:.2f} GB free. "
                "Free some, or choose another disk."
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
            f"writing {self.path / name} failed: {error.strerror or error}. Free some space, or mend the disk. {AGAIN}"
        )

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class _WholeWrites:
    """An unbuffered file whose writes are complete: the kernel writes at most 2 GiB at once."""

    file: Any

    def write(self, data: memoryview) -> None:
        while data:
            data = data[self.file.write(data) :]
