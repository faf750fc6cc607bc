"""Two hub ids name the same model if only the owner and the form of the weights differ."""

from __future__ import annotations

import pytest

from sqlquarry.adoption.fit import model_name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "meta-llama/Llama-3.1-8B-Instruct"),
        ("unsloth/llama-3-8b-unsloth-bnb-4bit", "meta-llama/Meta-Llama-3-8B"),
        ("unsloth/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("unsloth/mistral-7b-v0.3-bnb-4bit", "mistralai/Mistral-7B-v0.3"),
    ],
)
def test_copies_of_a_model_have_the_same_name(one: str, other: str) -> None:
    assert model_name(one) == model_name(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3-8B"),
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-Coder-7B"),
    ],
)
def test_other_models_have_other_names(one: str, other: str) -> None:
    assert model_name(one) != model_name(other)
