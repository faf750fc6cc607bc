"""Write a merged model of a few kilobytes in the merger's format, without torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MergedModel
from sqlquarry.manifests import write_manifest
from sqlquarry.prompt import HUMAN_ASSISTANT, BoundTokens, PromptFormatter

Tensors = dict[str, tuple[str, list[int]]]
_WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I8": 1, "U8": 1}

# The config.json that transformers 5.24 writes for a Llama 3.
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "hidden_size": 4,
    "intermediate_size": 8,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
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


def _layer(number: int) -> Tensors:
    shapes = {
        "input_layernorm": [4],
        "mlp.down_proj": [4, 8],
        "mlp.gate_proj": [8, 4],
        "mlp.up_proj": [8, 4],
        "post_attention_layernorm": [4],
        "self_attn.k_proj": [2, 4],
        "self_attn.o_proj": [4, 4],
        "self_attn.q_proj": [4, 4],
        "self_attn.v_proj": [2, 4],
    }
    return {f"model.layers.{number}.{name}.weight": ("BF16", shape) for name, shape in shapes.items()}


TENSORS: Tensors = {
    "model.embed_tokens.weight": ("BF16", [6, 4]),
    **_layer(0),
    **_layer(1),
    "model.norm.weight": ("BF16", [4]),
}
FORMATTER = PromptFormatter(tokens=BoundTokens(HUMAN_ASSISTANT, "<s>", "</s>", adds_bos=True, stop="</s>"))


# Like the templates of most chat models, this one ends every turn with EOS.
CHATML = (
    "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)


def safetensors(tensors: Tensors) -> bytes:
    """Return a safetensors file of zeros."""
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
    """Write a finished directory. Each argument replaces (files) or updates (config) the content of a good model."""
    write_checkpoint(
        directory,
        config=config,
        tokenizer_config=tokenizer_config,
        tokenizer=tokenizer,
        shards=shards,
        index=index,
        template="another template",
    )
    formatter.save(directory)
    provenance = {
        "base_model": {"name": "tiny"},
        "prompt_fingerprint": fingerprint or formatter.fingerprint,
    }
    write_manifest(directory, MergedModel.kind, provenance)
    return MergedModel.load(directory)


def write_checkpoint(
    directory: Path,
    *,
    config: dict[str, Any] | None = None,
    tokenizer_config: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    shards: dict[str, Tensors] | None = None,
    index: dict[str, str] | None = None,
    template: str | None = CHATML,
    files: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint as transformers 5 does. Each argument replaces or (config files) updates a good one's content.

    `files` are additional files. Bytes and texts are written unchanged, other values as JSON. None removes a file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {
        "config.json": CONFIG | (config or {}),
        "tokenizer_config.json": TOKENIZER_CONFIG | (tokenizer_config or {}),
        "tokenizer.json": tokenizer or TOKENIZER,
        **({"chat_template.jinja": template} if template is not None else {}),
        **({"model.safetensors.index.json": {"metadata": {}, "weight_map": index}} if index is not None else {}),
        **{name: safetensors(tensors) for name, tensors in (shards or {"model.safetensors": TENSORS}).items()},
        **(files or {}),
    }
    for name, content in contents.items():
        if content is None:
            continue
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def old_dialect() -> dict[str, Any]:
    """Return arguments of `write_checkpoint` for the same model saved by transformers 4.51.3 (nothing to rewrite)."""
    rope = {key: value for key, value in CONFIG["rope_parameters"].items() if key != "rope_theta"}
    config = {key: value for key, value in CONFIG.items() if key not in ("dtype", "rope_parameters")}
    tokenizer_config = {
        "additional_special_tokens": ["<|extra|>"],
        "bos_token": "<s>",
        "chat_template": CHATML,
        "eos_token": "</s>",
        "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {
        "template": None,
        "files": {
            "config.json": config | {"torch_dtype": "bfloat16", "rope_theta": 500000.0, "rope_scaling": rope},
            "generation_config.json": {"eos_token_id": 2},
            "special_tokens_map.json": {"eos_token": "</s>"},
            "tokenizer_config.json": tokenizer_config,
        },
    }
