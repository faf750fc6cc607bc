"""Sizes of well-known base models, for planning when the hub cannot be reached.

Source: each model's config.json on the Hugging Face hub. The numbers of parameters that follow from the sizes equal
those that the hub counts in the safetensors (tests/unit/training/test_training_known_bases.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from sqlquarry.training.base.shape import ModelShape, TensorHeader


class DecoderSizes(NamedTuple):
    """Sizes of a dense decoder as in config.json. `head` is the width of one attention head."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    key_value_heads: int
    head: int
    vocabulary: int
    tied: bool = False


_LLAMA, _MISTRAL, _QWEN2, _QWEN3 = (f"{name}ForCausalLM" for name in ("Llama", "Mistral", "Qwen2", "Qwen3"))
_LLAMA_8B = DecoderSizes(4096, 14336, 32, 32, 8, 128, 128256)
_LLAMA_70B = DecoderSizes(8192, 28672, 80, 64, 8, 128, 128256)
_MISTRAL_7B = DecoderSizes(4096, 14336, 32, 32, 8, 128, 32000)
# A hub id as a pattern -> architecture and sizes.
_KNOWN: dict[str, tuple[str, DecoderSizes]] = (
    {
        r"meta-llama/(Meta-)?Llama-3(\.1)?-8B(-Instruct)?": (_LLAMA, _LLAMA_8B),
        r"meta-llama/((Meta-)?Llama-3(\.1)?-70B(-Instruct)?|Llama-3\.3-70B-Instruct)": (_LLAMA, _LLAMA_70B),
        r"meta-llama/Llama-3\.2-1B(-Instruct)?": (_LLAMA, DecoderSizes(2048, 8192, 16, 32, 8, 64, 128256, tied=True)),
        r"meta-llama/Llama-3\.2-3B(-Instruct)?": (_LLAMA, DecoderSizes(3072, 8192, 28, 24, 8, 128, 128256, tied=True)),
        r"mistralai/Mistral-7B-(Instruct-)?v0\.[12]": (_MISTRAL, _MISTRAL_7B),
        r"mistralai/Mistral-7B-(Instruct-)?v0\.3": (_MISTRAL, _MISTRAL_7B._replace(vocabulary=32768)),
    }
    | {
        rf"Qwen/Qwen2\.5-(Coder-)?{size}(-Instruct)?": (_QWEN2, sizes)
        for size, sizes in {
            r"0\.5B": DecoderSizes(896, 4864, 24, 14, 2, 64, 151936, tied=True),
            r"1\.5B": DecoderSizes(1536, 8960, 28, 12, 2, 128, 151936, tied=True),
            "3B": DecoderSizes(2048, 11008, 36, 16, 2, 128, 151936, tied=True),
            "7B": DecoderSizes(3584, 18944, 28, 28, 4, 128, 152064),
            "14B": DecoderSizes(5120, 13824, 48, 40, 8, 128, 152064),
            "32B": DecoderSizes(5120, 27648, 64, 40, 8, 128, 152064),
            "72B": DecoderSizes(8192, 29568, 80, 64, 8, 128, 152064),
        }.items()
    }
    | {
        rf"Qwen/Qwen3-{size}(-Base|-Instruct-2507)?": (_QWEN3, sizes)
        for size, sizes in {
            r"0\.6B": DecoderSizes(1024, 3072, 28, 16, 8, 128, 151936, tied=True),
            r"1\.7B": DecoderSizes(2048, 6144, 28, 16, 8, 128, 151936, tied=True),
            "4B": DecoderSizes(2560, 9728, 36, 32, 8, 128, 151936, tied=True),
            "8B": DecoderSizes(4096, 12288, 36, 32, 8, 128, 151936),
            "14B": DecoderSizes(5120, 17408, 40, 40, 8, 128, 151936),
            "32B": DecoderSizes(5120, 25600, 64, 64, 8, 128, 151936),
        }.items()
    }
)


def known_shape(hub_id: str) -> ModelShape | None:
    """Return the shape of a well-known base model, or None if it is not in the table.

    Args:
        hub_id: for example "meta-llama/Meta-Llama-3-8B-Instruct". As on the hub, the case of letters does not matter.
    """
    found = (entry for pattern, entry in _KNOWN.items() if re.fullmatch(pattern, hub_id, re.IGNORECASE))
    architecture, sizes = next(found, (None, None))
    if architecture is None or sizes is None:
        return None
    config = {
        "architectures": [architecture],
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.mlp,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "head_dim": sizes.head,
        "vocab_size": sizes.vocabulary,
        "tie_word_embeddings": sizes.tied,
    }
    return ModelShape.of(config, _tensors(architecture, sizes))


def _tensors(architecture: str, sizes: DecoderSizes) -> Mapping[str, TensorHeader]:
    """Return names and shapes of the weights as transformers saves this architecture."""
    hidden, queries, keys = sizes.hidden, sizes.heads * sizes.head, sizes.key_value_heads * sizes.head
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (sizes.mlp, hidden),
        "mlp.up_proj.weight": (sizes.mlp, hidden),
        "mlp.down_proj.weight": (hidden, sizes.mlp),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    if architecture == _QWEN2:
        layer |= {f"self_attn.{name}_proj.bias": (width,) for name, width in (("q", queries), ("k", keys), ("v", keys))}
    if architecture == _QWEN3:
        layer |= {f"self_attn.{name}_norm.weight": (sizes.head,) for name in "qk"}
    tensors: dict[str, tuple[int, ...]] = {
        f"model.layers.{number}.{name}": shape for number in range(sizes.layers) for name, shape in layer.items()
    }
    tensors |= {"model.embed_tokens.weight": (sizes.vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not sizes.tied:
        tensors["lm_head.weight"] = (sizes.vocabulary, hidden)
    return {name: ("BF16", shape) for name, shape in tensors.items()}
