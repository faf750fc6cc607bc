"""How far a model's attention reaches: sliding windows, and the positions that it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Tokens that a token sees, itself included; None: all before it. Of a model whose layers differ, by kind of layer.
Windows = int | None | Mapping[str, int | None]
_BY_LAYER = ("qwen2", "qwen3")  # transformers takes one mask for each kind of layer of these
_IN_ALL_LAYERS = ("mistral", "mixtral", "qwen3_moe")


def windows_of(config: PreTrainedConfig, longest: int) -> Windows:
    """Return the sliding windows that matter to sequences of up to `longest` tokens.

    Args:
        config: the model's transformers configuration.
        longest: tokens of the longest sequence.

    Source: transformers 5.24, modeling_mistral.py, modeling_mixtral.py, modeling_qwen3_moe.py (one window for all
    layers), modeling_qwen2.py and modeling_qwen3.py (`layer_types`).
    """
    window: int | None = getattr(config, "sliding_window", None)
    if window is None or window >= longest:
        return None
    if config.model_type not in _BY_LAYER:
        # Other models, such as a Llama that was made from a Mistral, may name a window that they do not have.
        return window if config.model_type in _IN_ALL_LAYERS else None
    kinds = set(config.layer_types)
    if len(kinds) == 1:
        return window if kinds == {"sliding_attention"} else None
    return {"full_attention": None, "sliding_attention": window}


def position_limit(config: Mapping[str, object]) -> int | None:
    """Return how many positions a config.json promises, scaled rotary embeddings included; None if it does not say.

    "yarn", "linear" and "dynamic" stretch the positions by a factor, and published configurations give
    `max_position_embeddings` before or after it; the larger of both counts. "llama3" and "longrope" give it after.

    Source: transformers 5.24, modeling_rope_utils.py; Qwen2.5's model card ("Processing Long Texts").
    """
    limit = config.get("max_position_embeddings")
    if type(limit) is not int:
        return None
    rope: object = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type")) not in ("yarn", "linear", "dynamic"):
        return limit
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not isinstance(factor, int | float) or not 1 <= factor < float("inf"):
        return limit
    return max(limit, int((original if type(original) is int else limit) * factor))
