"""Test which adapters are refused, and that each refusal gives its reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from merging_fakes import Q, base_tensors, lora_tensors
from sqlquarry.errors import MergeError, UnsupportedAdapterError, UnusedTensorsError
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.plan import MergePlan, plan_merge
from sqlquarry.merging.refusals import refuse_malformed
from sqlquarry.merging.tensor_file import TensorFile

PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": True}
EMBEDDING = "base_model.model.model.embed_tokens"


def write(directory: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    (directory / "adapter_config.json").write_text(json.dumps(PLAIN | config))
    save_file(lora_tensors() if tensors is None else tensors, directory / "adapter_model.safetensors")
    return directory


def plan(directory: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> MergePlan:
    save_file(base_tensors(), directory / "base.safetensors")
    base = {tensor.name: tensor for tensor in TensorFile.open(directory / "base.safetensors").tensors}
    return plan_merge([(LoraAdapter.open(write(directory, tensors, **config)), 1.0)], base, tied=False)


REASONS: list[tuple[dict[str, Any], str]] = [
    ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights 'pissa_niter_16': PiSSA"),
    ({"init_lora_weights": "OLoRA"}, "init_lora_weights 'OLoRA': OLoRA"),
    ({"init_lora_weights": "corda", "corda_config": {"corda_method": "kpm"}}, "init_lora_weights 'corda': CorDA"),
    ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "init_lora_weights 'loftq': LoftQ"),
    ({"init_lora_weights": "lora_ga"}, "init_lora_weights 'lora_ga': LoRA-GA"),
    ({"kasa_config": {"beta": 1.0}}, "kasa_config: KaSA"),
    ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens: aLoRA"),
    ({"arrow_config": {"top_k": 1}}, "arrow_config: Arrow"),
    ({"use_qalora": True}, "use_qalora: QA-LoRA"),
    ({"use_bdlora": {"nblocks": 2}}, "use_bdlora: BD-LoRA"),
    ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication: "),
    ({"fan_in_fan_out": True}, "fan_in_fan_out: .*Conv1D"),
    ({"megatron_config": {"x": 1}}, "megatron_config: Megatron"),
    ({"use_tomorrows_lora": True}, "use_tomorrows_lora True"),
    ({"tomorrow_config": {"k": 3}}, "tomorrow_config {'k': 3}"),
    ({"peft_type": "VERA"}, "peft_type 'VERA': .*LORA"),
    ({"peft_type": None}, "peft_type None: .*LORA"),
]


@pytest.mark.parametrize(("config", "reason"), REASONS, ids=[next(iter(config)) for config, _ in REASONS])
def test_each_kind_is_refused_with_its_reason(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedAdapterError, match=reason):
        LoraAdapter.open(write(tmp_path, **config))


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", "{"])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str) -> None:
    (write(tmp_path) / "adapter_config.json").write_text(text)
    with pytest.raises(MergeError, match=r"/adapter_config\.json "):
        LoraAdapter.open(tmp_path)


def test_every_reason_is_given_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapterError, match=r"use_qalora: QA-LoRA.*'pissa': PiSSA"):
        LoraAdapter.open(write(tmp_path, use_qalora=True, init_lora_weights="pissa"))


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": False, "use_rslora": True},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": "gaussian", "loftq_config": {}, "corda_config": None},
        {"velora_config": {"num_groups": 32}, "monteclora_config": None},
        {"lora_dropout": 0.1, "layers_to_transform": [0], "exclude_modules": ["lm_head"]},
    ],
    ids=str,
)
def test_what_leaves_the_update_plain_is_accepted(tmp_path: Path, config: dict[str, Any]) -> None:
    assert plan(tmp_path, **config).updates.keys() == {f"{Q}.weight", "model.layers.0.mlp.up_proj.weight"}


def test_the_state_of_a_training_method_is_left_out(tmp_path: Path) -> None:
    state = {f"base_model.model.{Q}.lora_velora_embed": torch.full((4,), torch.nan),
             f"base_model.model.{Q}.lora_monteclora_sampler.mean": torch.ones(3)}  # fmt: skip
    adapter = LoraAdapter.open(write(tmp_path, lora_tensors() | state))
    adapter.require_finite()
    assert adapter.tensors.keys() == lora_tensors().keys()


@pytest.mark.parametrize("indices", [[3, 50], [3, -1], {"lm_head": [3, 4]}, None], ids=str)
def test_token_rows_outside_the_embedding_are_refused(tmp_path: Path, indices: Any) -> None:
    tensors = {f"{EMBEDDING}.token_adapter.trainable_tokens_delta": torch.ones(2, 64)}
    found = None if isinstance(indices, dict) else indices
    with pytest.raises(MergeError, match=rf"embed_tokens.*\b50\b.*trainable_token_indices .*{re.escape(repr(found))}"):
        plan(tmp_path, tensors, trainable_token_indices=indices)


def test_a_wrong_number_of_token_rows_is_refused(tmp_path: Path) -> None:
    tensors = {f"{EMBEDDING}.token_adapter.trainable_tokens_delta": torch.ones(2, 64)}
    with pytest.raises(MergeError, match=r"\[2, 64\].*\[3, 64\]"):
        plan(tmp_path, tensors, trainable_token_indices=[1, 2, 3])


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({"lora_B.bias": torch.ones(64)}, UnsupportedAdapterError, rf"lora_bias: .*{Q}\.lora_B\.bias"),
        ({"lora_magnitude_vector": torch.ones(63)}, MergeError, r"lora_magnitude_vector .*\[63\].*\[64\]"),
        ({"lora_new_factor": torch.ones(4)}, UnusedTensorsError, rf"{Q}\.lora_new_factor"),
    ],
)
def test_tensors_that_do_not_fit_the_base_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], error: type[MergeError], message: str
) -> None:
    extra = {f"base_model.model.{Q}.{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(error, match=message):
        plan(tmp_path, lora_tensors() | extra)


def test_a_magnitude_without_factors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match=r"lora_magnitude_vector .*\bmodel\.norm\b.* lora_A\b"):
        plan(tmp_path, lora_tensors() | {"base_model.model.model.norm.lora_magnitude_vector": torch.ones(64)})


@pytest.mark.parametrize(
    "fields",
    [
        *({"lora_alpha": value} for value in ("8", None, [8], True)),
        *({"alpha_pattern": value} for value in (["q_proj"], {"q_proj": "8"}, {"(": 8}, {"a{99999999999}": 8}, "x")),
        # With a name of 60 characters, each of these patterns takes far too long.
        *({"alpha_pattern": {value: 8}} for value in ("(.*)*x", "(a|a|.)+x", ".*.*.*.*.*x", "(?:.+){9}x", "q" * 501)),
        *({"target_parameters": value} for value in ("x", {"a": 1}, 3)),
        *({"trainable_token_indices": value} for value in (["1"], {"embed_tokens": 3}, [1.0], [True], 3)),
    ],
)
def test_values_that_a_merge_cannot_compute_with_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(MergeError, match=next(iter(fields))):
        refuse_malformed({"peft_type": "LORA"} | fields)


def test_values_of_peft_are_accepted() -> None:
    patterns = {"q_proj": 16, r"^model\.layers\.[0-3]\.self_attn": 4.5, ".*mlp.*": 8, "model.layers.(0|1).x": 1}
    fields = {"lora_alpha": 16.5, "alpha_pattern": patterns, "target_parameters": ["experts.gate_up_proj"]}
    refuse_malformed({"peft_type": "LORA"})
    refuse_malformed(fields | {"trainable_token_indices": [1, 2]})
    refuse_malformed(fields | {"trainable_token_indices": {"embed_tokens": [0]}, "alpha_pattern": None})
