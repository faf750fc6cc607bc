"""Read and write the small files that describe models and artifacts, which anybody may have written.

Every read is bounded in bytes, nesting depth and number of values, and so in time and memory. Numbers are finite, text
is UTF-8, and a name in a file never leads out of the folder that the file describes.

Symbolic links: the entries of a folder belong to whoever keeps the folder, so they may be links; the Hugging Face cache
is made of them. A name that is read from a file gets less trust. A shard's name must be that of an entry of the folder
(`file_name`), and a name in a manifest must lead to a file inside the folder, or to the blobs of the same repository in
the Hugging Face cache (`path_inside`).
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from sqlquarry.errors import MetadataError

JsonObject: TypeAlias = dict[str, Any]  # what somebody wrote into a file; whoever reads a value checks its type

MAX_DEPTH = 100  # configurations have about 10 levels
MAX_VALUES = 5_000_000  # the largest tokenizer.json known, Gemma 3's, has about 2 million
_MIB = 1 << 20
_LARGEST_BYTES = 64 * _MIB
# The largest known are less than a quarter of these.
_LARGEST_CONFIG_BYTES = {
    "config.json": 4 * _MIB,
    "generation_config.json": 4 * _MIB,
    "adapter_config.json": 4 * _MIB,
    "prompt.json": 4 * _MIB,
    "tokenizer_config.json": 16 * _MIB,
    "tokenizer.json": 256 * _MIB,
}
_MAX_DIGITS = 100  # any such integer is a finite float as well; tokenizers write a model_max_length of 31 digits
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Control characters, and what separates folders or names a drive on Windows.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")


def max_bytes(name: str) -> int:
    """Return the most bytes that a metadata file of this name may have; folders in front of the name do not count."""
    return _LARGEST_CONFIG_BYTES.get(name.rpartition("/")[2], _LARGEST_BYTES)


def check_size(name: str, size: int) -> None:
    """Refuse a file by its size, before it is read.

    Raises:
        MetadataError: it is larger than any such file.
    """
    if size > (limit := max_bytes(name)):
        raise _bad(name, f"has {size:,} bytes, but at most {limit:,} are read")


def read_bytes(path: Path) -> bytes:
    """Read a metadata file whole.

    Raises:
        OSError: it cannot be read.
        MetadataError: it is larger than any such file, or not a regular file (a pipe would never end).
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError(f"{path} is a directory") if path.is_dir() else _bad(path.name, "is not a regular file")
    check_size(path.name, status.st_size)
    with path.open("rb") as file:
        content = file.read(max_bytes(path.name) + 1)  # some files of /proc say that they are empty
    check_size(path.name, len(content))
    return content


def read_object(path: Path, *, lenient: bool = False) -> JsonObject:
    """Read a file that holds one JSON object; `lenient` as in `parse_json`.

    Raises:
        OSError: it cannot be read.
        MetadataError: as `parse_object`.
    """
    return parse_object(read_bytes(path), path.name, lenient=lenient)


def parse_object(content: bytes, name: str, *, lenient: bool = False) -> JsonObject:
    """Parse the content of a metadata file that holds one JSON object; `lenient` as in `parse_json`.

    Raises:
        MetadataError: it is too large, or not such an object.
    """
    check_size(name, len(content))
    value = parse_json(content, name, lenient=lenient)
    if not isinstance(value, dict):
        raise _bad(name, f"holds a JSON {type(value).__name__}, not an object")
    return value


def parse_json(content: bytes | str, name: str, *, lenient: bool = False, max_values: int = MAX_VALUES) -> Any:
    """Parse JSON whose nesting, number of values and numbers are bounded.

    Args:
        content: the text, in UTF-8 if it is bytes. The caller bounds its length.
        name: what messages call it.
        lenient: accept what Python's own writer makes of data: NaN, infinities and halves of surrogate pairs.
        max_values: the most values that it may hold, counted by the punctuation between them.

    Raises:
        MetadataError: it is not JSON within these bounds.
    """
    try:
        return _parsed(content if isinstance(content, str) else content.decode(), lenient, max_values)
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise _bad(name, f"is not UTF-8 text ({error.reason})") from error
    except RecursionError as error:
        raise _bad(name, f"is nested deeper than {MAX_DEPTH} levels") from error
    except json.JSONDecodeError as error:
        raise _bad(name, f"is not valid JSON ({error})") from error
    except ValueError as error:
        raise _bad(name, str(error)) from error


