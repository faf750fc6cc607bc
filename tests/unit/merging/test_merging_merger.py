"""Test what AdapterMerger accepts, refuses and writes, with checkpoints of five tensors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from merging_fakes import UP, Q, base_tensors, lora_tensors, write_adapter, write_base
from sqlquarry import AdapterMerger, MergedModel, PromptFormatter
from sqlquarry.errors import (
    ConfigError,
    CorruptArtifactError,
    IncompleteArtifactError,
    MergeError,
    PromptMismatchError,
    SQLQuarryError,
    UnsupportedAdapterError,
    UnsupportedModelError,
    UnusedTensorsError,
)
from sqlquarry.manifests import base_digest, write_manifest
from sqlquarry.merging import Thresholds
from sqlquarry.quantization import QuantizationRecipe

A_OF_Q = f"base_model.model.{Q}.lora_A.weight"
B_OF_Q = f"base_model.model.{Q}.lora_B.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def test_the_merge_is_base_plus_scaled_product_rounded_once(base: Path, tmp_path: Path) -> None:
    merged = AdapterMerger().merge(write_adapter(tmp_path / "adapter", base), tmp_path / "out")
    result, before, lora = load_file(merged.path / "model.safetensors"), base_tensors(), lora_tensors()
    for module in (Q, UP):
        a, b = (lora[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        expected = (before[f"{module}.weight"].float() + (b @ a) * 2.0).to(torch.bfloat16)
        assert torch.equal(result[f"{module}.weight"], expected)
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
        assert torch.equal(result[name], before[name])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rank=st.integers(1, 64), alpha=st.floats(-1e4, 1e4), rslora=st.booleans())
def test_a_zero_b_gives_the_bytes_of_the_base(tmp_path: Path, rank: int, alpha: float, rslora: bool) -> None:
    for name in ("base", "adapter", "out"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    base = write_base(tmp_path / "base")
    tensors = lora_tensors(rank, scale=0.0)
    adapter = write_adapter(tmp_path / "adapter", base, tensors, r=rank, lora_alpha=alpha, use_rslora=rslora)
    AdapterMerger().merge(adapter, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_the_result_is_a_finished_artifact_with_its_origin(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    AdapterMerger().merge(adapter, tmp_path / "out")
    merged = MergedModel.load(tmp_path / "out", verify=True)
    assert set(merged.manifest.files) == {
        "LICENSE.txt", "config.json", "model.safetensors", "prompt.json", "tokenizer.json",
    }  # fmt: skip
    assert {p.name for p in merged.path.iterdir()} == {*merged.manifest.files, "manifest.json"}
    assert (merged.path / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert merged.prompt_fingerprint == adapter.prompt_fingerprint == PromptFormatter.load(merged.path).fingerprint
    provenance = merged.manifest.provenance
    assert provenance["base_model"] == adapter.manifest.provenance["base_model"]
    assert provenance["merge"]["base"] == "original"
    assert provenance["merge"]["adapter_digest"] == adapter.manifest.digest
    assert provenance["merge"]["merged_tensors"] == 2
    lora, before = lora_tensors(), base_tensors()
    sizes = [
        2 * (lora[f"base_model.model.{m}.lora_B.weight"] @ lora[f"base_model.model.{m}.lora_A.weight"]).norm()
        / before[f"{m}.weight"].float().norm()
        for m in (Q, UP)
    ]  # fmt: skip
    assert provenance["merge"]["mean_relative_update"] == pytest.approx(float(sum(sizes)) / 2, rel=1e-5)


def test_only_the_listed_modules_go_through_the_4_bit_recipe(base: Path, tmp_path: Path) -> None:
    recipe = QuantizationRecipe(modules=(Q,), storage_dtype="uint8")
    adapter = write_adapter(tmp_path / "adapter", base, recipe=recipe)
    merged = AdapterMerger().merge(adapter, tmp_path / "out")
    original = AdapterMerger(base="original").merge(adapter, tmp_path / "original")
    assert merged.merge.base == "dequantized"
    assert merged.manifest.provenance["quantization"]["modules"] == [Q]
    result, other, before, lora = (
        load_file(merged.path / "model.safetensors"), load_file(original.path / "model.safetensors"),
        base_tensors(), lora_tensors(),
    )  # fmt: skip
    delta = (lora[B_OF_Q] @ lora[A_OF_Q]) * 2.0
    rounded = recipe.round_trip(before[f"{Q}.weight"])
    assert not torch.equal(rounded, before[f"{Q}.weight"])
    assert torch.equal(result[f"{Q}.weight"], (rounded.float() + delta).to(torch.bfloat16))
    assert torch.equal(other[f"{Q}.weight"], (before[f"{Q}.weight"].float() + delta).to(torch.bfloat16))
    for name in before.keys() - {f"{Q}.weight"}:
        assert torch.equal(result[name], other[name])


def test_large_shards_are_split_into_a_readable_index(tmp_path: Path) -> None:
    tensors = base_tensors()
    first = {name: tensors.pop(name) for name in ("model.norm.weight",)}
    base = write_base(tmp_path / "base", first, tensors)
    adapter = write_adapter(tmp_path / "adapter", base)
    whole = AdapterMerger().merge(adapter, tmp_path / "whole")
    split = AdapterMerger(max_shard_bytes=13_000).merge(adapter, tmp_path / "split")
    assert (whole.path / "model.safetensors.index.json").read_bytes() == (
        base / "model.safetensors.index.json"
    ).read_bytes()
    index = json.loads((split.path / "model.safetensors.index.json").read_text())
    files = sorted(p.name for p in split.path.glob("*.safetensors"))
    assert files == [f"model-{n:05d}-of-00004.safetensors" for n in range(1, 5)]
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in base_tensors().values())
    expected = {k: v for p in whole.path.glob("*.safetensors") for k, v in load_file(p).items()}
    assert index["weight_map"].keys() == expected.keys()
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(split.path / file)[name], expected[name])
    for file in files:
        assert sum(t.nbytes for t in load_file(split.path / file).values()) <= 13_000


def test_a_split_single_file_gets_an_index(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    merged = AdapterMerger(max_shard_bytes=1).merge(adapter, tmp_path / "out")
    assert not (merged.path / "model.safetensors").exists()
    assert len(list(merged.path.glob("*.safetensors"))) == len(base_tensors())
    assert "model.safetensors.index.json" in merged.manifest.files


REFUSED = {
    "alora_invocation_tokens": [1, 2],
    "arrow_config": {"top_k": 1},
    "fan_in_fan_out": True,
    "init_lora_weights": "pissa_niter_4",
    "kasa_config": {"beta": 1.0},
    "layer_replication": [[0, 1]],
    "megatron_config": {"x": 1},
    "peft_type": "LOHA",
    "use_bdlora": {"nblocks": 2},
    "use_qalora": True,
}


@pytest.mark.parametrize(
    ("field", "value"),
    [*REFUSED.items(), *(("init_lora_weights", init) for init in ("olora", "corda", "loftq", "lora_ga"))],
)
def test_kinds_that_would_merge_wrongly_are_refused_with_the_reason(
    base: Path, tmp_path: Path, field: str, value: object
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, **{field: value})
    with pytest.raises(UnsupportedAdapterError, match=rf"\b{field}\b"):
        AdapterMerger().merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_inits_that_leave_the_base_alone_are_merged(base: Path, tmp_path: Path, init: object) -> None:
    plain = AdapterMerger().merge(write_adapter(tmp_path / "plain", base), tmp_path / "expected")
    adapter = write_adapter(tmp_path / "adapter", base, init_lora_weights=init)
    merged = AdapterMerger().merge(adapter, tmp_path / "out")
    assert (merged.path / "model.safetensors").read_bytes() == (plain.path / "model.safetensors").read_bytes()


def test_leftover_tensors_are_counted_and_named(base: Path, tmp_path: Path) -> None:
    extra = {f"base_model.model.model.layers.{n}.q_proj.lora_A.weight": torch.ones(4, 64) for n in range(7)}
    adapter = write_adapter(tmp_path / "adapter", base, lora_tensors() | extra)
    with pytest.raises(UnusedTensorsError, match=r"^7 .*layers\.0.*layers\.4\.[^,]* …") as caught:
        AdapterMerger().merge(adapter, tmp_path / "out")
    assert "layers.5" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in lora_tensors().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (without(A_OF_Q), {}, rf"\blora_A and lora_B\b.* {Q}\b"),
        (without(B_OF_Q), {}, rf"\blora_A and lora_B\b.* {Q}\b"),
        (lora_tensors() | {A_OF_Q: torch.ones(4, 32)}, {}, rf"{A_OF_Q} .*\[4, 32\].* {Q}\.weight .*\[4, 64\]"),
        (lora_tensors() | {B_OF_Q: torch.ones(64, 3)}, {}, rf"{B_OF_Q} .*\[64, 3\].* {Q}\.weight .*\[64, 4\]"),
        (lora_tensors() | {A_OF_Q: torch.tensor(1.0)}, {}, rf"{A_OF_Q} .*\[\].* {Q}\.weight .*\[1, 64\]"),
        (lora_tensors() | {A_OF_Q: torch.empty(0)}, {}, rf"^1 of 4 .* {A_OF_Q}\. .*FSDP"),
        (lora_tensors() | {A_OF_Q: torch.full((4, 64), torch.nan)}, {}, f" {A_OF_Q} .*NaN"),
        (lora_tensors() | {B_OF_Q: torch.full((64, 4), torch.inf)}, {}, f" {B_OF_Q} .*NaN"),
        (lora_tensors() | {B_OF_Q: torch.full((64, 4), 3e38)}, {}, rf" {Q}\.weight .*NaN .*\bBF16\b"),
        ({"base_model.model.lm_head.weight": torch.ones(51, 64)}, {}, r"\b50 .*\.embed_tokens\..* 51 .* lm_head\."),
        ({"base_model.model.lm_head.weight": torch.ones(50, 63)}, {}, r"\[50, 63\].* lm_head\.weight .*\[50, 64\]"),
        ({"base_model.model.model.norm.lora_A.weight": torch.ones(4, 64),
          "base_model.model.model.norm.lora_B.weight": torch.ones(64, 4)}, {}, r"\[4, 64\].* model\.norm\.weight "),
        (lora_tensors(), {"use_dora": True}, rf"DoRA.*lora_magnitude_vector.* {UP}\b"),
        ({}, {}, "^/.*/adapter "),
    ],
)  # fmt: skip
def test_adapters_that_do_not_fit_are_refused(
    base: Path, tmp_path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any], message: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, tensors, **config)
    with pytest.raises(MergeError, match=message):
        AdapterMerger().merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


BREAKAGES: dict[str, tuple[Callable[[Path, Path], object], type[SQLQuarryError], str]] = {
    "no manifest": (lambda _b, a: (a / "manifest.json").unlink(), IncompleteArtifactError, "/adapter .*manifest.json"),
    "adapter cut off": (
        lambda _b, a: damage(a / "adapter_model.safetensors"),
        CorruptArtifactError,
        "/adapter/adapter_model.safetensors",
    ),
    "adapter edited": (
        lambda _b, a: (a / "adapter_config.json").write_text((a / "adapter_config.json").read_text().replace("8", "9")),
        CorruptArtifactError,
        "/adapter/adapter_config.json .*SHA-256",
    ),
    "base gone": (lambda b, _a: shutil.rmtree(b), MergeError, "^some/base .*base_model="),
    "base cut off": (lambda b, _a: damage(b / "model.safetensors"), MergeError, r"/base/model\.safetensors .* bytes"),
    "no weights": (
        lambda b, _a: (b / "model.safetensors").unlink(),
        UnsupportedModelError,
        r"/base .*\bmodel\.safetensors .*\bmodel\.safetensors\.index\.json",
    ),
    "no config": (lambda b, _a: (b / "config.json").unlink(), UnsupportedModelError, r"/base/config\.json "),
    "quantized base": (
        lambda b, _a: (b / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}'),
        UnsupportedModelError,
        "gptq",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken_inputs_are_found_before_any_writing(base: Path, tmp_path: Path, name: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    breakage, error, message = BREAKAGES[name]
    breakage(base, adapter.path)
    with pytest.raises(error, match=message):
        AdapterMerger().merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 13_000])
def test_another_base_of_the_same_shapes_leaves_nothing_behind(tmp_path: Path, max_shard_bytes: int) -> None:
    tensors = base_tensors()
    base = write_base(tmp_path / "base", {"model.norm.weight": tensors.pop("model.norm.weight")}, tensors)
    adapter = write_adapter(tmp_path / "adapter", base)
    (base / "config.json").write_text('{"tie_word_embeddings": false, "rms_norm_eps": 1}')
    found, expected = base_digest(base)[:12], adapter.manifest.provenance["base_model"]["sha256"][:12]
    with pytest.raises(MergeError, match=rf"{re.escape(str(base))} .*{found}.*{expected}.*base_model="):
        AdapterMerger(max_shard_bytes=max_shard_bytes).merge(adapter, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")) + list((tmp_path / "out").glob(".*"))


def test_missing_shards_and_tensors_of_the_index_are_named(tmp_path: Path) -> None:
    tensors = base_tensors()
    base = write_base(tmp_path / "base", {"model.norm.weight": tensors.pop("model.norm.weight")}, tensors)
    adapter = write_adapter(tmp_path / "adapter", base)
    index = base / "model.safetensors.index.json"
    index.write_text(index.read_text().replace('"lm_head.weight"', '"head.weight"'))
    with pytest.raises(MergeError, match=r"/model\.safetensors\.index\.json .*\bhead\.weight\b"):
        AdapterMerger().merge(adapter, tmp_path / "out")
    (base / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MergeError, match=r"/model-00002-of-00002\.safetensors "):
        AdapterMerger().merge(adapter, tmp_path / "out")


def test_a_prompt_other_than_the_trained_one_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    other = PromptFormatter(user="Other words: {question}")
    other.save(adapter.path)
    manifest = json.loads((adapter.path / "manifest.json").read_text())
    write_manifest(adapter.path, "adapter", manifest["provenance"])
    with pytest.raises(PromptMismatchError, match=f"{PromptFormatter().fingerprint}.*{other.fingerprint}"):
        AdapterMerger().merge(adapter, tmp_path / "out")


def test_the_base_may_have_moved(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    expected = AdapterMerger().merge(adapter, tmp_path / "expected")
    base.rename(tmp_path / "moved")
    merged = AdapterMerger(base_model=tmp_path / "moved").merge(adapter, tmp_path / "out")
    assert contents(merged.path) == contents(expected.path)


def test_an_unmergeable_dtype_under_an_update_is_refused(tmp_path: Path) -> None:
    tensors = base_tensors()
    tensors[f"{Q}.weight"] = tensors[f"{Q}.weight"].to(torch.float8_e4m3fn)
    base = write_base(tmp_path / "base", tensors)
    with pytest.raises(UnsupportedModelError, match="F8_E4M3"):
        AdapterMerger().merge(write_adapter(tmp_path / "adapter", base), tmp_path / "out")


def test_a_quantized_module_that_the_base_lacks_is_named(base: Path, tmp_path: Path) -> None:
    recipe = QuantizationRecipe(modules=(Q, "model.layers.9.mlp.up_proj"))
    with pytest.raises(MergeError, match=r"model\.layers\.9\.mlp\.up_proj"):
        AdapterMerger().merge(write_adapter(tmp_path / "adapter", base, recipe=recipe), tmp_path / "out")


def test_options_that_cannot_work(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"base is 'nf4'.*dtype is 'int8'.*max_shard_bytes is 0"):
        AdapterMerger(base="nf4", dtype="int8", max_shard_bytes=0)  # type: ignore[arg-type] - the point of the test
    adapter = write_adapter(tmp_path / "adapter", base)
    with pytest.raises(ConfigError, match=r"base .*'dequantized'.*'auto'"):
        AdapterMerger(base="dequantized").merge(adapter, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"thresholds=.*evaluation="):
        AdapterMerger(thresholds=Thresholds()).merge(adapter, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"merge\(\) .*\(adapter, weight\)"):
        AdapterMerger().merge([], tmp_path / "out")


def test_fp4_codes_of_cuda_are_refused_rather_than_approximated(base: Path, tmp_path: Path) -> None:
    recipe = QuantizationRecipe(modules=(Q,), quant_type="fp4", device="cuda")
    adapter = write_adapter(tmp_path / "adapter", base, recipe=recipe)
    with pytest.raises(MergeError, match=r"FP4.*CUDA.*'nf4'.*base='original'"):
        AdapterMerger().merge(adapter, tmp_path / "out")
    assert AdapterMerger(base="original").merge(adapter, tmp_path / "out").merge.base == "original"


def test_a_manifest_without_its_origin_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    write_manifest(adapter.path, "adapter", {"prompt_fingerprint": PromptFormatter().fingerprint})
    with pytest.raises(MergeError, match="base_model"):
        AdapterMerger().merge(adapter, tmp_path / "out")
