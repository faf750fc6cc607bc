"""Check weights for NaN and infinity: a model that holds one answers "!!!!", and nothing fails on the way there.

A preflight reads small tensors whole (norms, biases, where a diverged training shows) and the beginning of the others.
`import_model` reads every weight of a directory that has no manifest, because it has to hash them anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from sqlquarry.bedrock.export.non_finite import NAN_OR_INFINITY, holds_non_finite
from sqlquarry.bedrock.export.weights import CheckpointWeights
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error, listed
from sqlquarry.bedrock.preflight.source import Source
from sqlquarry.checkpoints.safetensors_header import Tensor

_LOOKED_AT_BYTES = 16 * 2**10
_MOST_READS = 2_000  # of a local checkpoint; a model of 100,000 tensors would take minutes
MOST_REQUESTS = 4  # of one on S3


def finite(source: Source, weights: CheckpointWeights, *, most_reads: int = _MOST_READS) -> Iterator[PreflightFinding]:
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
        message = f"{len(names)} tensors hold {NAN_OR_INFINITY}"
        why = "The import succeeds, and every answer is the same character"
        yield error("non-finite", listed(names), message, why, "Train or merge again; the training had diverged")
