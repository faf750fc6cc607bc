"""Write small checkpoints and adapters that have a few named tensors but are not real models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sqlquarry import AdapterCheckpoint, PromptFormatter
from sqlquarry.manifests import base_digest, write_manifest
from sqlquarry.quantization import QuantizationRecipe

Q = "model.layers.0.self_attn.q_proj"
UP = "model.layers.0.mlp.up_proj"


def base_tensors() -> dict[str, torch.Tensor]:
    seed = torch.Generator().manual_seed(0)
    shapes = {
        "lm_head.weight": (50, 64),
        f"{UP}.weight": (96, 64),
        f"{Q}.weight": (64, 64),
        "model.embed_tokens.weight": (50, 64),
        "model.norm.weight": (64,),
    }
    return {name: torch.randn(shape, generator=seed).to(torch.bfloat16) for name, shape in shapes.items()}


def write_base(directory: Path, *shards: dict[str, torch.Tensor], config: dict[str, Any] | None = None) -> Path:
    """Write a base with one file for each shard, and an index for several. The default is one with `base_tensors()`."""
    directory.mkdir(parents=True)
    shards = shards or (base_tensors(),)
    (directory / "config.json").write_text(json.dumps({"tie_word_embeddings": False} | (config or {})))
    (directory / "tokenizer.json").write_text("{}")
    (directory / "LICENSE.txt").write_text("the base's licence")
    (directory / "pytorch_model.bin").write_bytes(b"not carried over")
    if len(shards) == 1:
        save_file(shards[0], directory / "model.safetensors", {"format": "pt"})
        return directory
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / name, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def lora_tensors(rank: int = 4, scale: float = 0.1, seed: int = 1) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = {Q: (64, 64), UP: (96, 64)}
    tensors = {}
    for module, (out, width) in shapes.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, width, generator=random)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out, rank, generator=random) * scale
    return tensors


def write_adapter(
    directory: Path,
    base: Path,
    tensors: dict[str, torch.Tensor] | None = None,
    *,
    recipe: QuantizationRecipe | None = None,
    **config: Any,
) -> AdapterCheckpoint:
    directory.mkdir(parents=True)
    content = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": True} | config
    (directory / "adapter_config.json").write_text(json.dumps(content))
    save_file(lora_tensors() if tensors is None else tensors, directory / "adapter_model.safetensors")
    PromptFormatter().save(directory)
    provenance = {
        "base_model": {"name": "some/base", "path": str(base), "sha256": base_digest(base)},
        "prompt_fingerprint": PromptFormatter().fingerprint,
        "quantization": dataclasses.asdict(recipe) if recipe else None,
        "data_sha256": "0" * 64,
        "config": {},
        "versions": {},
    }
    write_manifest(directory, AdapterCheckpoint.kind, provenance)
    return AdapterCheckpoint.load(directory)
