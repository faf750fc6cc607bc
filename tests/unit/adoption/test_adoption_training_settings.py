"""The quantization of a training comes from the adapter's files or from the caller, and both must agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig

from sqlquarry.adoption.adapter_files import AdapterFiles
from sqlquarry.adoption.four_bit_recipe import FourBitSettings
from sqlquarry.adoption.training_settings import decide, detected
from sqlquarry.errors import AdoptionError, ConfigError, UnsupportedModelError
from sqlquarry.merging.storage.local import LocalFile
from sqlquarry.merging.tensor_file import StoredTensor

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
QLORA = FourBitSettings()
CARD = (
    "---\nlibrary_name: peft\n---\naxolotl version: `0.19.0`\n"
    "```yaml\nadapter: {adapter}\nload_in_{bits}bit: {on}\n```\n"
)


def settings(folder: Path, quantization: Any, base: str | None = None, **files: Any) -> FourBitSettings | None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content if isinstance(content, str) else json.dumps(content))
    found = AdapterFiles(folder, {"base_model_name_or_path": base}, folder / "adapter_model.safetensors")
    return decide(quantization, detected(found))


@pytest.mark.parametrize(
    ("base", "files", "expected"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", {}, QLORA),
        ("/models/Llama-3-8B-BNB-4bit/", {}, QLORA),
        (None, {"config_json": {"quantization_config": NF4}}, QLORA),
        (None, {"config_json": {"quantization_config": NF4, "dtype": "float16"}},
         FourBitSettings(load_dtype="float16")),
        (None, {"config_json": {"quantization_config": NF4 | {"llm_int8_skip_modules": ["lm_head"]}}},
         FourBitSettings(skip_modules=("lm_head",))),
        (None, {"README_md": CARD.format(adapter="qlora", bits=4, on="true")}, QLORA),
        (None, {"README_md": CARD.format(adapter="lora", bits=4, on="false")}, None),
        (None, {"README_md": CARD.format(adapter="lora", bits=4, on="True  # QLoRA")}, QLORA),
        (None, {"README_md": CARD.format(adapter='"qlora"', bits=8, on="false").replace("\n", "\r\n")}, QLORA),
    ],
)  # fmt: skip
def test_the_files_tell(tmp_path: Path, base: str | None, files: Any, expected: FourBitSettings | None) -> None:
    assert settings(tmp_path, "auto", base, **files) == expected


@pytest.mark.parametrize(
    ("quantization", "base", "files", "value"),
    [
        ("auto", None, {}, "quantization=None"),
        ("auto", "meta-llama/Llama-3-8B", {"config_json": {}}, "'nf4'"),
        ("auto", "unsloth/Llama-3.2-1B-unsloth-bnb-4bit", {}, "Llama-3.2-1B-unsloth-bnb-4bit"),
        ("nf4", "unsloth/Llama-3.2-1B-unsloth-bnb-4bit", {}, "Llama-3.2-1B-unsloth-bnb-4bit"),
        (None, "unsloth/Llama-3.2-1B-bnb-4bit", {}, "Llama-3.2-1B-bnb-4bit"),
        ("fp4", "unsloth/Llama-3.2-1B-bnb-4bit", {}, "'fp4' here and 'nf4'"),
        ("nf4", None, {"README_md": CARD.format(adapter="lora", bits=4, on="false")}, "16-bit"),
        ("auto", None, {"README_md": CARD.format(adapter="lora", bits=8, on="true")}, "8 bits"),
        ("auto", None, {"README_md": CARD.format(adapter="", bits=4, on="false")}, "quantization=None"),
        ("auto", "TheBloke/Llama-2-7B-GPTQ", {}, "Llama-2-7B-GPTQ"),
        ("nf4", "unsloth/Qwen3-8B-bnb-8bit", {}, "Qwen3-8B-bnb-8bit"),
        ("nf4", None, {"config_json": {"quantization_config": {"quant_method": "gptq"}}}, "config.json"),
        ("auto", "a/b-bnb-4bit", {"README_md": CARD.format(adapter="lora", bits=4, on="false")}, "16-bit"),
        (NF4 | {"bnb_4bit_use_double_quant": False}, "a/b-bnb-4bit", {}, "double_quantization"),
        ("int8", None, {}, "'int8'"),
        ("gptq", None, {}, "'gptq'"),
        (4, None, {}, "quantization is 4"),
        (FourBitSettings, None, {}, "FourBitSettings"),
        (BitsAndBytesConfig, None, {}, "BitsAndBytesConfig"),
        (NF4 | {4: True}, None, {}, "4 is unknown"),
        (NF4 | {"load_in_8bit": True}, None, {}, "load_in_8bit is True"),
        ({"load_in_8bit": True}, None, {}, "load_in_4bit is None"),
        ({"quant_method": "gptq", "bits": 4}, None, {}, "'gptq'.*bits is unknown"),
        (NF4 | {"bnb_4bit_quant_type": "int4"}, None, {}, "'int4'"),
        (NF4 | {"bnb_4bit_compute_dtype": "int8"}, None, {}, "'int8'"),
        (NF4 | {"llm_int8_skip_modules": "lm_head"}, None, {}, "'lm_head'"),
        (NF4 | {"llm_int8_skip_modules": ["(a+)+"]}, None, {}, r"\(a\+\)\+"),
    ],
)
def test_what_nobody_says_or_two_say_differently_is_an_error(
    tmp_path: Path, quantization: Any, base: str | None, files: Any, value: str
) -> None:
    with pytest.raises(ConfigError, match=value):
        settings(tmp_path, quantization, base, **files)


@pytest.mark.parametrize(
    ("quantization", "base"),
    [
        (NF4, "unsloth/Llama-3.2-1B-unsloth-bnb-4bit"),
        (NF4, "meta-llama/Llama-3.2-1B"),
        ("nf4", "unsloth/Llama-3.2-1B-bnb-4bit"),
        ("nf4", None),
    ],
)
def test_what_the_caller_says_is_used_if_no_file_contradicts(tmp_path: Path, quantization: Any, base: Any) -> None:
    assert settings(tmp_path, quantization, base) == QLORA


SKIPPED = NF4 | {"llm_int8_skip_modules": ["lm_head", "model.layers.1"]}


@pytest.mark.parametrize(
    ("quantization", "base", "in_config", "agree"),
    [
        (SKIPPED, "unsloth/tiny-bnb-4bit", None, True),
        (SKIPPED, None, SKIPPED, True),
        ("nf4", None, NF4 | {"llm_int8_skip_modules": ["lm_head"]}, True),
        (NF4, None, SKIPPED, False),
        ("nf4", None, SKIPPED, False),
    ],
)
def test_skipped_modules_are_compared_if_a_file_lists_them(
    tmp_path: Path, quantization: Any, base: str | None, in_config: Any, agree: bool
) -> None:
    files = {"config_json": {"quantization_config": in_config}} if in_config else {}
    if agree:
        assert settings(tmp_path, quantization, base, **files) is not None
        return
    with pytest.raises(ConfigError, match=r"model\.layers\.1"):
        settings(tmp_path, quantization, base, **files)


def test_eight_bit_training_can_be_merged_into_the_originals(tmp_path: Path) -> None:
    card = CARD.format(adapter="lora", bits=8, on="true")
    assert settings(tmp_path, None, None, README_md=card) is None


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AdoptionError, match=r"config\.json"):
        settings(tmp_path, "auto", None, config_json="{")


def test_a_bits_and_bytes_config_of_transformers_is_read() -> None:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float16)
    expected = FourBitSettings(quant_type="fp4", double_quantization=False, load_dtype="float16")
    assert decide(config, []) == expected
    with pytest.raises(ConfigError, match="load_in_8bit is True"):
        decide(BitsAndBytesConfig(load_in_8bit=True), [])


def tensors(*names: str) -> dict[str, StoredTensor]:
    return {name: StoredTensor(LocalFile(Path("x")), name, "BF16", (4, 4), 0, 32) for name in names}


LAYERS = ("model.layers.1.mlp.up_proj.weight", "model.layers.11.mlp.up_proj.weight", "model.embed_tokens.weight")


@pytest.mark.parametrize(
    ("skipped", "expected"),
    [
        (None, ("model.layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj")),
        ((), ("lm_head", "model.layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj")),
        (("lm_head", "model.layers.1"), ("model.layers.11.mlp.up_proj",)),
        (("lm_head", "model.layers.11.mlp.up_proj"), ("model.layers.1.mlp.up_proj",)),
    ],
)
def test_skipped_modules_are_left_out(skipped: Any, expected: tuple[str, ...]) -> None:
    recipe = FourBitSettings(skip_modules=skipped).recipe(tensors(*LAYERS, "lm_head.weight"))
    assert recipe.modules == expected
    assert (recipe.device, recipe.offsets) == ("cuda", ())


@pytest.mark.parametrize("key", ["mlp", "up_proj", "layers.1"])
def test_a_name_that_versions_of_transformers_read_differently_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        FourBitSettings(skip_modules=(key,)).recipe(tensors(*LAYERS))


def test_experts_and_unknown_layers_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="experts"):
        QLORA.recipe(tensors("model.layers.0.mlp.experts.0.up_proj.weight"))
    with pytest.raises(UnsupportedModelError, match=r"model\.layers"):
        QLORA.recipe(tensors("transformer.h.0.attn.c_attn.weight"))
