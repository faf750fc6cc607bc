"""Find out how far a model's attention reaches: its sliding windows and its number of positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# The number of tokens that a token sees, including itself. None means all tokens before it. If the layers of a model
# differ, the number is given for each kind of layer.
Windows = int | None | Mapping[str, int | None]
_BY_LAYER = ("qwen2", "qwen3")  # for these, transformers uses one mask for each kind of layer
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
        # Other models, such as a Llama converted from a Mistral, may specify a window that they do not use.
        return window if config.model_type in _IN_ALL_LAYERS else None
    kinds = set(config.layer_types)
    if len(kinds) == 1:
        return window if kinds == {"sliding_attention"} else None
    return {"full_attention": None, "sliding_attention": window}


def position_limit(config: Mapping[str, object]) -> int | None:
    """Return the number of positions that config.json specifies, including scaling, or None if it specifies none.

    "yarn", "linear" and "dynamic" scale the number of positions by a factor. Some published configurations give
    `max_position_embeddings` before scaling and some after, so the larger number counts. With "llama3" and "longrope"
    it is always the number after scaling.

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
