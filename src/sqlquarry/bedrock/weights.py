"""What the safetensors files of a checkpoint hold, and which of them a server reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlquarry.safetensors_header import Tensor

ONE_SHARD = "model.safetensors"  # the only name that transformers reads without an index


@dataclass(frozen=True, slots=True)
class Weights:
    """The safetensors files of a checkpoint: file -> tensors, file -> bytes, and the index where there is one."""

    shards: Mapping[str, Mapping[str, Tensor]]
    sizes: Mapping[str, int]
    index: Mapping[str, str] | None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {name: tensor for shard in self.shards.values() for name, tensor in shard.items()}

    @property
    def loaded(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The shards that a server reads: those that the index names; without one `ONE_SHARD`, or else all."""
        if self.index is None and ONE_SHARD not in self.shards:
            return self.shards
        named = {ONE_SHARD} if self.index is None else set(self.index.values())
        return {shard: tensors for shard, tensors in self.shards.items() if shard in named}
