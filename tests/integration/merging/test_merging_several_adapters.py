"""Compare merges of several adapters with PEFT's add_weighted_adapter(combination_type="cat"), and test sums."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from merging_models import LINEAR, Base, make_base, our_merge, require_equal, saved, train
from sqlquarry.errors import ConfigError, UnsupportedAdapterError

KINDS: list[dict[str, Any]] = [
    {"target_modules": ["q_proj", "up_proj"], "alpha_pattern": {"q_proj": 3}},
    {"r": 8, "target_modules": LINEAR, "use_rslora": True},
    {"r": 2, "target_modules": ["v_proj", "up_proj", "down_proj"], "rank_pattern": {"up_proj": 3}},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base("Qwen2", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def exact_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base("Qwen2", tmp_path_factory.mktemp("exact"), dtype=torch.float32)


@pytest.fixture(scope="module")
def adapters(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp(f"adapter{n}") for n in range(len(KINDS))]
    for seed, (path, options) in enumerate(zip(paths, KINDS, strict=True)):
        train(base, path, seed=seed, **options)
    return paths


def peft_sum(base: Base, adapters: list[Path], weights: list[float], kind: str) -> tuple[dict[str, torch.Tensor], bool]:
    model = PeftModel.from_pretrained(base.load(), adapters[0], adapter_name="0")
    for number, path in enumerate(adapters[1:], 1):
        model.load_adapter(path, adapter_name=str(number))
    names = [str(number) for number in range(len(adapters))]
    model.add_weighted_adapter(names, weights, "sum", combination_type=kind)
    model.set_adapter("sum")
    return saved(model.merge_and_unload(adapter_names=["sum"]))


@pytest.mark.parametrize("weights", [[0.7, 0.3, -0.5], [0.5, 0.0, 2.0]], ids=str)
def test_equals_pefts_cat_bit_for_bit_and_not_its_linear(
    exact_base: Base, adapters: list[Path], weights: list[float]
) -> None:
    # The base is fp32 because PEFT computes the factors of the sum in the base's dtype, and bf16 would round them.
    merged = our_merge(exact_base, *zip(adapters, weights, strict=True))
    require_equal(merged, peft_sum(exact_base, adapters, weights, "cat"))
    same_rank, half = [adapters[0], adapters[0]], [0.5, 0.25]
    linear, _ = peft_sum(exact_base, same_rank, half, "linear")
    ours, _ = our_merge(exact_base, *zip(same_rank, half, strict=True))
    name = "model.layers.0.mlp.up_proj.weight"
    assert float((linear[name] - ours[name]).abs().max()) > 1e-4


def test_adapters_of_weight_one_equal_pefts_merge_of_all(exact_base: Base, adapters: list[Path]) -> None:
    model = PeftModel.from_pretrained(exact_base.load(), adapters[0], adapter_name="0")
    for number, path in enumerate(adapters[1:], 1):
        model.load_adapter(path, adapter_name=str(number))
    expected, _ = saved(model.merge_and_unload(adapter_names=["0", "1", "2"]))
    merged, _ = our_merge(exact_base, *((path, 1.0) for path in adapters))
    close(merged, expected)


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)


def test_the_order_of_adapters_is_irrelevant(base: Base, adapters: list[Path]) -> None:
    weighted = list(zip(adapters, [0.4, 1.1, -0.2], strict=True))
    forwards, _ = our_merge(base, *weighted, dtype=torch.float32)
    backwards, _ = our_merge(base, *reversed(weighted), dtype=torch.float32)
    close(forwards, backwards)


def test_a_sum_is_the_sum_of_its_parts(base: Base, adapters: list[Path]) -> None:
    weights = [0.4, 1.1, -0.2]
    before = {name: value.float() for name, value in load_file(base.directory / "model.safetensors").items()}
    expected = {name: value.clone() for name, value in before.items()}
    for path, weight in zip(adapters, weights, strict=True):
        alone, _ = our_merge(base, (path, 1.0), dtype=torch.float32)
        for name, value in alone.items():
            expected[name] += weight * (value - before[name])
    together, _ = our_merge(base, *zip(adapters, weights, strict=True), dtype=torch.float32)
    close(together, expected)


def test_one_adapter_twice_is_the_adapter_with_the_summed_weight(base: Base, adapters: list[Path]) -> None:
    twice, _ = our_merge(base, (adapters[1], 0.25), (adapters[1], 0.5), dtype=torch.float32)
    once, _ = our_merge(base, (adapters[1], 0.75), dtype=torch.float32)
    close(twice, once)


def test_lora_biases_add_up(base: Base, tmp_path: Path) -> None:
    for seed in range(2):
        train(base, tmp_path / str(seed), seed=seed, target_modules=["q_proj"], lora_bias=True, lora_alpha=2)
    merged, _ = our_merge(base, (tmp_path / "0", 0.5), (tmp_path / "1", 3.0), dtype=torch.float32)
    key = "model.layers.0.self_attn.q_proj"
    first, second = (load_file(tmp_path / f"{n}/adapter_model.safetensors") for n in range(2))
    b = f"base_model.model.{key}.lora_B.bias"
    expected = load_file(base.directory / "model.safetensors")[f"{key}.bias"].float()
    torch.testing.assert_close(merged[f"{key}.bias"], expected + 0.5 * 0.5 * first[b] + 3.0 * 0.5 * second[b])


def test_two_adapters_on_an_untied_head_share_its_saved_base(base: Base, tmp_path: Path) -> None:
    paths = [tmp_path / str(seed) for seed in range(2)]
    for seed, path in enumerate(paths):
        train(base, path, seed=seed, target_modules=["lm_head", "embed_tokens"])
    merged, _ = our_merge(base, (paths[0], 1.0), (paths[1], 1.0), dtype=torch.float32)
    alone = [our_merge(base, (path, 1.0), dtype=torch.float32)[0] for path in paths]
    before = load_file(base.directory / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        expected = alone[0][name] + alone[1][name] - before[name].float()
        torch.testing.assert_close(merged[name], expected, rtol=1e-5, atol=1e-6)
    tampered = load_file(paths[1] / "adapter_model.safetensors")
    tampered["base_model.model.lm_head.base_layer.weight"][0, 0] += 1
    save_file(tampered, paths[1] / "adapter_model.safetensors")
    with pytest.raises(UnsupportedAdapterError, match=r"\bbase \(lm_head\.weight\)"):
        our_merge(base, (paths[0], 1.0), (paths[1], 1.0))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, r"\bDoRA .*_proj\.weight\)"),
        ({"modules_to_save": ["lm_head"]}, r"\(lm_head\.weight\)"),
        ({"trainable_token_indices": [4]}, r"\(model\.embed_tokens\.weight\)"),
        ({"bias": "all"}, r"_proj\.bias\)"),
    ],
    ids=str,
)
def test_updates_that_cannot_be_added_are_refused(
    base: Base, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    train(base, tmp_path / "one", **options)
    train(base, tmp_path / "two", seed=2, target_modules=["o_proj"])
    for pairs in ([("one", 0.5)], [("one", 1.0), ("one", 1.0)]):
        with pytest.raises(UnsupportedAdapterError, match=rf"\b{pairs[0][1]:g} .*{reason}"):
            our_merge(base, *((tmp_path / name, weight) for name, weight in pairs))


@pytest.mark.parametrize("weights", [[], [float("nan")], [1.0, float("inf")]], ids=str)
def test_weights_that_are_not_finite_are_refused(base: Base, adapters: list[Path], weights: list[float]) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(weights))):
        our_merge(base, *zip(adapters, weights, strict=False))


def test_the_update_is_linear_in_alpha(base: Base, adapters: list[Path], tmp_path: Path) -> None:
    (tmp_path / "double").mkdir()
    config = json.loads((adapters[2] / "adapter_config.json").read_text())
    (tmp_path / "double/adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 2 * config["lora_alpha"]}))
    save_file(load_file(adapters[2] / "adapter_model.safetensors"), tmp_path / "double/adapter_model.safetensors")
    double, _ = our_merge(base, (tmp_path / "double", 1.0), dtype=torch.float32)
    weighted, _ = our_merge(base, (adapters[2], 2.0), dtype=torch.float32)
    close(double, weighted)
