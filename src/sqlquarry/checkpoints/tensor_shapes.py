"""Derive from config.json the tensors of a decoder of the Llama family.

Source: transformers 4.51.3 (models/{llama,mistral,mixtral,qwen2,qwen3,qwen3_moe}/modeling_*.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]

# Default of num_key_value_heads (configuration_*.py). None means the number of attention heads.
_DEFAULT_KV_HEADS = {
    "LlamaForCausalLM": None,
    "MistralForCausalLM": 8,
    "MixtralForCausalLM": 8,
    "Qwen2ForCausalLM": 32,
    "Qwen3ForCausalLM": 32,
    "Qwen3MoeForCausalLM": 4,
}


DECODERS = tuple(_DEFAULT_KV_HEADS)


def expected_tensors(architecture: str | None, config: Mapping[str, Any]) -> Shapes | None:
    """Return name -> shape of every weight, or None for other architectures. A tied output head is left out.

    Raises:
        KeyError, TypeError, ValueError, ZeroDivisionError: a size in config.json is missing or impossible.
    """
    if architecture not in _DEFAULT_KV_HEADS:
        return None
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        shapes |= _attention(f"{prefix}self_attn.", architecture, config)
        shapes |= _mlp(prefix, layer, architecture, config)
    return shapes


def _attention(prefix: str, architecture: str, config: Mapping[str, Any]) -> Shapes:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", _DEFAULT_KV_HEADS[architecture]) or heads  # null means `heads`
    # The head size of dense Qwen3 does not follow from its other sizes.
    default = 128 if architecture == "Qwen3ForCausalLM" else hidden // heads
    head = config.get("head_dim") or default
    outputs = {"q_proj": heads * head, "k_proj": kv_heads * head, "v_proj": kv_heads * head}
    shapes: Shapes = {f"{prefix}{name}.weight": (rows, hidden) for name, rows in outputs.items()}
    shapes[f"{prefix}o_proj.weight"] = (hidden, heads * head)
    if architecture == "Qwen2ForCausalLM" or config.get("attention_bias"):
        shapes |= {f"{prefix}{name}.bias": (rows,) for name, rows in outputs.items()}
    if architecture != "Qwen2ForCausalLM" and config.get("attention_bias"):
        shapes[f"{prefix}o_proj.bias"] = (hidden,)
    if architecture.startswith("Qwen3"):
        shapes |= {f"{prefix}{name}.weight": (head,) for name in ("q_norm", "k_norm")}
    return shapes


def _mlp(prefix: str, layer: int, architecture: str, config: Mapping[str, Any]) -> Shapes:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    if architecture == "MixtralForCausalLM":
        moe, experts = f"{prefix}block_sparse_moe.", config["num_local_experts"]
        return {f"{moe}gate.weight": (experts, hidden)} | {
            f"{moe}experts.{expert}.{name}.weight": shape
            for expert in range(experts)
            for name, shape in (("w1", (inner, hidden)), ("w2", (hidden, inner)), ("w3", (inner, hidden)))
        }
    if architecture == "Qwen3MoeForCausalLM" and _is_sparse(layer, config):
        experts, width = _qwen3_experts(config), config["moe_intermediate_size"]
        shapes: Shapes = {f"{prefix}mlp.gate.weight": (experts, hidden)}
        for expert in range(experts):
            shapes |= _projections(f"{prefix}mlp.experts.{expert}.", hidden, width)
        return shapes
    shapes = _projections(f"{prefix}mlp.", hidden, inner)
    if config.get("mlp_bias"):
        shapes |= {f"{prefix}mlp.{name}.bias": (inner,) for name in ("gate_proj", "up_proj")}
        shapes[f"{prefix}mlp.down_proj.bias"] = (hidden,)
    return shapes


def _is_sparse(layer: int, config: Mapping[str, Any]) -> bool:
    return (
        layer not in (config.get("mlp_only_layers") or ())
        and _qwen3_experts(config) > 0
        and (layer + 1) % config.get("decoder_sparse_step", 1) == 0
    )


def _qwen3_experts(config: Mapping[str, Any]) -> int:
    """Return the number of experts in a layer. transformers 5 saves it as `num_local_experts`."""
    return int(config["num_experts"] if "num_experts" in config else config["num_local_experts"])


def _projections(prefix: str, hidden: int, inner: int) -> Shapes:
    return {
        f"{prefix}gate_proj.weight": (inner, hidden),
        f"{prefix}up_proj.weight": (inner, hidden),
        f"{prefix}down_proj.weight": (hidden, inner),
    }
