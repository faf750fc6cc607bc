"""Keep prepared records, so that a plan, its training and a resumed run encode and pack the same records only once.

Small results stay in the memory of this process. Large ones are written to ``~/.cache/sqlquarry/prepared``, where other
processes find them, too. For 62,310 records, that takes 0.6 s instead of 10 s on two cores.

A file consists of the SHA-256 (hex) of all that follows, a line of JSON, and the `EncodedRecords.buffers`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from sqlquarry.files.locations import cache_folder
from sqlquarry.files.metadata import JsonObject
from sqlquarry.files.writing import write_atomically
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.text import visible_logger
from sqlquarry.tokenizing.encoded import EncodedRecords
from sqlquarry.tokenizing.tokenizer import Tokenizer

logger = visible_logger(__name__)
_VERSION = 1  # Increase it whenever the same records and settings give other tokens, rows or facts.
LARGE = 2**20  # number of tokens from which a result is written to disk. Fewer are encoded in about a second
_MOST_IN_MEMORY = 4
MOST_BYTES = 2**31  # size of all files together


class Kept(NamedTuple):
    """Encoded records and facts about them that JSON can represent."""

    examples: EncodedRecords
    facts: JsonObject


_recent: dict[str, Kept] = {}
# A record without an id gets one when it is written to a file for other processes and read again.
_content_of = attrgetter(*(field.name for field in dataclasses.fields(Record) if field.name != "id"))


def content_key(
    records: Sequence[Record], formatter: PromptFormatter, tokenizer: Tokenizer, settings: Mapping[str, object]
) -> str | None:
    """Return a key of everything that the result depends on, or None if the tokenizer's content is not known.

    Args:
        records: the records.
        formatter: the bound prompt.
        tokenizer: the tokenizer.
        settings: all other settings that change the result, ready for JSON.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    facts = {
        "version": _VERSION,
        "packages": {name: version(name) for name in ("tokenizers", "transformers")},
        "prompt": formatter.fingerprint,
        "tokenizer": [type(tokenizer).__name__, getattr(tokenizer, "split_special_tokens", False), backend.to_str()],
        "settings": settings,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for record in records:
        digest.update(repr(_content_of(record)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def recall(key: str) -> Kept | None:
    """Return what was kept under a key, or None. Damaged files are ignored."""
    if key in _recent:
        return _recent[key]
    with suppress(OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError):
        path = _folder() / key
        kept = _read(path)
        os.utime(path)  # The files that were used last are kept.
        return kept
    return None


def keep(key: str, kept: Kept) -> None:
    """Keep a result under a key. If the disk cannot be written, do nothing."""
    tokens = sum(kept.examples.lengths)
    if tokens < LARGE:
        _recent[key] = kept
        while len(_recent) > _MOST_IN_MEMORY:
            _recent.pop(next(iter(_recent)), None)
        return
    head = json.dumps(kept.facts | {"records": len(kept.examples), "tokens": tokens}).encode() + b"\n"
    try:
        path = _folder() / key
        write_atomically(path, _parts(head, kept.examples))
        _remove_oldest(path.parent)
    except (OSError, RuntimeError) as error:
        logger.debug("the prepared records cannot be kept: %s", error)


def _parts(head: bytes, examples: EncodedRecords) -> Iterator[bytes]:
    digest = hashlib.sha256(head)
    for part in examples.buffers():
        digest.update(part)
    yield digest.hexdigest().encode() + b"\n"
    yield head
    yield from (part.tobytes() for part in examples.buffers())


def _read(path: Path) -> Kept:
    """Read a file.

    Raises:
        OSError, ValueError, TypeError, KeyError, EOFError: the file is missing or damaged.
    """
    with path.open("rb") as file:
        expected = file.readline(65).decode().strip()
        start = file.tell()
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise ValueError(f"{path} is damaged")
        file.seek(start)
        facts = json.loads(file.readline())
        lengths, prompt_lengths, ids = array("i"), array("i"), array("i")
        for part, count in ((lengths, facts["records"]), (prompt_lengths, facts["records"]), (ids, facts["tokens"])):
            part.fromfile(file, count)
    return Kept(EncodedRecords.joined(lengths, prompt_lengths, ids), facts)


def _folder() -> Path:
    """Return the folder of the files. It contains the user's own data, so no other user may read or write it.

    Raises:
        OSError: the folder cannot be created, or other users can read or write it.
        RuntimeError: the user has no home directory.
    """
    folder = cache_folder() / "prepared"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"other users can read or write {folder}")
    return folder


def _remove_oldest(folder: Path) -> None:
    """Remove files until the others are small enough together. A file that a killed process left is removed, too."""
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)
