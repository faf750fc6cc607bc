"""Compare the layer-by-layer forward pass with transformers and PEFT in fp32, for every supported family."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.merging.base_checkpoint import BaseCheckpoint
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.merged_tensors import MergedTensors
from sqlquarry.merging.plan import MergePlan, plan_merge
from sqlquarry.merging.storage.local import LocalDirectory
from sqlquarry.merging.verification.comparison import _Model  # private, but the only weights that this can run on
from sqlquarry.merging.verification.forward import Architecture, final_states

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "llama, scaled as 3.1": {"rope_parameters": LLAMA3},
    "llama, linear scaling": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    "llama, biases": {"attention_bias": True, "mlp_bias": True},
    "llama, wide heads": {"head_dim": 48},
    "mistral": {"sliding_window": 64},
    "qwen2": {},
    "qwen2, tied": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "qwen3_moe, normalized, every second layer": {
        "head_dim": 32,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 24,
        "norm_topk_prob": True,
        "decoder_sparse_step": 2,
    },
    "qwen3_moe, one dense layer": {
        "num_experts": 4,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 24,
        "mlp_only_layers": [0],
    },
}
SEQUENCES = [[5, 17, 300, 2, 9, 44, 101, 7], list(range(10, 50)), [3]]


def save(directory: Path, name: str) -> Path:
    torch.manual_seed(0)
    model_type = name.partition(",")[0]
    options = {"tie_word_embeddings": False} | FAMILIES[name]
    config = AutoConfig.for_model(
        model_type, vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, rms_norm_eps=1e-5, **options,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("bias", "norm.weight")):
            torch.nn.init.normal_(parameter, mean=float(parameter_name.endswith("weight")), std=0.3)
    model.to(torch.bfloat16).save_pretrained(directory)
    return directory


def logits(directory: Path, plan: MergePlan, *, unmerged: bool) -> list[torch.Tensor]:
    base = BaseCheckpoint.open(LocalDirectory(directory))
    config = {**base.config, **plan.config}
    model = _Model(MergedTensors.planned(base.tensors, plan, None, "F32"), unmerged=unmerged)
    states = final_states(Architecture.of(config), model, SEQUENCES)
    head = model.head(tied=bool(config.get("tie_word_embeddings")))
    whole = torch.cat([head.block(states, rows) for rows in head.tensor.blocks()], dim=1)
    return list(whole.split([len(sequence) for sequence in SEQUENCES]))


def require_close(found: list[torch.Tensor], model: Any) -> None:
    with torch.no_grad():
        for sequence, ours in zip(SEQUENCES, found, strict=True):
            torch.testing.assert_close(ours, model(torch.tensor([sequence])).logits[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_transformers(tmp_path: Path, name: str) -> None:
    save(tmp_path, name)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    found = logits(tmp_path, MergePlan({}), unmerged=False)
    assert torch.cat(found).std() > 0.1
    require_close(found, reference)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(["llama", "mistral", "qwen2", "qwen3", "llama, biases"], ["lora", "dora", "everything"]),
        *itertools.product(["mixtral", "qwen3_moe"], ["lora"]),
    ],
)
def test_logits_with_an_adapter_equal_peft_merged_or_not(tmp_path: Path, name: str, kind: str) -> None:
    base = save(tmp_path / "base", name)
    options: dict[str, Any] = {"target_modules": "all-linear"}
    if kind == "everything":
        options = {"target_modules": ["q_proj", "down_proj", "lm_head", "embed_tokens"], "bias": "all",
                   "modules_to_save": ["input_layernorm"], "use_rslora": True}  # fmt: skip
    config = LoraConfig(r=4, lora_alpha=8, use_dora=kind == "dora", task_type="CAUSAL_LM", **options)
    trained = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    torch.manual_seed(1)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape) * 0.05
    trained.save_pretrained(tmp_path / "adapter")
    reference = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "adapter"
    ).eval()
    checkpoint = BaseCheckpoint.open(LocalDirectory(base))
    adapter = LoraAdapter.open(tmp_path / "adapter")
    plan = plan_merge([(adapter, 1.0)], checkpoint.tensors, tied=checkpoint.tied)
    unmerged = logits(base, plan, unmerged=True)
    require_close(unmerged, reference)
    require_close(logits(base, plan, unmerged=False), reference)
    without = logits(base, MergePlan({}), unmerged=False)
    assert (torch.cat(unmerged) - torch.cat(without)).abs().max() > 0.05


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gemma3"}, "model_type 'gemma3'"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"model_type": "qwen2", "rope_scaling": {"type": "yarn"}}, "rope_type 'yarn'"),
    ],
)
def test_unsupported_models_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"\({message}\)"):
        Architecture.of(config)


def test_a_sequence_longer_than_the_attention_window_is_refused() -> None:
    sizes = {"num_attention_heads": 2, "hidden_size": 8, "num_hidden_layers": 1}
    mistral = Architecture.of({"model_type": "mistral", "sliding_window": 16, **sizes})
    mistral.require_within_window(16)
    with pytest.raises(UnsupportedModelError, match=r"\b17 tokens.*\b16\b"):
        mistral.require_within_window(17)
    Architecture.of({"model_type": "qwen2", "sliding_window": 16, **sizes}).require_within_window(17)
