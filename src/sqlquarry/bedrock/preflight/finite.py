"""NaN and infinity among weights: a model that holds one answers "!!!!", and nothing fails on the way there.

A preflight looks at small tensors whole (norms, biases, where a diverged training shows) and at the beginning of the
others. `import_model` looks at every weight of a directory that has no manifest, as it must hash them anyway.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlquarry.bedrock.preflight.findings import Finding, error, listed
from sqlquarry.bedrock.preflight.source import Source
from sqlquarry.bedrock.weights import Weights
from sqlquarry.checkpoints.safetensors_header import Tensor, read_header
from sqlquarry.errors import CorruptArtifactError

_LOOKED_AT_BYTES = 16 * 2**10
_MOST_READS = 2_000  # of a local checkpoint; a model of 100,000 tensors would take minutes
MOST_REQUESTS = 4  # of one on S3
_BLOCK_BYTES = 2**20
_NAN_OR_INFINITY = "NaN or infinity"
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


def finite(source: Source, weights: Weights, *, most_reads: int = _MOST_READS) -> Iterator[Finding]:
    """Find NaN and infinity in small tensors and at the beginning of large ones.

    Args:
        source: where the shards are.
        weights: their headers.
        most_reads: reads at most; of more tensors some of each size are looked at.
    """
    tensors = sorted(
        ((shard, name, tensor) for shard, held in weights.loaded.items() for name, tensor in held.items()),
        key=lambda item: (item[2].end - item[2].start, item[1]),
    )
    # A diverged training leaves NaN in all that it changed, which may be the large ones alone.
    tensors = tensors[:: max(1, -(-len(tensors) // most_reads))]

    def bad(item: tuple[str, str, Tensor]) -> bool:
        shard, _, tensor = item
        length = min(_LOOKED_AT_BYTES, tensor.end - tensor.start)
        return holds_non_finite(tensor.dtype, source.read(shard, tensor.start, length))

    with ThreadPoolExecutor(8) as pool:
        names = [name for (_, name, _), wrong in zip(tensors, pool.map(bad, tensors), strict=True) if wrong]
    if names:
        message = f"{len(names)} tensors hold {_NAN_OR_INFINITY}"
        why = "The import succeeds, and every answer is the same character"
        yield error("non-finite", listed(names), message, why, "Train or merge again; the training had diverged")


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
                        f"{path}: {name} holds {_NAN_OR_INFINITY}, so every answer would be the same character. "
                        "Train or merge again; the training had diverged."
                    )
    return digest.hexdigest()
