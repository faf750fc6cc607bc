"""Test LoRA on the parameters of all experts of a layer (target_parameters), merged into each expert's tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging_models import INPUT, finish, logits, make_base, our_merge, peft_merge, train
from sqlquarry import AdapterMerger
from sqlquarry.errors import UnusedTensorsError

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"]
KINDS: dict[str, dict[str, Any]] = {
    "all": {"target_parameters": EXPERTS, "target_modules": ["q_proj"]},
    "rslora and patterns": {
        "target_parameters": EXPERTS,
        "target_modules": [],
        "use_rslora": True,
        "rank_pattern": {"experts.gate_up_proj": 2},
        "alpha_pattern": {"experts.down_proj": 9, "gate.weight": 3, r".*\.0\..*gate_up_proj": 5},
    },
    "down only": {"target_parameters": EXPERTS[1:2], "target_modules": ["v_proj"]},
    "all-linear": {"target_modules": "all-linear", "alpha_pattern": {"mlp.experts.down_proj": 3, "gate": 7}},
    "names of single experts": {"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["Mixtral", "Qwen3Moe"])
def test_equals_peft_in_fp32(tmp_path: Path, family: str, kind: str) -> None:
    base = make_base(family, tmp_path / "base", dtype=torch.float32)
    with torch.no_grad():
        answer = train(base, tmp_path / "adapter", **KINDS[kind])(input_ids=INPUT).logits
    expected, _ = peft_merge(base, tmp_path / "adapter")
    merged, _ = our_merge(base, (tmp_path / "adapter", 1.0))
    assert merged.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(merged[name], value, rtol=2e-6, atol=1e-6)
    before = load_file(base.directory / "model.safetensors")
    changed = {name for name in merged if not torch.equal(merged[name], before[name])}
    experts = {name for name in merged if ".experts." in name}
    assert experts - changed == (set() if kind != "down only" else {
        name for name in experts if "w2" not in name and "down" not in name})  # fmt: skip
    if family == "Qwen3Moe":  # the names of its checkpoint need no conversion for load_state_dict
        experts_as_parameters = _fused(merged)
        torch.testing.assert_close(logits(base, experts_as_parameters, tied=False), answer, rtol=1e-3, atol=1e-3)


def _fused(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors in the form that transformers 5 uses."""
    fused = {name: value for name, value in tensors.items() if ".experts." not in name}
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            torch.stack([tensors[f"{prefix}.{e}.{kind}_proj.weight"] for e in range(4)])
            for kind in ("gate", "up", "down")
        )
        fused[f"{prefix}.gate_up_proj"], fused[f"{prefix}.down_proj"] = torch.cat([gate, up], dim=1), down
    return fused


@pytest.mark.parametrize("family", ["Mixtral", "Qwen3Moe"])
def test_a_bf16_base_is_rounded_once(tmp_path: Path, family: str) -> None:
    # PEFT rounds an expert's delta to bf16 before it adds it.
    base = make_base(family, tmp_path / "base")
    train(base, tmp_path / "adapter", adapter_dtype=torch.bfloat16, **KINDS["all"])
    exact, _ = our_merge(base, (tmp_path / "adapter", 1.0), dtype=torch.float32)
    written = AdapterMerger().merge(finish(tmp_path / "adapter", base.directory), tmp_path / "ours")
    rounded = load_file(written.path / "model.safetensors")
    assert rounded.keys() == exact.keys()
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)
    for name, value in peft_merge(base, tmp_path / "adapter")[0].items():
        torch.testing.assert_close(rounded[name], value, rtol=2**-7, atol=2**-9)


def test_adapters_of_older_transformers_name_each_expert(tmp_path: Path) -> None:
    base = make_base("Mixtral", tmp_path / "base", dtype=torch.float32)
    train(base, tmp_path / "adapter", target_modules=["q_proj"])
    modules = [f"model.layers.0.block_sparse_moe.{name}" for name in ("gate", "experts.3.w1", "experts.0.w2")]
    before = load_file(base.directory / "model.safetensors")
    lora = {}
    for module in modules:
        out, width = before[f"{module}.weight"].shape
        lora[f"base_model.model.{module}.lora_A.weight"] = torch.randn(2, width)
        lora[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out, 2)
    save_file(lora, tmp_path / "adapter/adapter_model.safetensors")
    merged, _ = our_merge(base, (tmp_path / "adapter", 1.0))
    for module in modules:
        a, b = (lora[f"base_model.model.{module}.lora_{which}.weight"] for which in "AB")
        assert torch.equal(merged[f"{module}.weight"], before[f"{module}.weight"] + 6 / 2 * (b @ a))
    assert sum(not torch.equal(merged[name], before[name]) for name in before) == 3


def test_experts_that_the_base_lacks_are_refused(tmp_path: Path) -> None:
    base = make_base("Qwen3Moe", tmp_path / "base")
    train(base, tmp_path / "adapter", **KINDS["all"])
    file = tmp_path / "base/model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if ".experts.3." not in name}, file)
    with pytest.raises(UnusedTensorsError, match=r"mlp\.experts\.base_layer\.lora_A\.weight"):
        our_merge(base, (tmp_path / "adapter", 1.0))
