"""Let one process at a time write a directory; the kernel releases the lock however that process ends."""

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
LOCK_FILE = ".writer.lock"  # holds the process that writes, for the message of another one
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Be the only writer of a directory, which is made if it is missing; nothing of the lock remains afterwards.

    Raises:
        OutputInUseError: another process, or another thread of this one, writes it.
        OSError: the directory or the lock file cannot be made.
    """
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    path = directory / LOCK_FILE
    file = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock goes, so that nobody's file is removed
        file.close()
        with suppress(OSError):  # it holds files now
            for folder in made:
                folder.rmdir()


def _locked(path: Path) -> IO[str]:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:
            if path.is_symlink():
                raise
            continue  # its owner has removed the folder again, as it wrote nothing there
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may have removed the file between our opening and locking it.
            current = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read() or "another process"
            file.close()
            raise OutputInUseError(
                f"{path.parent} is being written by {owner}. Wait for it, or choose another directory."
            ) from error
        except FileNotFoundError:
            current = False
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                file.close()
                raise
            logger.warning("%s is on a disk without locks, so a second writer would not be noticed", path.parent)
            return file
        if current:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file
        file.close()
