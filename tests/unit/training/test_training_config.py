"""Invalid options are all refused at once, before anything is loaded."""

from __future__ import annotations

import pytest

from sqlquarry.errors import ConfigError
from sqlquarry.training import TrainingConfig, learning_rate_for


def test_all_invalid_fields_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(
            num_train_epochs=0, lora_r=0, lora_dropout=1.0, device="tpu", quantization="int8", target_modules=()
        )
    for name in ("num_train_epochs", "lora_r", "lora_dropout", "device", "quantization", "target_modules"):
        assert name in str(caught.value)
    assert "lora_alpha" not in str(caught.value)


def test_the_automatic_learning_rate_falls_with_the_width() -> None:
    assert learning_rate_for(2000) == pytest.approx(5e-4)
    assert learning_rate_for(576) == pytest.approx(1.31e-3, rel=0.01)
    assert learning_rate_for(4096) == pytest.approx(2.87e-4, rel=0.01)


def test_fields_with_several_names_accept_lists() -> None:
    lists = TrainingConfig(target_modules=["q_proj"], trainable_tokens=["<|im_end|>"], report_to=["wandb"])
    assert lists == TrainingConfig(target_modules=("q_proj",), trainable_tokens=("<|im_end|>",), report_to=("wandb",))


@pytest.mark.parametrize(
    "name", ["learning_rate", "hold_dequantized", "torch_compile", "gradient_checkpointing", "sharding"]
)
def test_the_default_is_auto_and_none_is_refused(name: str) -> None:
    assert getattr(TrainingConfig(), name) == "auto"
    with pytest.raises(ConfigError, match=f"{name} .*None.*'auto'"):
        TrainingConfig(**{name: None})


def test_runs_of_our_engine_keep_the_identity_from_before_there_was_a_backend() -> None:
    trl = TrainingConfig(backend="trl").identity
    assert (trl.pop("backend"), trl.pop("sft_config")) == ("trl", {})
    assert TrainingConfig().identity == trl
