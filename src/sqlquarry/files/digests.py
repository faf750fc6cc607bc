"""Compute the SHA-256 of files and directories."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlquarry.files.metadata import leads_inside

_BLOCK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file. It is read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def files_below(directory: Path) -> Iterator[str]:
    """Yield the relative names of the files that belong to a directory, with "/" between folders."""
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        # Hidden files and folders are temporary. A writer still uses them, or was killed before it removed them.
        # A link that leads out of the folder does not belong to it (wandb's logs have such a link to its cache).
        own = path.is_file() and leads_inside(path, directory)
        if own and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix()


def file_digests(directory: Path, names: Sequence[str]) -> list[str]:
    """Return the SHA-256 (hex) of files in a directory. Several files are hashed at the same time."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda name: sha256_file(directory / name), names))


def combined_digest(names: Sequence[str], digests: Sequence[str]) -> str:
    """Return one SHA-256 (hex) over the names of files and their SHA-256. The order of the files does not matter."""
    lines = [f"{name} {digest}\n" for name, digest in sorted(zip(names, digests, strict=True))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
