"""Find the child processes that run queries, by what Linux shows of them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def query_processes(judge: int | None = None) -> set[int]:
    """Return the ids of the running children of a judge (by default this process) that run queries."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == (judge or os.getpid()) and b"sandbox_child" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


def is_running(process: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def stopped_within(process: int, seconds: float) -> bool:
    """Wait until a process ends, and return whether it did in time."""
    deadline = time.monotonic() + seconds
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(process)
