"""Divide weights into safetensors shards of a maximum size by copying byte ranges, without decoding weights."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.bedrock.export.weights import CheckpointWeights
from sqlquarry.checkpoints.safetensors_header import INDEX, Tensor
from sqlquarry.errors import BedrockError
from sqlquarry.files.metadata import read_object
from sqlquarry.files.writing import write_json

SHARD_BYTES = 5 * 10**9  # the default of transformers 4, "5GB"
_BLOCK_BYTES = 16 * 2**20
_REPLACED = "replaced_files"  # key in the index's metadata: files that a killed run may not have removed yet


@dataclass(frozen=True, slots=True)
class ReshardPlan:
    """A new division of weights into shards.

    Args:
        shards: new file -> its tensors, each with its current file.
        replaced: the files that the new ones replace.
    """

    shards: Mapping[str, Mapping[str, tuple[str, Tensor]]]
    replaced: tuple[str, ...]


def plan_shards(weights: CheckpointWeights, max_bytes: int = SHARD_BYTES) -> ReshardPlan | None:
    """Plan new shards, or return None if all shards can be read and only shards with one tensor are too large.

    Tensors keep their order. A tensor larger than `max_bytes` gets its own shard.
    """
    loaded = weights.loaded
    too_large = any(weights.sizes[shard] > max_bytes and len(tensors) > 1 for shard, tensors in loaded.items())
    if not too_large and not weights.unreadable:
        return None
    groups: list[dict[str, tuple[str, Tensor]]] = [{}]
    filled = 0
    for shard, tensors in sorted(loaded.items()):
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
            size = tensor.end - tensor.start + _header_bytes(name, tensor)
            if groups[-1] and filled + size > max_bytes:
                groups.append({})
                filled = 0
            groups[-1][name] = (shard, tensor)
            filled += size
    # Use only new names, because the old files are the model until the index is replaced.
    prefix = next(s for s in ("model", "resharded") if not loaded.keys() & _names(s, len(groups)).keys())
    return ReshardPlan(dict(zip(_names(prefix, len(groups)), groups, strict=True)), tuple(sorted(loaded)))


def _names(prefix: str, count: int) -> dict[str, None]:
    return dict.fromkeys(f"{prefix}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1))


def _header_bytes(name: str, tensor: Tensor) -> int:
    return len(json.dumps({name: [tensor.dtype, tensor.shape, tensor.start, tensor.end]})) + 64


def write_shards(plan: ReshardPlan, source: Path, target: Path) -> None:
    """Write new shards and their index into `target`, which may be `source`, then remove the replaced files there.

    Each file is written atomically, and the index last. If the process is killed at any point, either the old files or
    the new files are a complete model.

    Raises:
        BedrockError: there is not enough space.
    """
    tensors = {name: place for shard in plan.shards.values() for name, place in shard.items()}
    needed = sum(tensor.end - tensor.start for _, tensor in tensors.values())
    if (free := shutil.disk_usage(target).free) < needed:
        raise BedrockError(
            f"resharding in {target} needs {needed / 1e9:.1f} GB in addition to the old files, but only "
            f"{free / 1e9:.1f} GB are free. Free some space, or pass another directory to repair(…, output_dir=…)."
        )
    for name, content in plan.shards.items():
        _write_shard(target / name, content, source)
    replaced = list(plan.replaced) if source == target else []
    total = sum(tensor.end - tensor.start for _, tensor in tensors.values())
    weight_map = {tensor: name for name, shard in sorted(plan.shards.items()) for tensor in sorted(shard)}
    write_json(target / INDEX, {"metadata": {"total_size": total, _REPLACED: replaced}, "weight_map": weight_map})
    for name in replaced:
        (target / name).unlink(missing_ok=True)


def replaced_leftovers(directory: Path, weights: CheckpointWeights) -> list[str]:
    """Return the files that a killed `write_shards` has not removed."""
    if weights.index is None:
        return []
    metadata = read_object(directory / INDEX).get("metadata")
    names = metadata.get(_REPLACED) if isinstance(metadata, dict) else None
    replaced = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return [name for name in replaced if name in weights.shards and name not in weights.index.values()]


def write_index(weights: CheckpointWeights, directory: Path) -> None:
    """Write the index for shards that have none."""
    weight_map = {name: shard for shard, tensors in sorted(weights.shards.items()) for name in sorted(tensors)}
    total = sum(tensor.end - tensor.start for tensor in weights.tensors.values())
    write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_shard(path: Path, content: Mapping[str, tuple[str, Tensor]], source: Path) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (_, tensor) in content.items():
        start, end = end, end + tensor.end - tensor.start
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format requires that the weights begin at a multiple of 8 bytes
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for shard, tensor in content.values():
                with (source / shard).open("rb") as old:
                    old.seek(tensor.start)
                    remaining = tensor.end - tensor.start
                    while remaining:
                        block = old.read(min(_BLOCK_BYTES, remaining))
                        if not block:
                            raise BedrockError(f"{source / shard} became shorter while it was read. Restore it.")
                        file.write(block)
                        remaining -= len(block)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
