"""Test the names and shapes of tensors that follow from a config.json."""

from __future__ import annotations

from typing import Any

import pytest

from sqlquarry.checkpoints.tensor_shapes import DECODERS, Shapes, expected_tensors

# Every size is different, so that none can be mistaken for another.
CONFIG: dict[str, Any] = {
    "hidden_size": 24,
    "vocab_size": 11,
    "num_hidden_layers": 1,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 13,
}
OUTSIDE: Shapes = {"model.embed_tokens.weight": (11, 24), "model.norm.weight": (24,), "lm_head.weight": (11, 24)}
NORMS: Shapes = {"input_layernorm.weight": (24,), "post_attention_layernorm.weight": (24,)}
ATTENTION: Shapes = {  # heads of 24 / 6 = 4 values
    "self_attn.q_proj.weight": (24, 24),
    "self_attn.k_proj.weight": (8, 24),
    "self_attn.v_proj.weight": (8, 24),
    "self_attn.o_proj.weight": (24, 24),
}
MLP: Shapes = {
    "mlp.gate_proj.weight": (13, 24),
    "mlp.up_proj.weight": (13, 24),
    "mlp.down_proj.weight": (24, 13),
}
QKV_BIASES: Shapes = {
    "self_attn.q_proj.bias": (24,),
    "self_attn.k_proj.bias": (8,),
    "self_attn.v_proj.bias": (8,),
}
LAYER = NORMS | ATTENTION | MLP
MOE = {"num_experts": 2, "moe_intermediate_size": 7}


def layer(shapes: Shapes, number: int = 0) -> Shapes:
    return {f"model.layers.{number}.{name}": shape for name, shape in shapes.items()}


def found(architecture: str, **changes: Any) -> Shapes:
    shapes = expected_tensors(architecture, CONFIG | changes)
    assert shapes is not None
    return shapes


def head_norms(size: int) -> Shapes:
    return {"self_attn.q_norm.weight": (size,), "self_attn.k_norm.weight": (size,)}


def qwen3_experts() -> Shapes:
    experts = {
        f"mlp.experts.{expert}.{name}.weight": shape
        for expert in (0, 1)
        for name, shape in (("gate_proj", (7, 24)), ("up_proj", (7, 24)), ("down_proj", (24, 7)))
    }
    return {"mlp.gate.weight": (2, 24)} | experts


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "MistralForCausalLM"])
def test_a_dense_layer(architecture: str) -> None:
    assert found(architecture) == OUTSIDE | layer(LAYER)


def test_every_layer_is_counted() -> None:
    assert found("LlamaForCausalLM", num_hidden_layers=3) == OUTSIDE | layer(LAYER) | layer(LAYER, 1) | layer(LAYER, 2)
    assert found("LlamaForCausalLM", num_hidden_layers=0) == OUTSIDE


def test_a_tied_head_is_left_out() -> None:
    tied = found("LlamaForCausalLM", tie_word_embeddings=True)
    assert OUTSIDE.keys() - tied.keys() == {"lm_head.weight"}
    assert found("LlamaForCausalLM", tie_word_embeddings=False) == OUTSIDE | layer(LAYER)


@pytest.mark.parametrize(
    ("architecture", "kv_heads"),
    [
        ("LlamaForCausalLM", 6),
        ("MistralForCausalLM", 8),
        ("MixtralForCausalLM", 8),
        ("Qwen2ForCausalLM", 32),
        ("Qwen3ForCausalLM", 32),
        ("Qwen3MoeForCausalLM", 4),
    ],
)
def test_missing_key_value_heads_have_the_default_of_the_architecture(architecture: str, kv_heads: int) -> None:
    config = CONFIG | MOE | {"num_local_experts": 2, "head_dim": 5}
    names = [f"model.layers.0.self_attn.{name}_proj.weight" for name in "qkvo"]
    shapes = expected_tensors(architecture, {key: value for key, value in config.items() if "key_value" not in key})
    assert shapes is not None
    assert [shapes[name] for name in names] == [(30, 24), (5 * kv_heads, 24), (5 * kv_heads, 24), (24, 30)]
    shapes = expected_tensors(architecture, config | {"num_key_value_heads": None})
    assert shapes is not None
    assert [shapes[name] for name in names] == [(30, 24), (30, 24), (30, 24), (24, 30)]


