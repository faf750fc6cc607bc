"""Read safetensors files by their headers, so that only the rows in use are in memory.

A file has 8 bytes with the length of the header (little-endian), the header in JSON, and then the tensors' bytes
without gaps (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.checkpoints.safetensors_header import parse_header
from sqlquarry.errors import MergeError, MetadataError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.merging.storage.local import LocalDirectory
from sqlquarry.merging.storage.protocols import StoredFile

if TYPE_CHECKING:
    import torch

# Safetensors' name -> torch's name and bytes per element, for the dtypes that can be merged.
FLOATS = {"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in its file. Its data are `nbytes` bytes from byte `offset` of `file`."""

    file: StoredFile
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def row_bytes(self) -> int:
        """Number of bytes of one row, that is, one step along the first dimension."""
        return self.nbytes // self.shape[0] if self.shape and self.shape[0] else self.nbytes

    def load(self, rows: slice | None = None) -> torch.Tensor:
        """Read the tensor, or some of its rows (steps along the first dimension), into new memory.

        Raises:
            MergeError: its dtype cannot be merged, or the file became shorter.
        """
        import torch

        if self.dtype not in FLOATS:
            raise MergeError(
                f"the dtype of {self.name} in {self.file} is {self.dtype}, but only {', '.join(FLOATS)} can be merged. "
                "Convert the model first."
            )
        shape = self.shape if rows is None else (rows.stop - rows.start, *self.shape[1:])
        tensor = torch.empty(shape, dtype=getattr(torch, FLOATS[self.dtype][0]))
        self.read_into(0 if rows is None else rows.start * self.row_bytes, tensor_bytes(tensor))
        return tensor

    def read_into(self, start: int, view: memoryview) -> None:
        """Fill `view` with the tensor's bytes, beginning at byte `start`.

        Raises:
            MergeError: the file became shorter.
        """
        if self.file.read_into(self.offset + start, view) != len(view):
            raise MergeError(
                f"{self.file} became shorter while {self.name} was being read. Restore the file and merge again."
            )


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file: its unchanged leading bytes, and its tensors in file order."""

    file: StoredFile
    header: bytes
    metadata: Mapping[str, str]
    tensors: tuple[StoredTensor, ...]

    @classmethod
    def open(cls, file: Path | StoredFile) -> TensorFile:
        """Read and check the header, but no tensors.

        Raises:
            MergeError: there is no such file, or its header does not match its size.
        """
        if isinstance(file, Path):
            file = LocalDirectory(file.parent).file(file.name)
        stored = file

        def read(start: int, length: int) -> bytes:
            content = bytearray(length)
            return bytes(content[: stored.read_into(start, memoryview(content))])

        try:
            header = parse_header(file.name, file.size, read)
        except MetadataError as error:
            raise MergeError(f"{file} cannot be read ({error}). Download or train it again.") from error
        tensors = tuple(
            StoredTensor(file, name, dtype, shape, start, end - start)
            for name, (dtype, shape, start, end) in header.tensors.items()
        )
        return cls(file, header.raw, header.metadata, tensors)


def encode_header(tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str]) -> bytes:
    """Return the leading bytes of a file with these tensors in this order, padded to 8 bytes as the format requires.

    Args:
        tensors: name -> dtype (safetensors' name), shape, number of bytes.
        metadata: the header's ``__metadata__``.
    """
    fields: JsonObject = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape, nbytes) in tensors.items():
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous tensor as bytes, without copying."""
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def row_blocks(tensor: StoredTensor, nbytes: int, step: int) -> list[slice]:
    """Divide a tensor's rows into blocks of about `nbytes` that begin at multiples of `step`.

    A block of a few rows would be multiplied by a different routine and could differ in the last bit. Therefore the
    last block also takes the remaining rows.
    """
    rows = tensor.shape[0] if tensor.shape else 1
    if len(tensor.shape) < 2:
        return [slice(0, rows)]
    if len(tensor.shape) > 2:  # experts, one after another
        step = 1
    height = max(step, nbytes // max(1, tensor.row_bytes) // step * step)
    starts = range(0, max(1, rows - height + 1), height)
    return [slice(start, start + height if start != starts[-1] else rows) for start in starts]
