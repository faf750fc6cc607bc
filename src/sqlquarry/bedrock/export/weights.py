"""What the safetensors files of a checkpoint hold, and which of them a server reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlquarry.checkpoints.safetensors_header import ONE_SHARD, Tensor

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}  # safetensors' name -> torch's name
# Tensors that bitsandbytes, GPTQ, AWQ, HQQ and FP8 checkpoints hold next to weights or instead of them.
QUANTIZED = re.compile(
    r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.[\w.]+|SCB|qweight|qzeros|g_idx|scales|"
    r"weight_scale|weight_scale_inv|input_scale|weight_packed|weight_format|W_q)$"
)
# The formats that 4.51.3 loads into PyTorch; it refuses others, and metadata without a format (modeling_utils.py).
READABLE_FORMATS = ("pt", "mlx")


@dataclass(frozen=True, slots=True)
class CheckpointWeights:
    """The safetensors files of a checkpoint.

    Args:
        shards: file -> its tensors.
        sizes: file -> bytes.
        index: tensor -> file; None for a checkpoint without an index.
        formats: file -> what its metadata says made it (see `Header`).
        has_metadata: whether the index, if there is one, has an object called metadata.
    """

    shards: Mapping[str, Mapping[str, Tensor]]
    sizes: Mapping[str, int]
    index: Mapping[str, str] | None
    formats: Mapping[str, str] = field(default_factory=dict)
    has_metadata: bool = True

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The shards that a server reads, and whose metadata do not say that PyTorch can read them."""
        return tuple(sorted(shard for shard in self.loaded if self.formats.get(shard, "pt") not in READABLE_FORMATS))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a server reads, by name."""
        return {name: tensor for shard in self.loaded.values() for name, tensor in shard.items()}

    @property
    def loaded(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The shards that a server reads: those that the index names; without one `ONE_SHARD`, or else all."""
        if self.index is None and ONE_SHARD not in self.shards:
            return self.shards
        named = {ONE_SHARD} if self.index is None else set(self.index.values())
        return {shard: tensors for shard, tensors in self.shards.items() if shard in named}


def is_full(weights: CheckpointWeights) -> bool:
    """Return whether no tensor belongs to quantised weights: all are floats that the service reads."""
    return all(tensor.dtype in DTYPES and not QUANTIZED.search(name) for name, tensor in weights.tensors.items())
