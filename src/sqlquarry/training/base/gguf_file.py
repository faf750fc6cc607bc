"""Check a GGUF file before it is converted, and refuse counts and sizes that are too large for the file.

A file consists of magic, version, counts, key/value pairs, descriptions of the tensors, and the tensors' bytes.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import MAX_VALUES

_VERSIONS = (2, 3)  # versions that transformers supports
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_NAME_BYTES = 65_535  # maximum length of a key in the format. Names of tensors are shorter
_DEFAULT_ALIGNMENT = 32
_ELEMENTS_PER_BYTE = 8  # more than any quantization has. The densest takes 1.56 bits per weight


def check_gguf(path: Path) -> None:
    """Check a GGUF file in bounded time and memory, without reading the bytes of its tensors.

    Raises:
        UnsupportedModelError: the file is not GGUF, is cut off, or describes more data than it contains.
    """
    try:
        with path.open("rb") as file:
            _Reader(file, path.stat().st_size).check()
    except (OSError, ValueError, OverflowError, struct.error) as error:
        raise UnsupportedModelError(
            f"the GGUF file {path} cannot be converted ({error}). Download it again, or use the model's safetensors."
        ) from error


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._values = 0

    def check(self) -> None:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if (version := self._number("I")) not in _VERSIONS:
            raise ValueError(f"its version is {version}, but only {_VERSIONS} are supported")
        count, pairs = self._number("Q"), self._number("Q")
        fields: dict[str, int | str | None] = {}
        for _ in range(self._counted(pairs)):
            key = self._text(_MAX_NAME_BYTES)
            if key in fields:
                raise ValueError(f"the key {key[:80]!r} occurs twice")
            fields[key] = self._value(self._number("I"))
        tensors = dict(self._tensor() for _ in range(self._counted(count)))
        if len(tensors) < count:
            raise ValueError("the name of a tensor occurs twice")
        self._check_offsets(tensors, fields)
        _check_sizes(fields, sum(math.prod(shape) for shape, _ in tensors.values()))

    def _check_offsets(
        self, tensors: dict[str, tuple[tuple[int, ...], int]], fields: dict[str, int | str | None]
    ) -> None:
        alignment = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 1 <= alignment <= 2**16 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment is {alignment!r:.80}, but must be a power of two")
        room = self._size - -(-self._file.tell() // alignment) * alignment
        for name, (shape, offset) in tensors.items():
            if math.prod(shape) > (room - offset) * _ELEMENTS_PER_BYTE:
                raise ValueError(f"the tensor {name[:80]!r} of shape {list(shape)} is too large for the file")

    def _tensor(self) -> tuple[str, tuple[tuple[int, ...], int]]:
        name = self._text(_MAX_NAME_BYTES)
        dimensions = self._number("I")
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"the tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        self._number("I")  # the type, which only the converter needs
        return name, (shape, self._number("Q"))

    def _value(self, kind: int) -> int | str | None:
        """Return a value, or None if it is an array."""
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _TEXT:
            return self._text(self._size)
        if kind != _ARRAY:
            raise ValueError(f"a value has the unknown type {kind}")
        kind, count = self._number("I"), self._counted(self._number("Q"))
        if kind in _NUMBERS:
            self._bytes(count * struct.calcsize(_NUMBERS[kind]))
        elif kind == _TEXT:
            for _ in range(count):
                self._bytes(self._number("Q"))
        else:
            raise ValueError(f"an array contains the type {kind}, which the converter cannot read")
        return None

    def _counted(self, count: int) -> int:
        # Each value takes at least one byte, and about a microsecond here and in the converter.
        self._values += count
        if count > self._size or self._values > MAX_VALUES:
            raise ValueError(f"it describes {count:,} values in {self._size:,} bytes")
        return count

    def _text(self, longest: int) -> str:
        if (length := self._number("Q")) > longest:
            raise ValueError(f"a text has {length:,} bytes")
        return self._bytes(length).decode()

    def _number(self, form: str) -> int:
        return int(struct.unpack(f"<{form}", self._bytes(struct.calcsize(form)))[0])

    def _bytes(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise ValueError("it ends too early")
        return self._file.read(count)


def _check_sizes(fields: dict[str, int | str | None], weights: int) -> None:
    """Refuse sizes for which the converter would create more weights than the file contains."""
    family = next((key.partition(".")[0] for key in fields if key.endswith(".block_count")), "")
    layers, hidden, inner, heads, head, vocabulary = (
        fields.get(f"{family}.{name}")
        for name in (
            "block_count",
            "embedding_length",
            "feed_forward_length",
            "attention.head_count",
            "attention.key_length",
            "vocab_size",
        )
    )
    # An array with one size per layer is None here.
    for sizes in ((layers, hidden, inner), (layers, hidden, heads, head), (layers, hidden), (hidden, vocabulary)):
        known = [size for size in sizes if isinstance(size, int)]
        if (
            any(isinstance(size, str) for size in sizes)
            or any(size < 1 for size in known)
            or math.prod(known) > weights
        ):
            raise ValueError(f"its sizes {known} require more weights than the {weights:,} in the file")
