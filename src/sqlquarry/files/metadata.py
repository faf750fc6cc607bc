"""Read and write the small files that describe models and artifacts. Their content is not trusted.

Every read is bounded in bytes, nesting depth and number of values, and therefore in time and memory. Numbers are
finite, text is UTF-8, and a name in a file never leads out of the folder that the file describes.

The entries of a folder belong to its owner, so they may be symbolic links. The Hugging Face cache consists of such
links. A name that is read from a file is trusted less. The name of a shard must be that of an entry of the folder
(`file_name`). A name in a manifest must lead to a file inside the folder, or to the blobs of the same repository in the
Hugging Face cache (`path_inside`).
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

JsonObject: TypeAlias = dict[str, Any]  # untrusted content, so code that uses a value must check its type

MAX_DEPTH = 100  # configurations have about 10 levels
MAX_VALUES = 5_000_000  # the largest known tokenizer.json, that of Gemma 3, has about 2 million
_MIB = 1 << 20
_LARGEST_BYTES = 64 * _MIB
# The largest known files have less than a quarter of these sizes.
_LARGEST_CONFIG_BYTES = {
    "config.json": 4 * _MIB,
    "generation_config.json": 4 * _MIB,
    "adapter_config.json": 4 * _MIB,
    "prompt.json": 4 * _MIB,
    "tokenizer_config.json": 16 * _MIB,
    "tokenizer.json": 256 * _MIB,
}
_MAX_DIGITS = 100  # such integers are also finite as floats. Tokenizers write a model_max_length of 31 digits.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Control characters, and the path separator and drive letters of Windows.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")


def max_bytes(name: str) -> int:
    """Return the maximum size in bytes of a metadata file with this name. Folders before the name are ignored."""
    return _LARGEST_CONFIG_BYTES.get(name.rpartition("/")[2], _LARGEST_BYTES)


def check_size(name: str, size: int) -> None:
    """Check the size of a metadata file before it is read.

    Raises:
        MetadataError: the file is larger than `max_bytes`.
    """
    if size > (limit := max_bytes(name)):
        raise _bad(name, f"has {size:,} bytes, but such a file may have at most {limit:,}")


def read_bytes(path: Path) -> bytes:
    """Return the content of a metadata file.

    Raises:
        OSError: the file cannot be read.
        MetadataError: the file is larger than `max_bytes`, or not a regular file (a pipe would never end).
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError(f"{path} is a directory") if path.is_dir() else _bad(path.name, "is not a regular file")
    check_size(path.name, status.st_size)
    with path.open("rb") as file:
        content = file.read(max_bytes(path.name) + 1)  # some files in /proc report a size of 0
    check_size(path.name, len(content))
    return content


def read_object(path: Path, *, lenient: bool = False) -> JsonObject:
    """Read a file that contains one JSON object. `lenient` is passed to `parse_json`.

    Raises:
        OSError: the file cannot be read.
        MetadataError: as for `parse_object`.
    """
    return parse_object(read_bytes(path), path.name, lenient=lenient)


def parse_object(content: bytes, name: str, *, lenient: bool = False) -> JsonObject:
    """Parse the content of a metadata file that contains one JSON object. `lenient` is passed to `parse_json`.

    Raises:
        MetadataError: the content is too large, or not a JSON object within the bounds.
    """
    check_size(name, len(content))
    value = parse_json(content, name, lenient=lenient)
    if not isinstance(value, dict):
        raise _bad(name, f"contains a JSON {type(value).__name__}, not an object")
    return value


def parse_json(content: bytes | str, name: str, *, lenient: bool = False, max_values: int = MAX_VALUES) -> Any:
    """Parse JSON with bounds on its nesting, its number of values, and its numbers.

    Args:
        content: the text, encoded in UTF-8 if it is bytes. The caller must limit its length.
        name: name of the content for messages.
        lenient: also accept NaN, infinities and unpaired surrogates, which Python's own JSON writer can produce.
        max_values: maximum number of values, counted by the punctuation between them.

    Raises:
        MetadataError: the content is not JSON within these bounds.
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
    """Parse the JSON value that begins at `start` in a longer text, within the bounds of a lenient `parse_json`.

    Returns:
        the value, and the position after it.

    Raises:
        JSONDecodeError: the value is not JSON, or the text ends before the value does.
        MetadataError: the value exceeds the bounds.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
        if sum(text.count(mark, start, end) for mark in ",[{") > MAX_VALUES:
            raise ValueError(f"contains more than {MAX_VALUES:,} values")  # noqa: TRY301 - handled like the others
        if _is_deep(value):
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")  # noqa: TRY301 - handled like the others
    except RecursionError as error:
        raise _bad(name, f"is nested deeper than {MAX_DEPTH} levels") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise _bad(name, str(error)) from error
    return value, end


