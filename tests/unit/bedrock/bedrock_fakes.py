"""A merged model of a few kilobytes, written by hand: what the merger writes, without torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MergedModel, write_manifest
from sqlquarry.prompt import HUMAN_ASSISTANT, BoundTokens, PromptFormatter

Tensors = dict[str, tuple[str, list[int]]]
_WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "I8": 1}

# As transformers 5.24 writes a Llama-3 shape.
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "hidden_size": 4,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "rope_parameters": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": True,
    "transformers_version": "5.24.0",
    "vocab_size": 6,
}
TOKENIZER_CONFIG: dict[str, Any] = {
    "backend": "tokenizers",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "extra_special_tokens": ["<|extra|>"],
    "is_local": True,
    "model_max_length": 2048,
    "tokenizer_class": "TokenizersBackend",
}
TOKENIZER: dict[str, Any] = {
    "added_tokens": [
        {"id": 1, "content": "<s>", "special": True},
        {"id": 2, "content": "</s>", "special": True},
        {"id": 5, "content": "<|extra|>", "special": True},
    ],
    "model": {"type": "BPE", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}, "merges": []},
}
TENSORS: Tensors = {"model.embed_tokens.weight": ("BF16", [6, 4]), "model.norm.weight": ("BF16", [4])}
FORMATTER = PromptFormatter(tokens=BoundTokens(HUMAN_ASSISTANT, "<s>", "</s>", adds_bos=True, stop="</s>"))


def safetensors(tensors: Tensors) -> bytes:
    """A safetensors file of zeros."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * _WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def write_merged(
    directory: Path,
    *,
    config: dict[str, Any] | None = None,
    tokenizer_config: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    shards: dict[str, Tensors] | None = None,
    index: dict[str, str] | None = None,
    formatter: PromptFormatter = FORMATTER,
    fingerprint: str | None = None,
) -> MergedModel:
    """Write a finished directory; each argument replaces (files) or updates (config) what a good model has."""
    directory.mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {
        "config.json": CONFIG | (config or {}),
        "tokenizer_config.json": TOKENIZER_CONFIG | (tokenizer_config or {}),
        "tokenizer.json": tokenizer or TOKENIZER,
    }
    if index is not None:
        files["model.safetensors.index.json"] = {"metadata": {}, "weight_map": index}
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    for name, tensors in (shards or {"model.safetensors": TENSORS}).items():
        (directory / name).write_bytes(safetensors(tensors))
    (directory / "chat_template.jinja").write_text("another template")
    formatter.save(directory)
    provenance = {
        "base_model": {"name": "tiny"},
        "prompt_fingerprint": fingerprint or formatter.fingerprint,
    }
    write_manifest(directory, MergedModel.kind, provenance)
    return MergedModel.load(directory)