def parse_next(text: str, start: int, name: str) -> tuple[Any, int]:
    """Parse the JSON value that begins at a place in a longer text, within the bounds of a lenient `parse_json`.

    Returns the value and the place behind it.

    Raises:
        JSONDecodeError: it is not JSON, or the text ends before the value does.
        MetadataError: it is not within these bounds.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
        if sum(text.count(mark, start, end) for mark in ",[{") > MAX_VALUES:
            raise ValueError(f"holds more than {MAX_VALUES:,} values")  # noqa: TRY301 - as its neighbors
        if _is_deep(value):
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")  # noqa: TRY301 - as its neighbors
    except RecursionError as error:
        raise _bad(name, f"is nested deeper than {MAX_DEPTH} levels") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise _bad(name, str(error)) from error
    return value, end


def _parsed(text: str, lenient: bool, max_values: int) -> Any:
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark, which readers of models refuse")
    if sum(text.count(mark) for mark in ",[{") > max_values:
        raise ValueError(f"holds more than {max_values:,} values")
    value = (
        json.loads(text, parse_int=_integer)
        if lenient
        else json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
    )
    if _is_deep(value):
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
    if not lenient and _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"holds the number {text[:40]}, which is not finite")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"holds an integer of {len(text)} digits")
    return int(text)


_DECODER = json.JSONDecoder(parse_int=_integer)


def _is_deep(value: object) -> bool:
    """Whether a value has more levels than are read, found level by level without recursion."""
    level: list[dict[str, object] | list[object]] = [[value]]  # json makes no subclasses of dict and list
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for one in level
            for child in (one.values() if type(one) is dict else one)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a JSON number; Python counts true and false among the integers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def file_name(name: object, where: str) -> str:
    """Check a name that a metadata file gives to a file beside it.

    Args:
        name: what stands there.
        where: the metadata file, for messages.

    Raises:
        MetadataError: it is not the plain name of an entry of the folder.
    """
    if not isinstance(name, str) or "/" in name:
        raise _bad(where, f"names {name!r:.80}, which is not the name of a file beside it")
    return relative_name(name, where)


def relative_name(name: object, where: str) -> str:
    """Check a name that a metadata file gives to a file in its folder or below, with "/" between folders.

    Raises:
        MetadataError: it leads out of the folder (``..``, an absolute path, a drive), or no system could hold it.
    """
    if not isinstance(name, str) or not name:
        raise _bad(where, f"names {name!r:.80}, which is not the name of a file")
    try:
        long = any(len(part.encode()) > 255 for part in name.split("/")) or len(name) > 1024
    except UnicodeEncodeError as error:
        raise _bad(where, f"names {name!r:.80}, which is not UTF-8 text") from error
    if long or _UNSAFE.search(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise _bad(where, f"names {name!r:.80}, but names must stay inside the folder")
    return name


def path_inside(directory: Path, name: object, where: str) -> Path:
    """Return the path of a file that a metadata file names, which may be missing.

    Raises:
        MetadataError: as `relative_name`, or a symbolic link on the way leads out of the folder.
    """
    path = directory / relative_name(name, where)
    if not leads_inside(path, directory):
        raise _bad(where, f"names {name!r:.80}, a link that leads out of the folder. Copy what it leads to")
    return path


def leads_inside(path: Path, directory: Path) -> bool:
    """Say whether a path, all links followed, is in a folder or among the blobs of its repository in the cache."""
    try:
        target, root = path.resolve(), directory.resolve()
    except (OSError, RuntimeError):  # a link to itself, which Python < 3.13 calls a RuntimeError
        return False
    # https://huggingface.co/docs/huggingface_hub/guides/manage-cache: snapshots/<revision>/<name> -> blobs/<hash>.
    blobs: Iterable[Path] = [part.parent / "blobs" for part in root.parents if part.name == "snapshots"]
    return target.is_relative_to(root) or any(target.parent == folder for folder in blobs)


def json_bytes(content: object) -> bytes:
    """Return indented JSON as this library writes it to files."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # What UTF-8 cannot hold (half of an emoji, cut at a token limit) becomes the JSON escape of the same form.
    return text.encode("utf-8", "backslashreplace")


def _bad(name: str, problem: str) -> MetadataError:
    return MetadataError(f"{name} {problem}")