def _parsed(text: str, lenient: bool, max_values: int) -> Any:
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark, which other libraries refuse")
    if sum(text.count(mark) for mark in ",[{") > max_values:
        raise ValueError(f"contains more than {max_values:,} values")
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
        raise ValueError(f"contains the number {text[:40]}, which is not finite")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"contains an integer of {len(text)} digits, but at most {_MAX_DIGITS} are allowed")
    return int(text)


_DECODER = json.JSONDecoder(parse_int=_integer)


def _is_deep(value: object) -> bool:
    """Return whether a value has more than `MAX_DEPTH` levels. The check goes level by level, without recursion."""
    level: list[dict[str, object] | list[object]] = [[value]]  # json never creates subclasses of dict and list
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
    """Return whether a value is a JSON number. Booleans, which are integers in Python, are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def file_name(name: object, where: str) -> str:
    """Check a name in a metadata file that refers to a file in the same folder, and return it.

    Args:
        name: the name in the metadata file.
        where: the metadata file, for messages.

    Raises:
        MetadataError: `name` is not the plain name of an entry of the folder.
    """
    if not isinstance(name, str) or "/" in name:
        raise _bad(where, f"refers to {name!r:.80}, which is not the name of a file in the same folder")
    return relative_name(name, where)


def relative_name(name: object, where: str) -> str:
    """Check a name in a metadata file that refers to a file in its folder or below, and return it.

    Args:
        name: the name in the metadata file, with "/" between folders.
        where: the metadata file, for messages.

    Raises:
        MetadataError: `name` leads out of the folder (``..``, an absolute path, a drive), or is not a valid file name.
    """
    if not isinstance(name, str) or not name:
        raise _bad(where, f"refers to {name!r:.80}, which is not the name of a file")
    try:
        long = any(len(part.encode()) > 255 for part in name.split("/")) or len(name) > 1024
    except UnicodeEncodeError as error:
        raise _bad(where, f"refers to {name!r:.80}, which is not UTF-8 text") from error
    if long or _UNSAFE.search(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise _bad(where, f"refers to {name!r:.80}, which is not a valid name of a file inside the folder")
    return name


def path_inside(directory: Path, name: object, where: str) -> Path:
    """Return the path of a file that a metadata file refers to. The file may be missing.

    Raises:
        MetadataError: as for `relative_name`, or a symbolic link on the path leads out of the folder.
    """
    path = directory / relative_name(name, where)
    if not leads_inside(path, directory):
        raise _bad(where, f"refers to {name!r:.80}, a link that leads out of the folder. Replace the link by a copy")
    return path


def leads_inside(path: Path, directory: Path) -> bool:
    """Return whether a path, with all links followed, is in a folder or in its repository's blobs in the hub cache."""
    try:
        target, root = path.resolve(), directory.resolve()
    except (OSError, RuntimeError):  # a link to itself, which Python < 3.13 calls a RuntimeError
        return False
    # https://huggingface.co/docs/huggingface_hub/guides/manage-cache: snapshots/<revision>/<name> -> blobs/<hash>.
    blobs: Iterable[Path] = [part.parent / "blobs" for part in root.parents if part.name == "snapshots"]
    return target.is_relative_to(root) or any(target.parent == folder for folder in blobs)


def json_bytes(content: object) -> bytes:
    """Return indented JSON, as this library writes it to files."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # An unpaired surrogate (half of an emoji, cut at a token limit) has no UTF-8 form, so it becomes a JSON escape.
    return text.encode("utf-8", "backslashreplace")


def _bad(name: str, problem: str) -> MetadataError:
    return MetadataError(f"{name} {problem}")
