"""What safetensors files hold, read from their headers alone: names, dtypes and shapes, never the weights.

Source: the format, github.com/huggingface/safetensors#format: 8 bytes N (unsigned, little-endian), N bytes of JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

INDEX = "model.safetensors.index.json"
_LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit


class Tensor(NamedTuple):
    """One tensor's dtype (safetensors' name, such as "BF16") and shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """The safetensors files of a directory: file -> tensors, file -> bytes, and the index where there is one."""

    shards: Mapping[str, Mapping[str, Tensor]]
    sizes: Mapping[str, int]
    index: Mapping[str, str] | None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {name: tensor for shard in self.shards.values() for name, tensor in shard.items()}


def read_weights(directory: Path) -> Weights:
    """Read the headers and the index of a directory.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not safetensors, is truncated, or the index has no `weight_map`.
    """
    paths = sorted(directory.glob("*.safetensors"))
    index_path = directory / INDEX
    index = None
    if index_path.is_file():
        try:
            index = dict(json.loads(index_path.read_bytes())["weight_map"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{INDEX} has no weight_map") from error
    return Weights({p.name: read_header(p) for p in paths}, {p.name: p.stat().st_size for p in paths}, index)


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not safetensors, or its size is not what its header says.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _LARGEST_HEADER_BYTES):
                raise ValueError("the header is longer than the file")  # noqa: TRY301 - one message for every bad header
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        tensors = {name: Tensor(str(e["dtype"]), tuple(map(int, e["shape"]))) for name, e in entries.items()}
        end = 8 + length + max((int(e["data_offsets"][1]) for e in entries.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is not a safetensors file ({error})") from error
    if end != size:
        raise ValueError(f"{path.name} has {size:,} bytes, but its header describes {end:,}: the file is truncated")
    return tensors
