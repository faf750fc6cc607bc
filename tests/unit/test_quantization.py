"""Quantization on a CPU reproduces the 4-bit values of a training on CUDA."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import bitsandbytes
import bitsandbytes.functional as bnb
import pytest
import torch
from transformers.utils import logging

from sqlquarry.errors import ConfigError, UnsupportedModelError
from sqlquarry.pretrained import load_causal_lm, quiet_transformers
from sqlquarry.quantization import QuantizationRecipe, hold_dequantized, keep_trainable_on_cpu
from sqlquarry.training.steps.meta_loading import MetaLoadedBase

from conftest import save_tiny_llama

# Shape, spread and dtype of torch.randn, which is seeded by the number of the case. Then the results of bitsandbytes
# 0.50.2 on an H100: the offset of the scales, and the first digits of the SHA-256 of the dequantized bytes.
ON_CUDA = [
    ((512, 1024), 0.02, "bfloat16", 0.05194646120071411, "326fdb1401dc7f31"),
    ((256, 1024), 1.0, "bfloat16", 2.599742889404297, "3bc7f2a3e5cbe471"),
    ((256, 768), 0.05, "float32", 0.1294487565755844, "a84a752b03d86bdc"),
    ((130, 576), 0.3, "bfloat16", 0.7779681086540222, "f333ba90c8b1453c"),
    ((512, 512), 0.02, "float16", 0.052044548094272614, "bbc63d364dd38704"),
]


@pytest.mark.parametrize("case", range(len(ON_CUDA)))
def test_values_of_cuda_are_reproduced_bit_for_bit(case: int) -> None:
    shape, spread, dtype, offset, digest = ON_CUDA[case]
    weight = (torch.randn(*shape, generator=torch.Generator().manual_seed(case)) * spread).to(getattr(torch, dtype))
    recipe = QuantizationRecipe(load_dtype=dtype, device="cuda", modules=("layer",), offsets=(offset,))
    assert sha256(recipe.round_trip(weight, "layer")) == digest
    # bitsandbytes' CPU code rounds some scales differently, so the bytes differ if the device is not recorded.
    assert sha256(QuantizationRecipe(load_dtype=dtype).round_trip(weight)) != digest


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("double_quantization", [True, False])
def test_values_on_the_cpu_equal_those_of_a_4_bit_layer(quant_type: str, *, double_quantization: bool) -> None:
    import bitsandbytes

    weight = torch.randn(96, 320, generator=torch.Generator().manual_seed(1)) * 0.05
    layer = bitsandbytes.nn.Linear4bit(
        320, 96, bias=False, quant_type=quant_type, compress_statistics=double_quantization
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, quant_type=quant_type, compress_statistics=double_quantization
    )
    layer = layer.to("cpu")
    expected = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    recipe = QuantizationRecipe(quant_type=quant_type, double_quantization=double_quantization, load_dtype="float32")
    assert torch.equal(recipe.round_trip(weight), expected)


def test_packed_weights_have_the_settings_of_the_recipe() -> None:
    weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(2))
    recipe = QuantizationRecipe(quant_type="fp4", block_size=128, double_quantization=False, storage_dtype="uint8")
    for made in (recipe, QuantizationRecipe()):
        packed = made.pack(weight)
        state = packed.quant_state
        assert packed.requires_grad is False
        assert packed.dtype == getattr(torch, made.storage_dtype)
        assert (state.quant_type, state.blocksize, state.nested) == (
            made.quant_type,
            made.block_size,
            made.double_quantization,
        )
        assert state.dtype == torch.bfloat16
        assert torch.equal(bnb.dequantize_4bit(packed.data, state), made.round_trip(weight))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("base"))


def layers_of(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


def test_no_4_bit_layer_uses_the_cpu_path_that_ruins_gradients(base: Path) -> None:
    recipe = QuantizationRecipe(load_dtype="float32")
    parts = MetaLoadedBase(base, torch.device("cpu"), recipe, held=False, attn_implementation="sdpa").model
    for model in (load_causal_lm(base, "cpu", recipe), parts):
        assert len(layers_of(model)) == 2 * 7
        assert all(layer.support_avx512bf16_for_cpu is False for layer in layers_of(model))
        assert model.is_loaded_in_4bit  # PEFT reads this
    assert layers_of(load_causal_lm(base, "cpu")) == []


def test_held_values_are_those_of_the_4_bit_layers_and_leave_no_trace_of_quantization(
    base: Path, tmp_path: Path
) -> None:
    model = load_causal_lm(base, "cpu", QuantizationRecipe(load_dtype="float32"))
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        expected = model(tokens).logits
        held = hold_dequantized(model, torch.float32)
        torch.testing.assert_close(held(tokens).logits, expected)
    assert layers_of(held) == []
    assert not any(value.requires_grad for name, value in held.named_parameters() if "proj" in name)
    assert held.is_loaded_in_4bit is False
    assert held.is_quantized is False
    held.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_of_transformers_are_off_only_in_the_block(shown: bool) -> None:
    before = logging.is_progress_bar_enabled()
    try:
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
        with quiet_transformers():
            assert not logging.is_progress_bar_enabled()
        assert logging.is_progress_bar_enabled() is shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def sha256(values: torch.Tensor) -> str:
    return hashlib.sha256(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle ran",))


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 4,
    }
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | sizes)
    )
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(UnsupportedModelError, match=f"{re.escape(str(tmp_path))} .*safetensors") as caught:
        load_causal_lm(tmp_path, "cpu")
    assert isinstance(caught.value.__cause__, OSError)  # transformers found no file to load


@pytest.mark.parametrize(
    "fields",
    [
        *([], "nf4", {"unknown": 1}, {"modules": 3}, {"modules": [3]}, {"offsets": ["x"]}, {"offsets": [True]}),
        *(
            {"storage_dtype": "load"},
            {"load_dtype": "save"},
            {"block_size": 0},
            {"block_size": 64.0},
            {"quant_type": "int8"},
        ),
        *({"double_quantization": "no"}, {"device": None}),
    ],
)
def test_an_invalid_recipe_in_a_manifest_is_refused(fields: Any) -> None:
    with pytest.raises(ConfigError, match="recipe"):
        QuantizationRecipe.of(fields)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (7, 96), (5, 16), (64, 32), (4, 34), (16, 192), (12, 80)])
def test_weights_that_bitsandbytes_misreads_on_this_processor_are_refused(rows: int, columns: int) -> None:
    values = torch.randn(rows, columns) * torch.logspace(-1, 2, rows)[:, None]
    layer = bitsandbytes.nn.Linear4bit(columns, rows, bias=False, quant_type="nf4")
    layer.weight = QuantizationRecipe().pack(values, layer)
    read = bnb.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    if (read - values).norm() < 0.2 * values.norm():
        assert keep_trainable_on_cpu(torch.nn.Sequential(layer))[0].support_avx512bf16_for_cpu is False
    else:
        with pytest.raises(UnsupportedModelError, match=rf"^0 .*\b{columns} columns"):
            keep_trainable_on_cpu(torch.nn.Sequential(layer))
    assert (QuantizationRecipe().round_trip(values).float() - values).norm() < 0.2 * values.norm()
