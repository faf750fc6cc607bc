"""NaN and infinity in the weights of an export, found in the same pass that hashes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlquarry.checkpoints.safetensors_header import read_header
from sqlquarry.errors import CorruptArtifactError

NAN_OR_INFINITY = "NaN or infinity"
_BLOCK_BYTES = 2**20
# Bytes of a number; the places of the bytes with its exponent, and their bits of it. All bits set: NaN or infinity.
_EXPONENTS = {"BF16": (2, ((1, 0x7F), (0, 0x80))), "F16": (2, ((1, 0x7C),)), "F32": (4, ((3, 0x7F), (2, 0x80)))}


def holds_non_finite(dtype: str, content: bytes) -> bool:
    """Say whether numbers in little-endian order, such as a part of a tensor, hold NaN or infinity.

    Args:
        dtype: safetensors' name; False for any other than BF16, F16 and F32.
        content: whole numbers.
    """
    if dtype not in _EXPONENTS:
        return False
    width, ((first, bits), *others) = _EXPONENTS[dtype]
    # Slicing and searching run in C; what follows is only for bytes that hardly any finite number has.
    high = content[first::width]
    suspects = {value for value in range(256) if value & bits == bits}
    if not others:
        return len(high.translate(None, bytes(suspects))) != len(high)
    place, rest = others[0]
    low = content[place::width]
    for value in suspects:
        found = high.find(value)
        while found >= 0:
            if low[found] & rest == rest:
                return True
            found = high.find(value, found + 1)
    return False


def sha256_of_finite(path: Path) -> str:
    """Return the SHA-256 (hex) of a safetensors file, in the same pass over it that looks at every weight.

    Raises:
        CorruptArtifactError: a weight is NaN or infinite.
    """
    header = read_header(path)
    digest = hashlib.sha256(header.raw)
    with path.open("rb") as file:
        file.seek(len(header.raw))
        for name, tensor in header.tensors.items():
            remaining = tensor.end - tensor.start
            while block := file.read(min(_BLOCK_BYTES, remaining)):
                digest.update(block)
                remaining -= len(block)
                if holds_non_finite(tensor.dtype, block):
                    raise CorruptArtifactError(
                        f"{path}: {name} holds {NAN_OR_INFINITY}, so every answer would be the same character. "
                        "Train or merge again; the training had diverged."
                    )
    return digest.hexdigest()
