"""Write files atomically, so that a reader never sees an incomplete file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sqlquarry.files.metadata import json_bytes


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file atomically: write a temporary file, fsync and rename it. Missing folders are created.

    Args:
        path: the file.
        content: the content, or parts of it that need not be in memory together.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON, atomically."""
    write_atomically(path, json_bytes(content))
