"""Temporary storage for imported models and training jobs, which is removed even if the process was killed."""

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
_YOUNG_S = 60.0  # another process may see a directory before its owner has locked it


@contextmanager
def temporary_storage() -> Iterator[Path]:
    """Create a directory, yield it and remove it. First remove directories that killed emulators left behind."""
    for other in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is in use, or belongs to another user
            _remove_if_abandoned(other)
    # A request that is still copying a model may create a file while the directory is removed. In that case the next
    # start removes the directory.
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        lock = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it however this process ends
            yield Path(name)
        finally:
            os.close(lock)


def _remove_if_abandoned(directory: Path) -> None:
    # Anybody can write to /tmp. A link could lead to the user's own folders, and opening a pipe would wait for a
    # writer.
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError if its emulator is alive
        if time.time() - directory.stat().st_mtime > _YOUNG_S:
            shutil.rmtree(directory)
    finally:
        os.close(lock)
