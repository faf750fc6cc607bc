"""A base that is loaded part by part has the same bits as one that is loaded at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.pretrained import load_causal_lm
from sqlquarry.quantization import QuantizationRecipe, hold_dequantized
from sqlquarry.training.steps.meta_loading import MetaLoadedBase

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def bits(model: Any) -> dict[str, torch.Tensor]:
    """Return parameters as bytes, because packed weights can look like NaN, which does not equal itself."""
    return {name: value.data.contiguous().view(torch.uint8) for name, value in model.named_parameters()}


def assert_same(whole: Any, parts: Any) -> None:
    mine, theirs = bits(parts), bits(whole)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    tokens = torch.arange(30)[None]
    with torch.no_grad():
        assert torch.equal(parts.eval()(tokens).logits, whole.eval()(tokens).logits)


@pytest.mark.parametrize("held", [False, True])
def test_4_bit_weights_and_their_recipe_equal_those_of_a_base_loaded_at_once(tiny_llama: Path, *, held: bool) -> None:
    recipe = QuantizationRecipe(load_dtype="float32")
    whole = load_causal_lm(tiny_llama, "cpu", recipe)
    known = recipe.completed(whole)
    if held:
        whole = hold_dequantized(whole, torch.float32)
    loaded = MetaLoadedBase(tiny_llama, CPU, recipe, held=held, attn_implementation="sdpa")
    assert loaded.missing == ()
    assert max(weight.untyped_storage().nbytes() for weight in loaded.model.parameters()) <= 4
    for layer in loaded.model.model.layers:
        loaded.fill(layer)
        assert all(weight.untyped_storage().nbytes() > 4 for weight in layer.parameters())
    assert loaded.model.get_output_embeddings().weight.untyped_storage().nbytes() <= 4
    loaded.fill(loaded.model)
    assert loaded.recorded() == known
    assert_same(whole, loaded.model)


def test_tied_weights_and_biases_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.q_proj.bias)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for recipe in (None, QuantizationRecipe(load_dtype="float32")):
        loaded = MetaLoadedBase(tmp_path, CPU, recipe, held=False, attn_implementation="sdpa")
        loaded.fill(loaded.model)
        assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
        assert_same(load_causal_lm(tmp_path, "cpu", recipe), loaded.model)


def test_experts_which_transformers_fuses_are_reported_as_missing(tmp_path: Path) -> None:
    MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)).save_pretrained(tmp_path)
    loaded = MetaLoadedBase(tmp_path, CPU, None, held=False, attn_implementation="sdpa")
    assert loaded.missing
    assert all("experts" in name or "gate" in name for name in loaded.missing)


def test_a_stored_head_is_ignored_if_it_is_tied_to_the_embeddings(tmp_path: Path) -> None:
    # transformers 5 would use it. transformers 4, on which Bedrock's import is based, and a merge do not.
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    expected = load_causal_lm(tmp_path, "cpu")
    weights = load_file(tmp_path / "model.safetensors")
    head = {"lm_head.weight": torch.randn(300, 64)}
    save_file(weights | head, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = MetaLoadedBase(tmp_path, CPU, None, held=False, attn_implementation="sdpa")
    loaded.fill(loaded.model)
    assert_same(expected, loaded.model)
    assert_same(expected, load_causal_lm(tmp_path, "cpu"))


def test_other_safetensors_in_the_folder_are_ignored(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in weights.items()}, tmp_path / "zzz-backup.safetensors")
    loaded = MetaLoadedBase(tmp_path, CPU, None, held=False, attn_implementation="sdpa")
    loaded.fill(loaded.model)
    assert_same(load_causal_lm(tmp_path, "cpu"), loaded.model)


def test_a_weight_whose_shape_does_not_match_config_json_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.embed_tokens.weight"] = torch.cat([weights["model.embed_tokens.weight"]] * 2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = MetaLoadedBase(tmp_path, CPU, None, held=False, attn_implementation="sdpa")
    rows, columns = weights["model.embed_tokens.weight"].shape
    shapes = rf"\({rows}, {columns}\).*config\.json.*\({rows // 2}, {columns}\)"
    with pytest.raises(UnsupportedModelError, match=rf"model\.embed_tokens\.weight .*{shapes}"):
        loaded.fill(loaded.model)
