"""The tensors in a checkpoint's safetensors files, and which of them a server reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlquarry.checkpoints.safetensors_header import ONE_SHARD, Tensor

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}  # safetensors' name -> torch's name
# Tensors that bitsandbytes, GPTQ, AWQ, HQQ and FP8 checkpoints contain in addition to weights or instead of them.
QUANTIZED = re.compile(
    r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.[\w.]+|SCB|qweight|qzeros|g_idx|scales|"
    r"weight_scale|weight_scale_inv|input_scale|weight_packed|weight_format|W_q)$"
)
# The formats that 4.51.3 loads into PyTorch. It refuses others, and metadata without a format (modeling_utils.py).
READABLE_FORMATS = ("pt", "mlx")


@dataclass(frozen=True, slots=True)
class CheckpointWeights:
    """The safetensors files of a checkpoint.

    Args:
        shards: file -> its tensors.
        sizes: file -> bytes.
        index: tensor -> file, or None if the checkpoint has no index.
        formats: file -> the format in its metadata (see `Header`).
        has_metadata: False if the index lacks the object "metadata".
    """

    shards: Mapping[str, Mapping[str, Tensor]]
    sizes: Mapping[str, int]
    index: Mapping[str, str] | None
    formats: Mapping[str, str] = field(default_factory=dict)
    has_metadata: bool = True

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The shards that a server reads although their metadata do not name a format that PyTorch can load."""
        return tuple(sorted(shard for shard in self.loaded if self.formats.get(shard, "pt") not in READABLE_FORMATS))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a server reads, by name."""
        return {name: tensor for shard in self.loaded.values() for name, tensor in shard.items()}

    @property
    def loaded(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The shards that a server reads: those in the index, or `ONE_SHARD` without an index, or otherwise all."""
        if self.index is None and ONE_SHARD not in self.shards:
            return self.shards
        named = {ONE_SHARD} if self.index is None else set(self.index.values())
        return {shard: tensors for shard, tensors in self.shards.items() if shard in named}


def is_full(weights: CheckpointWeights) -> bool:
    """Return whether all tensors are floats that the service reads, and none belongs to quantized weights."""
    return all(tensor.dtype in DTYPES and not QUANTIZED.search(name) for name, tensor in weights.tensors.items())
