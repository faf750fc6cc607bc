"""Test with tiny Llamas that the merge gives the same bits as PEFT's merge of the loaded model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    OFTConfig,
    PeftModel,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)  # fmt: skip
from peft.tuners.lora.config import KasaConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from merging_models import finish
from sqlquarry import AdapterCheckpoint, AdapterMerger
from sqlquarry.errors import UnsupportedAdapterError, UnusedTensorsError
from sqlquarry.merging.tensor_file import TensorFile
from sqlquarry.quantization import QuantizationRecipe, keep_trainable_on_cpu

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_base(directory: Path, **config: Any) -> Path:
    """Save two layers in bf16 in several shards. Every bitsandbytes kernel accepts their widths."""
    torch.manual_seed(0)
    options = {"tie_word_embeddings": False, "attention_bias": False, "num_hidden_layers": 2} | config
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=320, hidden_size=128, intermediate_size=256, num_attention_heads=4,
            num_key_value_heads=4, bos_token_id=1, eos_token_id=2, pad_token_id=3, **options,
        )
    ).to(torch.bfloat16)  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(directory, max_shard_size="200KB")
    return directory


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("untied"))


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("biased"), attention_bias=True)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True)


def train(directory: Path, base: Path, dtype: torch.dtype = torch.float32, **options: Any) -> None:
    """Let PEFT save an adapter with random values in every trainable tensor."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    config = LoraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": LINEAR, "task_type": "CAUSAL_LM"} | options)
    peft = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in peft.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float() + torch.randn(parameter.shape) * 0.02
            if "lora_" in name:
                parameter.data = parameter.data.to(dtype)
    peft.save_pretrained(directory)


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in directory.glob("model*.safetensors") for name, value in load_file(file).items()}


def peft_merge(base: Path, adapter: Path, output: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(output)
    return tensors(output)


def require_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "bf16 adapter": {"dtype": torch.bfloat16},
    "rank 64": {"r": 64},
    "patterns and rslora": {"rank_pattern": {"o_proj": 2}, "alpha_pattern": {"o_proj": 3}, "use_rslora": True},
    "dora": {"use_dora": True, "rank_pattern": {"down_proj": 4}},
    "modules_to_save": {"modules_to_save": ["lm_head", "embed_tokens", "input_layernorm"]},
    "token rows": {"trainable_token_indices": [5, 300]},
    "untied head": {"target_modules": [*LINEAR, "lm_head"]},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_peft_bit_for_bit(base: Path, tmp_path: Path, name: str) -> None:
    train(tmp_path / "adapter", base, **VARIANTS[name])
    expected = peft_merge(base, tmp_path / "adapter", tmp_path / "peft")
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", base), tmp_path / "ours")
    require_equal(tensors(merged.path), expected)
    assert not torch.equal(tensors(merged.path)["model.layers.1.self_attn.q_proj.weight"],
                           tensors(base)["model.layers.1.self_attn.q_proj.weight"])  # fmt: skip


@pytest.mark.parametrize("options", [{"bias": "all"}, {"bias": "lora_only"}, {"lora_bias": True}], ids=str)
def test_biases_equal_peft_bit_for_bit(biased: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    train(tmp_path / "adapter", biased, **{"target_modules": ["q_proj", "v_proj"]} | options)
    expected = peft_merge(biased, tmp_path / "adapter", tmp_path / "peft")
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", biased), tmp_path / "ours")
    require_equal(tensors(merged.path), expected)
    name = "model.layers.0.self_attn.q_proj.bias"
    assert not torch.equal(expected[name], tensors(biased)[name])


def test_a_tied_model_merges_its_layers_like_peft(tied: Path, tmp_path: Path) -> None:
    train(tmp_path / "adapter", tied)
    expected = peft_merge(tied, tmp_path / "adapter", tmp_path / "peft")
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", tied), tmp_path / "ours")
    assert "lm_head.weight" not in expected
    require_equal(tensors(merged.path), expected)


def test_dora_on_an_embedding_is_computed_over_its_whole_vocabulary(base: Path, tmp_path: Path) -> None:
    train(tmp_path / "adapter", base, target_modules=["q_proj", "embed_tokens"], use_dora=True)
    expected = peft_merge(base, tmp_path / "adapter", tmp_path / "peft")
    merged = tensors(AdapterMerger().merge(finish(tmp_path / "adapter", base), tmp_path / "ours").path)
    for name, value in expected.items():  # the norm is summed in another order, so the last bit may differ
        torch.testing.assert_close(merged[name], value, rtol=2**-7, atol=1e-6)


def test_an_embedding_update_is_added_in_fp32(base: Path, tmp_path: Path) -> None:
    # PEFT rounds an embedding's delta to bf16 before it adds it (peft/tuners/lora/layer.py, Embedding.merge).
    train(tmp_path / "adapter", base, target_modules=["q_proj", "embed_tokens"])
    lora, before = load_file(tmp_path / "adapter/adapter_model.safetensors"), tensors(base)
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", base), tmp_path / "ours")
    prefix = "base_model.model.model.embed_tokens.lora_embedding_"
    delta = (lora[f"{prefix}B"] @ lora[f"{prefix}A"]).T * 2.0
    expected = (before["model.embed_tokens.weight"].float() + delta).to(torch.bfloat16)
    assert torch.equal(tensors(merged.path)["model.embed_tokens.weight"], expected)


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]], ids=str)
def test_a_saved_module_unties_the_model_as_peft_does(tied: Path, tmp_path: Path, modules: list[str]) -> None:
    train(tmp_path / "adapter", tied, modules_to_save=modules)
    expected = peft_merge(tied, tmp_path / "adapter", tmp_path / "peft")
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", tied), tmp_path / "ours")
    require_equal(tensors(merged.path), expected)
    assert json.loads((merged.path / "config.json").read_text())["tie_word_embeddings"] is False
    ours, peft = (AutoModelForCausalLM.from_pretrained(path) for path in (merged.path, tmp_path / "peft"))
    tokens = torch.tensor([[1, 5, 9]])
    assert torch.equal(ours(input_ids=tokens).logits, peft(input_ids=tokens).logits)


