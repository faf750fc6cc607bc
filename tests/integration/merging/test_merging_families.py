"""Compare the merge with PEFT's, element by element, for every architecture family and kind of LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import MontecloraConfig

from merging_models import ATTENTION, LINEAR, Base, make_base, our_merge, peft_merge, require_equal, train

FAMILIES = ["Llama", "Mistral", "Qwen2", "Qwen3"]
TYING = {"untied": False, "tied": True}
_bases: dict[tuple[str, bool], Base] = {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _bases.clear()
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(params=[(family, tying) for family in FAMILIES for tying in TYING], ids="-".join)
def base(request: pytest.FixtureRequest, folder: Path) -> Base:
    family, tying = request.param
    key = (family, TYING[tying])
    if key not in _bases:
        _bases[key] = make_base(family, folder / f"{family}-{tying}", tied=TYING[tying])
    return _bases[key]


VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "target_modules": "all-linear"},
    "patterns": {"rank_pattern": {"q_proj": 3, r"layers\.1\.mlp\..*_proj": 8}, "alpha_pattern": {"v_proj": 5},
                 "layers_to_transform": [1]},
    "dora": {"use_dora": True, "use_rslora": True, "rank_pattern": {"down_proj": 2},
             "alpha_pattern": {"^model.layers.0.mlp.up_proj": 9}},
    "bias": {"bias": "all"},
    "head saved": {"modules_to_save": ["lm_head"]},
    "embedding saved": {"modules_to_save": ["embed_tokens"]},
    "both saved": {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    "token rows": {"trainable_token_indices": [90, 3, 17]},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_peft_bit_for_bit(base: Base, tmp_path: Path, variant: str) -> None:
    train(base, tmp_path, **VARIANTS[variant])
    merged = our_merge(base, (tmp_path, 1.0))
    require_equal(merged, peft_merge(base, tmp_path))
    before = base.model.state_dict()
    assert not torch.equal(merged[0]["model.layers.1.self_attn.v_proj.weight"],
                           before["model.layers.1.self_attn.v_proj.weight"])  # fmt: skip
    if variant in ("head saved", "embedding saved", "both saved"):
        assert "lm_head.weight" in merged[0]
        assert not merged[1]


BIASED: dict[str, dict[str, Any]] = {
    "lora_only": {"bias": "lora_only"},
    "all": {"bias": "all"},
    "lora_bias": {"lora_bias": True, "target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"v_proj": 5}},
    "lora_bias and rslora": {"lora_bias": True, "target_modules": ["k_proj"], "use_rslora": True},
}


@pytest.mark.parametrize("variant", BIASED)
def test_qwen2_biases_equal_peft_bit_for_bit(tmp_path: Path, variant: str) -> None:
    base = make_base("Qwen2", tmp_path / "base")
    train(base, tmp_path / "adapter", **BIASED[variant])
    merged = our_merge(base, (tmp_path / "adapter", 1.0))
    require_equal(merged, peft_merge(base, tmp_path / "adapter"))
    before = base.model.state_dict()
    changed = {name.split(".")[-2] for name in merged[0] if name.endswith("bias")
               and not torch.equal(merged[0][name], before[name])}  # fmt: skip
    targets = BIASED[variant].get("target_modules", LINEAR)
    assert changed == set(ATTENTION[:3]) & set(targets)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"adapter_dtype": torch.float16},
        {"adapter_dtype": torch.bfloat16, "use_dora": True},
        {"modules_to_save": ["lm_head", "q_norm"]},
        {"trainable_token_indices": [1, 2]},
        {"target_modules": [*LINEAR, "lm_head"]},
    ],
    ids=str,
)
def test_bases_of_other_dtypes_equal_peft_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    base = make_base("Qwen3", tmp_path / "base", dtype=dtype)
    train(base, tmp_path / "adapter", **options)
    merged = our_merge(base, (tmp_path / "adapter", 1.0))
    require_equal(merged, peft_merge(base, tmp_path / "adapter"))
    assert {tensor.dtype for tensor in merged[0].values()} == {dtype}


@pytest.mark.parametrize(
    "options",
    [
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "gaussian"},
        {"velora_config": {}},
        {"monteclora_config": {"num_samples": 2}},
    ],
    ids=str,
)
def test_inits_and_training_variants_that_do_not_change_the_base(tmp_path: Path, options: dict[str, Any]) -> None:
    base = make_base("Llama", tmp_path / "base")
    if "monteclora_config" in options:
        options = {"monteclora_config": MontecloraConfig(**options["monteclora_config"])}
    train(base, tmp_path / "adapter", **options)
    require_equal(our_merge(base, (tmp_path / "adapter", 1.0)), peft_merge(base, tmp_path / "adapter"))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True, "use_rslora": True},
        {"init_lora_weights": "mica", "target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=str,
)
def test_updates_that_peft_rounds_twice_are_rounded_once(tmp_path: Path, options: dict[str, Any]) -> None:
    # PEFT rounds the delta of an embedding and of MiCA to bf16 before it adds it. With an fp32 base it does not.
    base = make_base("Llama", tmp_path / "base")
    train(base, tmp_path / "adapter", **options)
    expected, _ = peft_merge(base, tmp_path / "adapter", torch.float32)
    exact, _ = our_merge(base, (tmp_path / "adapter", 1.0), dtype=torch.float32)
    assert exact.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(exact[name], value, rtol=2e-6, atol=1e-7)
    rounded, _ = our_merge(base, (tmp_path / "adapter", 1.0))
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)
    twice, _ = peft_merge(base, tmp_path / "adapter")
    # PEFT's merge of DoRA on an embedding multiplies in fp32 and rounds only once.
    assert "use_dora" in options or not torch.equal(
        twice["model.embed_tokens.weight"], rounded["model.embed_tokens.weight"]
    )


def test_eva_changes_ranks_and_scales_but_not_the_base(tmp_path: Path) -> None:
    base = make_base("Llama", tmp_path / "base", dtype=torch.float32)
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=LINEAR, init_lora_weights="eva", eva_config=EvaConfig(rho=2.0)
    )
    model = get_peft_model(base.load(), config)
    batches = [{"input_ids": torch.randint(4, 96, (4, 16))} for _ in range(8)]
    initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    before = base.model.state_dict()
    for name, value in model.get_base_model().state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, before[name.replace("base_layer.", "")])
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.05
    model.save_pretrained(tmp_path / "adapter")
    saved_config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert saved_config["rank_pattern"]
    assert saved_config["alpha_pattern"]
    require_equal(our_merge(base, (tmp_path / "adapter", 1.0)), peft_merge(base, tmp_path / "adapter"))
