"""What a merge needs of the place where checkpoints are read and merged models are written."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

AGAIN = "Run the same merge again: it resumes where it stopped."


class StoredFile(Protocol):
    """A file that is read in ranges."""

    @property
    def name(self) -> str:
        """The name below its directory or prefix."""
        ...

    @property
    def size(self) -> int:
        """The length in bytes."""
        ...

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` with the bytes from `offset` on; return how many bytes there were."""
        ...


class Sink(Protocol):
    """A file that is being written in order."""

    def write(self, data: memoryview) -> object:
        """Append bytes, which may change once this returns."""
        ...


class Storage(Protocol):
    """A flat folder of files."""

    def sizes(self) -> dict[str, int]:
        """Return name -> size in bytes of every file directly in it; empty if there is no such folder."""
        ...

    def file(self, name: str) -> StoredFile:
        """Return the file of this name, to be read in ranges.

        Raises:
            MergeError: it is missing.
        """
        ...

    def read(self, name: str) -> bytes:
        """Read a small file.

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
        """Remove a file, or what is left of an unfinished one, if there is any."""
        ...

    def create(self, name: str, nbytes: int) -> AbstractContextManager[Sink]:
        """Write a large file of `nbytes`, which exists once the context ends without an error."""
        ...

    def why_empty(self) -> str:
        """Say why there may be no files here, and what to do."""
        ...

    def require_room(self, nbytes: int) -> None:
        """Check before any writing that there is room.

        Raises:
            MergeError: there is less room than `nbytes`.
        """
        ...