def test_trained_token_rows_keep_the_model_tied(tied: Path, tmp_path: Path) -> None:
    train(tmp_path / "adapter", tied, trainable_token_indices=[5, 300])
    expected = peft_merge(tied, tmp_path / "adapter", tmp_path / "peft")
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", tied), tmp_path / "ours")
    require_equal(tensors(merged.path), expected)
    assert (merged.path / "config.json").read_bytes() == (tied / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"init_lora_weights": "pissa"}, "'pissa': PiSSA"),
        ({"init_lora_weights": "olora"}, "'olora': OLoRA"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens: aLoRA"),
        ({"kasa_config": KasaConfig()}, "kasa_config: KaSA"),
        ({"lora_bias": True}, r"lora_bias: .*\.lora_B\.bias"),
    ],
    ids=str,
)
def test_real_files_of_unmergeable_kinds_are_refused(
    base: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    train(tmp_path / "adapter", base, **options)
    with pytest.raises(UnsupportedAdapterError, match=reason):
        AdapterMerger().merge(finish(tmp_path / "adapter", base), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


OTHER_METHODS = {
    "IA3": IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LOHA": LoHaConfig(target_modules=["q_proj"]),
    "VERA": VeraConfig(target_modules=["q_proj"]),
    "ADALORA": AdaLoraConfig(target_modules=["q_proj"], total_step=10),
    "OFT": OFTConfig(target_modules=["q_proj"]),
    "PROMPT_TUNING": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_other_methods_are_refused_by_name(base: Path, tmp_path: Path, method: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    get_peft_model(model, OTHER_METHODS[method]).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UnsupportedAdapterError, match=f"peft_type '{method}': .*LORA"):
        AdapterMerger().merge(finish(tmp_path / "adapter", base), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_an_adapter_of_another_architecture_is_refused(base: Path, tmp_path: Path) -> None:
    deeper = save_base(tmp_path / "deeper", num_hidden_layers=3)
    train(tmp_path / "adapter", deeper)
    with pytest.raises(UnusedTensorsError, match=r"^14 .*layers\.2\."):
        AdapterMerger(base_model=base).merge(finish(tmp_path / "adapter", deeper), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_several_adapters_are_merged_with_their_weights(base: Path, tmp_path: Path) -> None:
    for name, modules in (("one", LINEAR[:4]), ("two", LINEAR[2:])):
        train(tmp_path / name, base, target_modules=modules)
        finish(tmp_path / name, base)
    pairs = [(AdapterCheckpoint.load(tmp_path / name), weight) for name, weight in (("one", 0.5), ("two", -2.0))]
    merged = tensors(AdapterMerger().merge(pairs, tmp_path / "ours").path)
    files = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two")]
    for name, value in tensors(base).items():
        expected = value.float()
        for lora, weight in zip(files, (0.5, -2.0), strict=True):
            key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
            if f"{key}A.weight" in lora:
                expected = expected + weight * 2.0 * (lora[f"{key}B.weight"] @ lora[f"{key}A.weight"])
        torch.testing.assert_close(merged[name].float(), expected, rtol=2**-7, atol=2**-9)


def test_shards_keep_names_headers_and_untouched_bytes(base: Path, tmp_path: Path) -> None:
    train(tmp_path / "adapter", base)
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", base), tmp_path / "ours")
    names = sorted(file.name for file in base.glob("model*"))
    assert len(names) > 3
    assert sorted(file.name for file in merged.path.glob("model*")) == names
    for file in base.glob("*.safetensors"):
        before, after = TensorFile.open(file), TensorFile.open(merged.path / file.name)
        assert after.header == before.header
        for old, new in zip(before.tensors, after.tensors, strict=True):
            assert torch.equal(old.load(), new.load()) == (not old.name.endswith("proj.weight"))
    loaded = AutoModelForCausalLM.from_pretrained(merged.path, dtype=torch.bfloat16)
    assert torch.isfinite(loaded(input_ids=torch.tensor([[1, 5, 9]])).logits).all()


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("load_dtype", ["bfloat16", "float32"])
def test_the_dequantized_base_equals_the_weights_of_the_training(
    tmp_path: Path, load_dtype: str, tie: bool, base: Path, tied: Path
) -> None:
    directory, dtype = tied if tie else base, getattr(torch, load_dtype)
    recipe = QuantizationRecipe(load_dtype=load_dtype)
    quantized = keep_trainable_on_cpu(
        AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, quantization_config=recipe.transformers_config(dtype)
        )
    )
    recipe = recipe.completed(quantized)
    # Two modules of each layer have no LoRA, but they must be dequantized too.
    train(tmp_path / "adapter", directory, target_modules=LINEAR[:-2])
    lora = load_file(tmp_path / "adapter/adapter_model.safetensors")
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", directory, recipe), tmp_path / "ours")

    expected = tensors(directory)
    for name in recipe.modules:
        weight = _dequantized(quantized.get_submodule(name)).float()
        if f"base_model.model.{name}.lora_A.weight" in lora:
            a, b = (lora[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
            weight = weight + (b @ a) * 2.0
        expected[f"{name}.weight"] = weight.to(torch.bfloat16)
    assert len(recipe.modules) == 14
    require_equal(tensors(merged.path), expected)


def _dequantized(module: Any) -> torch.Tensor:
    import bitsandbytes.functional as bnb

    return bnb.dequantize_4bit(module.weight.data, module.weight.quant_state).reshape(module.out_features, -1)


# The kernel's high-water mark is used because a child inherits ru_maxrss from the process that started it.
_MEASURE = """
import re, sys, torch
from sqlquarry import AdapterCheckpoint, AdapterMerger
torch.ones(64, 64) @ torch.ones(64, 64)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024
before = peak()
AdapterMerger().merge(AdapterCheckpoint.load(sys.argv[1]), sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from Linux's /proc")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    count, shape = 64, (1024, 2048)  # 4.2 MB each in bf16, 268 MB in all
    (tmp_path / "base").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "base/config.json").write_text('{"tie_word_embeddings": true}')
    weight = torch.randn(shape).to(torch.bfloat16)
    names = [f"model.layers.{n}.up_proj" for n in range(count)]
    save_file({f"{name}.weight": weight.clone() for name in names}, tmp_path / "base/model.safetensors")
    lora = {f"base_model.model.{name}.lora_A.weight": torch.randn(8, shape[1]) for name in names}
    lora |= {f"base_model.model.{name}.lora_B.weight": torch.randn(shape[0], 8) for name in names}
    save_file(lora, tmp_path / "adapter/adapter_model.safetensors")
    LoraConfig(r=8, target_modules=["up_proj"]).save_pretrained(tmp_path / "adapter")
    finish(tmp_path / "adapter", tmp_path / "base")
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "adapter"), str(tmp_path / "out")]
    grown_mb = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown_mb < 120


def test_merging_imports_neither_transformers_nor_peft() -> None:
    code = "import sys, sqlquarry.merging; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
