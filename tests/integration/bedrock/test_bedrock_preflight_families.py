"""Preflight expects the tensors that transformers saves, for every importable architecture."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from sqlquarry.bedrock.preflight import preflight, repair
from sqlquarry.checkpoints.foreign_model import MODEL_TYPES

from conftest import tiny_tokenizer

DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}
MROPE = {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [1, 1, 2]}
FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": DECODER | {"attention_bias": True, "mlp_bias": True},
    "MistralForCausalLM": DECODER | {"head_dim": 16},
    "MixtralForCausalLM": DECODER | {"num_local_experts": 3},
    "Qwen2ForCausalLM": DECODER | {"tie_word_embeddings": True},
    "Qwen3ForCausalLM": DECODER | {"head_dim": 16},
    "Qwen3MoeForCausalLM": DECODER
    | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_only_layers": [0]},
    "GPTBigCodeForCausalLM": {"n_embd": 32, "n_head": 4, "n_layer": 2},
    "T5ForConditionalGeneration": {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2},
    "Qwen2VLForConditionalGeneration": {
        "text_config": DECODER | {"rope_parameters": MROPE},
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2},
    },
    "Qwen2_5_VLForConditionalGeneration": {
        "text_config": DECODER | {"rope_parameters": MROPE},
        "vision_config": {"depth": 1, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48},
    },
    "MllamaForConditionalGeneration": {
        "text_config": DECODER | {"cross_attention_layers": [1], "bos_token_id": 0},
        "vision_config": {
            "attention_heads": 4,
            "hidden_size": 32,
            "image_size": 16,
            "intermediate_layers_indices": [1],
            "intermediate_size": 48,
            "max_num_tiles": 1,
            "num_global_layers": 1,
            "num_hidden_layers": 2,
            "patch_size": 4,
            "supported_aspect_ratios": [[1, 1]],
            "vision_output_dim": 64,
        },
    },
}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_repaired_checkpoint_of_transformers_is_accepted(architecture: str, tmp_path: Path) -> None:
    import torch
    import transformers

    tokenizer, options = tiny_tokenizer(), copy.deepcopy(FAMILIES[architecture])
    options.get("text_config", options).update(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**options)).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert {finding.severity for finding in preflight(tmp_path / "saved").findings} == {"note"}
    repair(tmp_path / "saved", output_dir=tmp_path / "repaired", max_shard_bytes=40_000)
    assert preflight(tmp_path / "repaired").findings == ()

    # transformers 5 still reads the same model from the old dialect.
    before, after = (
        kind.from_pretrained(tmp_path / name, dtype=torch.bfloat16).eval() for name in ("saved", "repaired")
    )
    ids = torch.arange(10, 40)[None]
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if "T5" in architecture else {})}
    with torch.no_grad():
        assert torch.equal(before(**inputs).logits, after(**inputs).logits)


def test_every_importable_architecture_is_here() -> None:
    assert FAMILIES.keys() == MODEL_TYPES.keys() - {"GptOssForCausalLM"}  # unknown to 4.51.3
