"""Temporary storage for the snapshots of imported models, which are removed even after a killed process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "sqlquarry-emulator-"
_YOUNG_S = 60.0  # a directory may be seen before its owner has locked it


@contextmanager
def temporary_storage() -> Iterator[Path]:
    """Give a directory that is removed afterwards; directories that killed emulators left behind are removed first."""
    for other in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # in use, or another user's
            _remove_if_abandoned(other)
    # A request that still copies a model may bring a file back while the directory goes; then the next start has it.
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        lock = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it however this process ends
            yield Path(name)
        finally:
            os.close(lock)


def _remove_if_abandoned(directory: Path) -> None:
    # /tmp is everybody's: a link could lead to the user's own folders, and opening a pipe would wait for its writer.
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its emulator is alive
        if time.time() - directory.stat().st_mtime > _YOUNG_S:
            shutil.rmtree(directory)
    finally:
        os.close(lock)
