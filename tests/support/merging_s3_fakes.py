"""Write an adapter and a base of three shards, each of which is large enough for several parts of an upload."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from sqlquarry import AdapterCheckpoint, PromptFormatter
from sqlquarry.manifests import base_digest, write_manifest

MODULES = [f"model.layers.{number}.mlp.up_proj" for number in range(3)]
SHAPE = (300, 256)  # 154 kB in bf16


def write_base(directory: Path) -> Path:
    directory.mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    weight_map = {}
    for number, module in enumerate(MODULES, 1):
        name = f"model-{number:05d}-of-{len(MODULES):05d}.safetensors"
        tensors = {
            f"{module}.weight": torch.randn(SHAPE, generator=random).to(torch.bfloat16),
            f"model.layers.{number - 1}.norm.weight": torch.randn(256, generator=random).to(torch.bfloat16),
        }
        save_file(tensors, directory / name, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    (directory / "config.json").write_text('{"tie_word_embeddings": false, "torch_dtype": "bfloat16"}')
    (directory / "tokenizer.json").write_text("{}")
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def write_adapter(directory: Path, base: Path) -> AdapterCheckpoint:
    directory.mkdir(parents=True)
    random = torch.Generator().manual_seed(1)
    tensors = {}
    for module in MODULES:
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(4, SHAPE[1], generator=random)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(SHAPE[0], 4, generator=random) * 0.1
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": True}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    PromptFormatter().save(directory)
    provenance = {
        "base_model": {"name": "some/base", "path": str(base), "sha256": base_digest(base)},
        "prompt_fingerprint": PromptFormatter().fingerprint,
        "quantization": None,
    }
    return AdapterCheckpoint(directory, write_manifest(directory, AdapterCheckpoint.kind, provenance))
