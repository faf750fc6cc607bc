"""Read the names, dtypes, shapes and offsets of tensors from the headers of safetensors files.

The format (https://github.com/huggingface/safetensors#format) is 8 bytes N (unsigned, little-endian), N bytes of JSON,
then the tensors' bytes without gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from sqlquarry.errors import MetadataError
from sqlquarry.files.metadata import JsonObject, file_name, parse_json, parse_object

INDEX = "model.safetensors.index.json"
ONE_SHARD = "model.safetensors"  # the only name that transformers reads without an index
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_LENGTH_BYTES = 8
_FIRST_READ_BYTES = 256 * 2**10  # more than the header of nearly every shard, so that one request is enough
_MAX_DIMENSIONS = 64  # torch's limit
# Bits per element of every dtype of safetensors 0.6.
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
_BITS |= {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32}
_BITS |= {"F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64}


class Tensor(NamedTuple):
    """One tensor: its dtype by safetensors' name (such as "BF16"), its shape, and where its bytes start and end."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """The content of a header.

    Args:
        raw: the leading bytes of the file, unchanged.
        metadata: the ``__metadata__`` of the file.
        tensors: the tensors by name, in file order.
        format: the format in the metadata, such as "pt" for PyTorch. It is "pt" if the file has no metadata, and "" if
            the metadata has no format.
    """

    raw: bytes
    metadata: Mapping[str, str]
    tensors: dict[str, Tensor]
    format: str = "pt"


def read_header(path: Path) -> Header:
    """Read the header of a local file.

    Raises:
        OSError: the file cannot be read.
        MetadataError: as for `parse_header`.
    """

    def read(start: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    if not path.is_file():  # reading from a pipe would never end
        raise FileNotFoundError(f"{path} is not a file")
    return parse_header(path.name, path.stat().st_size, read)


def parse_header(name: str, size: int, read: Callable[[int, int], bytes]) -> Header:
    """Parse a header and check it against the size of the file. This takes one read, or two if the header is long.

    Args:
        name: name of the file, for messages.
        size: size of the file in bytes.
        read: returns `length` bytes from byte `start` on.

    Raises:
        MetadataError: the file is not safetensors, its tensors overlap or leave gaps, or its size does not match its
            header.
    """
    head = read(0, min(size, _FIRST_READ_BYTES))
    first = _LENGTH_BYTES + int.from_bytes(head[:_LENGTH_BYTES], "little")
    if len(head) < _LENGTH_BYTES:
        raise MetadataError(f"{name} is not a safetensors file: it has only {size} bytes")
    if first > min(size, _LENGTH_BYTES + MAX_HEADER_BYTES):
        raise MetadataError(
            f"{name} is truncated: its header of {first - _LENGTH_BYTES:,} bytes is longer than the file"
        )
    if len(head) < first:
        head += read(len(head), first - len(head))
    try:
        entries = parse_json(head[_LENGTH_BYTES:first], "its header")
        has_metadata = "__metadata__" in entries
        metadata = _text_map(entries.pop("__metadata__", {}))
        found = [(tensor, _tensor(tensor, entry, first)) for tensor, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MetadataError(f"{name} is not a safetensors file ({type(error).__name__}: {error})") from error
    found.sort(key=lambda item: item[1][2:])
    end = first
    for tensor, (dtype, shape, start, stop) in found:
        if start != end:
            raise MetadataError(
                f"{name} is damaged: {tensor} ({dtype} {list(shape)}) is at bytes {start:,} to {stop:,}, but it should "
                f"begin at byte {end:,}"
            )
        end = stop
    if end != size:
        state = "truncated" if size < end else "longer than its header says"
        raise MetadataError(f"{name} is {state}: it has {size:,} bytes, but its header requires {end:,}")
    return Header(head[:first], metadata, dict(found), metadata.get("format", "") if has_metadata else "pt")


def _tensor(name: str, entry: JsonObject, first: int) -> Tensor:
    dtype, shape = entry["dtype"], entry["shape"]
    start, end = entry["data_offsets"]
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"{name:.200} has {len(shape)} dimensions")
    bits = _BITS[dtype]
    for size in shape:
        if type(size) is not int or size < 0:
            raise ValueError(f"{name:.200} has the size {size!r:.40}")
        bits *= size
    if type(start) is not int or type(end) is not int or start < 0 or (end - start) * 8 != bits:
        raise ValueError(f"{name:.200} of {dtype} {shape!r:.80} cannot be at bytes {start!r:.40} to {end!r:.40}")
    return Tensor(dtype, tuple(shape), first + start, first + end)


def _text_map(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("its __metadata__ does not map names to texts")
    return value


def parse_index(content: bytes, name: str = INDEX) -> dict[str, str]:
    """Return tensor name -> name of its shard, from the content of an index.

    Raises:
        MetadataError: the index has no weight_map, or a shard is not the plain name of a file in the same folder.
    """
    weight_map = parse_object(content, name).get("weight_map")
    if not isinstance(weight_map, dict):
        raise MetadataError(f"{name} has no weight_map")
    for shard in {shard if isinstance(shard, str) else repr(shard) + "/" for shard in weight_map.values()}:
        file_name(shard, name)
    return weight_map
