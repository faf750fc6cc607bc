"""Compare the expected tensors of every decoder with those that transformers saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sqlquarry.checkpoints.safetensors_header import read_header
from sqlquarry.checkpoints.tensor_shapes import DECODERS, expected_tensors

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3,
    "num_key_value_heads": 2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 24},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "dense layers": {"mlp_only_layers": [0], "decoder_sparse_step": 2},
}
# mlp_bias is an option of Llama only. transformers' Mistral and Mixtral have no biases, whatever the config says.
WITH_ATTENTION_BIAS = ("LlamaForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("architecture", DECODERS)
def test_transformers_saves_exactly_the_expected_tensors(tmp_path: Path, architecture: str, variant: str) -> None:
    options = dict(VARIANTS[variant])
    if architecture not in WITH_ATTENTION_BIAS:
        options.pop("attention_bias", None)
    if architecture != "LlamaForCausalLM":
        options.pop("mlp_bias", None)
    experts = EXPERTS if "Mo" in architecture or "Mix" in architecture else {}
    config_class = getattr(transformers, architecture.replace("ForCausalLM", "Config"))
    model = getattr(transformers, architecture)(
        config_class(**SIZES | {"tie_word_embeddings": False} | experts | options)
    )
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    saved = {name: tensor.shape for name, tensor in read_header(tmp_path / "model.safetensors").tensors.items()}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [architecture]
    assert expected_tensors(architecture, config) == saved
    if architecture == "Qwen3MoeForCausalLM":  # published checkpoints have the key of 4.51.3
        config["num_experts"] = config.pop("num_local_experts")
        assert expected_tensors(architecture, config) == saved
