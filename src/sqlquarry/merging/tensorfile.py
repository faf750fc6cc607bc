"""Safetensors files by their headers, so that no more than the tensor at hand is in memory.

Layout: 8 bytes header length (little endian), JSON header, then the tensors' bytes without holes
(https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sqlquarry.errors import MergeError

if TYPE_CHECKING:
    import torch

# Safetensors' name -> torch's name and bytes per element, for the dtypes that can be merged.
FLOATS = {"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}
_LENGTH_BYTES = 8
_COPY_BYTES = 1 << 23


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor where it lies: `nbytes` bytes at byte `offset` of the file `path`."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def load(self) -> torch.Tensor:
        """Read the tensor into memory of its own.

        Raises:
            MergeError: its dtype cannot be merged, or the file became shorter.
        """
        import torch

        if self.dtype not in FLOATS:
            raise MergeError(f"{self.name} in {self.path} is {self.dtype}; only {', '.join(FLOATS)} can be merged")
        tensor = torch.empty(self.shape, dtype=getattr(torch, FLOATS[self.dtype][0]))
        with self.path.open("rb") as file:
            file.seek(self.offset)
            if file.readinto(tensor_bytes(tensor)) != self.nbytes:
                raise MergeError(f"{self.path} became shorter while {self.name} was read. Restore it and merge again.")
        return tensor

    def copy_to(self, target: BinaryIO) -> None:
        """Append the tensor's bytes as they are.

        Raises:
            MergeError: the file became shorter.
        """
        left = self.nbytes
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while left:
                block = file.read(min(left, _COPY_BYTES))
                if not block:
                    raise MergeError(f"{self.path} became shorter while {self.name} was copied. Restore it.")
                target.write(block)
                left -= len(block)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file: its leading bytes as they are, and its tensors in file order."""

    path: Path
    header: bytes
    metadata: Mapping[str, str]
    tensors: tuple[StoredTensor, ...]

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Read and check the header; no tensor is read.

        Raises:
            MergeError: there is no such file, or header and file size do not fit together.
        """
        if not path.is_file():
            raise MergeError(f"{path} is missing. Download or train it again.")
        size = path.stat().st_size
        with path.open("rb") as file:
            length = file.read(_LENGTH_BYTES)
            start = _LENGTH_BYTES + int.from_bytes(length, "little")
            header = length + (file.read(start - _LENGTH_BYTES) if start <= size else b"")
        try:
            fields = json.loads(header[_LENGTH_BYTES:])
            metadata = fields.pop("__metadata__", {})
            tensors = sorted(
                (_stored(path, name, field, start) for name, field in fields.items()),
                key=lambda tensor: (tensor.offset, tensor.nbytes),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MergeError(
                f"{path} is cut off or no safetensors file ({error}). Download or train it again."
            ) from error
        end = start
        for tensor in tensors:
            if tensor.offset != end:
                raise MergeError(
                    f"{path}: {tensor.name} starts at byte {tensor.offset}, not {end}; the file is damaged"
                )
            end += tensor.nbytes
        if end != size:
            raise MergeError(f"{path} has {size} bytes where its header needs {end}. Download or train it again.")
        return cls(path, header, metadata, tuple(tensors))


def _stored(path: Path, name: str, field: Mapping[str, Any], start: int) -> StoredTensor:
    begin, end = field["data_offsets"]
    tensor = StoredTensor(path, name, field["dtype"], tuple(field["shape"]), start + begin, end - begin)
    if tensor.dtype in FLOATS and tensor.nbytes != math.prod(tensor.shape) * FLOATS[tensor.dtype][1]:
        raise ValueError(f"{name}: {tensor.nbytes} bytes do not hold {tensor.dtype} {list(tensor.shape)}")
    return tensor


def encode_header(tensors: Sequence[StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """The leading bytes of a file that holds `tensors` in this order, padded to 8 bytes as the format asks."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for tensor in tensors:
        fields[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor, as bytes."""
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data
