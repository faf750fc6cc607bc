"""The base checkpoint that an adapter is merged into: its shards, checked before any work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import base_digest
from sqlquarry.errors import MergeError, UnsupportedModelError
from sqlquarry.merging.tensorfile import StoredTensor, TensorFile

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class BaseCheckpoint:
    """A local directory of safetensors shards with its config.json."""

    directory: Path
    config: Mapping[str, Any]
    shards: tuple[TensorFile, ...]

    @classmethod
    def open(cls, directory: Path) -> BaseCheckpoint:
        """Read config, index and headers; no tensor is read.

        Raises:
            UnsupportedModelError: the weights are quantised, or not safetensors.
            MergeError: the directory or a shard is missing or damaged.
        """
        if not directory.is_dir():
            raise MergeError(
                f"the base model is not at {directory}. Download it and pass its directory: "
                "AdapterMerger(base_model=...)."
            )
        config = _read_json(directory / "config.json")
        if config.get("quantization_config"):
            raise UnsupportedModelError(
                f"the base at {directory} is quantised itself ({config['quantization_config'].get('quant_method')}), "
                "and a merge would round the update away. Pass the full-precision checkpoint as base_model=."
            )
        weight_map: Mapping[str, str] = {}
        if (directory / INDEX).is_file():
            weight_map = _read_json(directory / INDEX)["weight_map"]
        elif not (directory / _SINGLE).is_file():
            raise UnsupportedModelError(f"{directory} holds neither {_SINGLE} nor {INDEX}. Save it as safetensors.")
        names = sorted(set(weight_map.values())) or [_SINGLE]
        shards = tuple(TensorFile.open(directory / name) for name in names)
        present = {tensor.name for shard in shards for tensor in shard.tensors}
        if missing := sorted(weight_map.keys() - present):
            raise MergeError(f"{directory / INDEX} lists {missing[0]}, which no shard holds. Download the base again.")
        return cls(directory, config, shards)

    def require_digest(self, sha256: str) -> None:
        """Hash config.json and all weights.

        Raises:
            MergeError: this is not the base that the adapter was trained on.
        """
        if (found := base_digest(self.directory)) != sha256:
            raise MergeError(
                f"the base at {self.directory} is not the one the adapter was trained on (SHA-256 {found[:12]}…, "
                f"trained on {sha256[:12]}…). Pass that one: AdapterMerger(base_model=...)."
            )

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor by name."""
        return {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}

    @property
    def tied(self) -> bool:
        """Whether the embedding is the output head too; transformers then stores no head."""
        has_head = any(name.endswith("lm_head.weight") for name in self.tensors)
        return bool(self.config.get("tie_word_embeddings")) or not has_head


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"{path} cannot be read ({error}). Download the base model again.") from error
    return content
