"""The names of adapter tensors are converted to those that PEFT writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.adoption.names import is_frozen_copy, normal_name

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
TABLE = "base_model.model.model.embed_tokens"
SAVED = [  # as PEFT 0.21 saves them, and in the state dict of its model
    (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_A.NAME.weight"),
    (f"{LAYER}.lora_B.weight", f"{LAYER}.lora_B.NAME.weight"),
    (f"{LAYER}.lora_B.bias", f"{LAYER}.lora_B.NAME.bias"),
    (f"{LAYER}.lora_magnitude_vector", f"{LAYER}.lora_magnitude_vector.NAME.weight"),
    (f"{LAYER}.base_layer.bias", f"{LAYER}.base_layer.bias"),
    (f"{TABLE}.lora_embedding_A", f"{TABLE}.lora_embedding_A.NAME"),
    (f"{TABLE}.base_layer.weight", f"{TABLE}.base_layer.weight"),
    (f"{TABLE}.weight", f"{TABLE}.modules_to_save.NAME.weight"),
    (f"{TABLE}.weight", f"{TABLE}.modules_to_save.weight"),
    (f"{TABLE}.token_adapter.trainable_tokens_delta", f"{TABLE}.token_adapter.trainable_tokens_delta.NAME"),
    (f"{TABLE}.token_adapter.base_layer.weight", f"{TABLE}.token_adapter.base_layer.weight"),
    ("base_model.model.model.layers.0.mlp.up_proj.weight",
     "base_model.model.model.layers.0.mlp.modules_to_save.NAME.up_proj.weight"),
]  # fmt: skip
WRAPPERS = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]


@pytest.mark.parametrize(("saved", "in_state_dict"), SAVED)
@pytest.mark.parametrize("adapter", ["default", "sql", "model", "base_model"])
def test_a_state_dict_has_the_names_of_a_saved_adapter(saved: str, in_state_dict: str, adapter: str) -> None:
    assert normal_name(in_state_dict.replace("NAME", adapter)) == saved


@given(st.sampled_from(SAVED), st.lists(st.tuples(st.integers(0, 20), st.sampled_from(WRAPPERS))), st.data())
def test_wrappers_do_not_change_a_name(
    names: tuple[str, str], wrappers: list[tuple[int, str]], data: st.DataObject
) -> None:
    saved, in_state_dict = names
    parts = in_state_dict.replace("NAME", "default").split(".")
    for place, wrapper in wrappers:
        parts.insert(place % len(parts), wrapper)
    leading = data.draw(st.lists(st.sampled_from(["module", "model", *WRAPPERS]), max_size=3))
    assert normal_name(".".join([*leading, *parts])) == saved


@given(st.lists(st.sampled_from([*WRAPPERS, "module", "model", "base_model", "lora_A", "weight", "default", "x", "0"])))
def test_a_normal_name_stays_the_same(parts: list[str]) -> None:
    once = normal_name(".".join(["base_model", "model", *parts]))
    if "lora_A" not in parts[:-2]:  # a name that PEFT never writes may need several steps
        assert normal_name(once) == once


@pytest.mark.parametrize("name", [f"{LAYER}.lora_A.a.b.weight", "prompt_embeddings", "score.weight", "module.x.weight"])
def test_other_names_are_left_unchanged(name: str) -> None:
    assert normal_name(name) == name


def test_frozen_copies_are_recognized() -> None:
    assert is_frozen_copy(normal_name(f"_orig_mod.{TABLE}.original_module.weight"))
    assert not any(is_frozen_copy(saved) for saved, _ in SAVED)