@pytest.mark.parametrize("head_dim", [{}, {"head_dim": None}])
def test_the_default_size_of_a_head(head_dim: dict[str, Any]) -> None:
    assert found("Qwen3ForCausalLM", **head_dim) == OUTSIDE | layer(
        NORMS
        | MLP
        | head_norms(128)
        | {
            "self_attn.q_proj.weight": (768, 24),
            "self_attn.k_proj.weight": (256, 24),
            "self_attn.v_proj.weight": (256, 24),
            "self_attn.o_proj.weight": (24, 768),
        }
    )
    assert found("LlamaForCausalLM", **head_dim) == OUTSIDE | layer(LAYER)


def test_biases_of_the_attention() -> None:
    output: Shapes = {"self_attn.o_proj.bias": (24,)}
    assert found("LlamaForCausalLM", attention_bias=True) == OUTSIDE | layer(LAYER | QKV_BIASES | output)
    for attention_bias in (False, True):  # Qwen2 ignores the key
        assert found("Qwen2ForCausalLM", attention_bias=attention_bias) == OUTSIDE | layer(LAYER | QKV_BIASES)
    shapes = found("Qwen3ForCausalLM", head_dim=4, attention_bias=True)
    assert shapes == OUTSIDE | layer(LAYER | QKV_BIASES | output | head_norms(4))


def test_biases_of_the_mlp() -> None:
    biases: Shapes = {"mlp.gate_proj.bias": (13,), "mlp.up_proj.bias": (13,), "mlp.down_proj.bias": (24,)}
    assert found("LlamaForCausalLM", mlp_bias=True) == OUTSIDE | layer(LAYER | biases)


def test_the_experts_of_mixtral() -> None:
    experts = {
        f"block_sparse_moe.experts.{expert}.{name}.weight": shape
        for expert in (0, 1, 2)
        for name, shape in (("w1", (13, 24)), ("w2", (24, 13)), ("w3", (13, 24)))
    }
    gate: Shapes = {"block_sparse_moe.gate.weight": (3, 24)}
    assert found("MixtralForCausalLM", num_local_experts=3) == OUTSIDE | layer(NORMS | ATTENTION | gate | experts)


def test_the_experts_of_qwen3() -> None:
    sparse = NORMS | ATTENTION | head_norms(4) | qwen3_experts()
    assert found("Qwen3MoeForCausalLM", **MOE) == OUTSIDE | layer(sparse)
    of_version_5 = {"num_local_experts": MOE["num_experts"], "moe_intermediate_size": MOE["moe_intermediate_size"]}
    assert found("Qwen3MoeForCausalLM", **of_version_5) == OUTSIDE | layer(sparse)


@pytest.mark.parametrize(
    ("options", "dense"),
    [
        ({}, set()),
        ({"mlp_only_layers": None}, set()),
        ({"mlp_only_layers": [1]}, {1}),
        ({"decoder_sparse_step": 2}, {0, 2}),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, {0, 2, 3}),
        ({"num_experts": 0}, {0, 1, 2, 3}),
        ({"num_experts": 1}, set()),
    ],
    ids=str,
)
def test_layers_of_qwen3_without_experts(options: dict[str, Any], dense: set[int]) -> None:
    shapes = found("Qwen3MoeForCausalLM", **MOE | {"num_hidden_layers": 4} | options)
    assert {number for number in range(4) if f"model.layers.{number}.mlp.gate_proj.weight" in shapes} == dense
    assert {number for number in range(4) if f"model.layers.{number}.mlp.gate.weight" in shapes} == {0, 1, 2, 3} - dense
    for number in dense:
        assert shapes.items() >= layer(MLP, number).items()


def test_other_architectures_have_no_expectation() -> None:
    assert expected_tensors("T5ForConditionalGeneration", CONFIG) is None
    assert expected_tensors(None, CONFIG) is None


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("missing", ["hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads"])
def test_a_missing_size_is_an_error(architecture: str, missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        expected_tensors(architecture, {key: value for key, value in CONFIG.items() if key != missing})
    with pytest.raises(ZeroDivisionError):
        expected_tensors("LlamaForCausalLM", CONFIG | {"num_attention_heads": 0})
