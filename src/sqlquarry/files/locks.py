"""Lock a directory for one writer at a time. The kernel releases the lock however the writing process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sqlquarry.errors import OutputInUseError
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
LOCK_FILE = ".writer.lock"  # contains the writing process, which the message for a second writer names
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def only_writer(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a directory for this writer, and create it if it is missing. Afterwards no trace of the lock remains.

    Args:
        directory: the directory.
        wait: wait until no other process or thread writes to the directory, instead of raising OutputInUseError.

    Raises:
        OutputInUseError: another process, or another thread of this process, is writing to the directory.
        OSError: the directory or the lock file cannot be created.
    """
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    path = directory / LOCK_FILE
    file = _locked(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is released, so that another writer's file is never removed
        file.close()
        with suppress(OSError):  # the folder is not empty
            for folder in made:
                folder.rmdir()


def _opened(path: Path) -> IO[str] | None:
    """Open a lock file and create its folder. Return None if another writer removed the folder at the same time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except FileNotFoundError:
        if path.is_symlink():
            raise
    except FileExistsError as error:
        if os.path.lexists(error.filename) and not Path(error.filename).is_dir():
            raise
    return None


def _locked(path: Path, operation: int) -> IO[str]:
    while True:
        file = _opened(path)
        if file is None:
            continue
        try:
            fcntl.flock(file, operation)
            # The previous writer may have removed the file after this one opened it and before it was locked.
            current = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read() or "another process"
            file.close()
            raise OutputInUseError(
                f"{path.parent} is in use: {owner} is writing to it. Wait until it ends, or choose another directory."
            ) from error
        except FileNotFoundError:
            current = False
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                file.close()
                raise
            logger.warning("%s is on a file system without locks, so a second writer would not be noticed", path.parent)
            return file
        if current:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file
        file.close()
