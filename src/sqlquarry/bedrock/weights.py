"""What safetensors files hold, read from their headers alone: names, dtypes and shapes, never the weights.

Source: the format, github.com/huggingface/safetensors#format: 8 bytes N (unsigned, little-endian), N bytes of JSON,
then the tensors' bytes without holes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

INDEX = "model.safetensors.index.json"
ONE_SHARD = "model.safetensors"  # the only name that transformers reads without an index
_LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_FIRST_READ_BYTES = 256 * 2**10  # holds the whole header of nearly every shard, so that one request is enough
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
_BYTES |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}


class Tensor(NamedTuple):
    """One tensor: dtype (safetensors' name, as "BF16"), shape, and where in the file it begins and ends (bytes)."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Weights:
    """The safetensors files of a checkpoint: file -> tensors, file -> bytes, and the index where there is one."""

    shards: Mapping[str, Mapping[str, Tensor]]
    sizes: Mapping[str, int]
    index: Mapping[str, str] | None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {name: tensor for shard in self.shards.values() for name, tensor in shard.items()}

    @property
    def loaded(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The shards that a server reads: those that the index names; without one `ONE_SHARD`, or else all."""
        if self.index is None and ONE_SHARD not in self.shards:
            return self.shards
        named = {ONE_SHARD} if self.index is None else set(self.index.values())
        return {shard: tensors for shard, tensors in self.shards.items() if shard in named}


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a local safetensors file; raises as `parse_shard`, and OSError."""

    def read(start: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    return parse_shard(path.name, path.stat().st_size, read)


def parse_shard(name: str, size: int, read: Callable[[int, int], bytes]) -> dict[str, Tensor]:
    """The tensors of one safetensors file, in one read, or two where the header is unusually long.

    Args:
        name: the file, for messages.
        size: its length in bytes.
        read: gives `length` bytes from byte `start` on.

    Raises:
        ValueError: it is not safetensors, its tensors leave holes or overlap, or its size is not what its header says.
    """
    head = read(0, min(size, _FIRST_READ_BYTES))
    try:
        (length,) = struct.unpack("<Q", head[:8])
        if length > min(size - 8, _LARGEST_HEADER_BYTES):
            raise ValueError("the header is longer than the file")  # noqa: TRY301 - one message for every bad header
        if len(head) < 8 + length:
            head += read(len(head), 8 + length - len(head))
        entries = json.loads(head[8 : 8 + length])
        entries.pop("__metadata__", None)
        first = 8 + length
        tensors = {
            tensor: Tensor(
                str(entry["dtype"]),
                tuple(map(int, entry["shape"])),
                first + int(entry["data_offsets"][0]),
                first + int(entry["data_offsets"][1]),
            )
            for tensor, entry in entries.items()
        }
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is not a safetensors file ({error})") from error
    end = first
    for tensor, (dtype, shape, start, stop) in sorted(tensors.items(), key=lambda item: item[1][2:]):
        width = _BYTES.get(dtype)
        if start != end or (width is not None and stop - start != math.prod(shape) * width):
            raise ValueError(
                f"{name} is damaged: {tensor} ({dtype} {list(shape)}) lies at bytes {start:,} to {stop:,}, where "
                f"{end:,} is the next free one"
            )
        end = stop
    if end != size:
        state = "truncated" if size < end else "longer than its header says"
        raise ValueError(f"{name} has {size:,} bytes, but its header describes {end:,}: the file is {state}")
    return tensors


def parse_index(content: bytes) -> dict[str, str]:
    """Tensor -> shard, from the content of `INDEX`.

    Raises:
        ValueError: there is no such map in it.
    """
    try:
        weight_map = json.loads(content)["weight_map"]
        return {str(tensor): str(shard) for tensor, shard in weight_map.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{INDEX} has no weight_map") from error
