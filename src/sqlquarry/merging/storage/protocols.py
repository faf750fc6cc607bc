"""Protocols of the storage that a merge reads checkpoints from and writes models to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

AGAIN = "Run the same merge again to resume where it stopped."


class StoredFile(Protocol):
    """A file that can be read in ranges."""

    @property
    def name(self) -> str:
        """The name of the file in its directory or below its prefix."""
        ...

    @property
    def size(self) -> int:
        """The length in bytes."""
        ...

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` with the bytes from `offset` on, and return the number of bytes that were there."""
        ...


class Sink(Protocol):
    """A file that is being written in order."""

    def write(self, data: memoryview) -> object:
        """Append bytes. The caller may change `data` after this returns."""
        ...


class Storage(Protocol):
    """A flat folder of files."""

    def sizes(self) -> dict[str, int]:
        """Return name -> size in bytes of every file directly in the folder, or {} if there is no such folder."""
        ...

    def file(self, name: str) -> StoredFile:
        """Return the file of this name, which can be read in ranges.

        Raises:
            MergeError: the file is missing.
        """
        ...

    def read(self, name: str) -> bytes:
        """Read a small file.

        Raises:
            MetadataError: the file is larger than the limit for its name (`sqlquarry.files.metadata.max_bytes`).
        """
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a small file atomically."""
        ...

    def reserve(self) -> AbstractContextManager[None]:
        """Lock the folder until the context ends, if the storage has locks.

        Raises:
            OutputInUseError: another process is writing here.
        """
        ...

    def version(self, name: str) -> str | None:
        """Return the version of a file for `replace`, or None if there is no such file or the storage has locks."""
        ...

    def replace(self, name: str, content: bytes, version: str | None) -> str | None:
        """Write a small file if its current version is still `version`, and return the new version.

        Raises:
            OutputInUseError: another process has written the file since.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove a file and what an unfinished write has left of it. Do nothing if neither exists."""
        ...

    def create(self, name: str, nbytes: int) -> AbstractContextManager[Sink]:
        """Write a large file of `nbytes`. It appears only if the context ends without an error."""
        ...

    def why_empty(self) -> str:
        """Explain why there may be no files here, and what to do about it."""
        ...

    def require_room(self, nbytes: int) -> None:
        """Check that there is enough room, before anything is written.

        Raises:
            MergeError: fewer than `nbytes` bytes are free.
        """
        ...
