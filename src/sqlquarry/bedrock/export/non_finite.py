"""Find NaN and infinity in the weights of an export during the pass that hashes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlquarry.checkpoints.safetensors_header import read_header
from sqlquarry.errors import CorruptArtifactError

NAN_OR_INFINITY = "NaN or infinity"
_BLOCK_BYTES = 2**20
# dtype -> (bytes per number, the (offset, mask) of each byte with exponent bits). If all these bits are set, the
# number is NaN or infinity.
_EXPONENTS = {"BF16": (2, ((1, 0x7F), (0, 0x80))), "F16": (2, ((1, 0x7C),)), "F32": (4, ((3, 0x7F), (2, 0x80)))}


def holds_non_finite(dtype: str, content: bytes) -> bool:
    """Return whether little-endian numbers, such as a part of a tensor, include NaN or infinity.

    Args:
        dtype: the safetensors dtype. The result is False for all but BF16, F16 and F32.
        content: a multiple of the number's size.
    """
    if dtype not in _EXPONENTS:
        return False
    width, ((first, bits), *others) = _EXPONENTS[dtype]
    # Slicing and searching run in C. The loop below runs only for byte values that are rare in finite numbers.
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
    """Return the SHA-256 (hex) of a safetensors file, and check every weight in the same pass.

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
                        f"{path}: tensor {name} contains {NAN_OR_INFINITY}, so every answer would be the same "
                        "character. The training has probably diverged. Train or merge again."
                    )
    return digest.hexdigest()
