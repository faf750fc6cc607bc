"""What TRL's backend refuses before it starts: fields of SFTConfig, callbacks, versions and missing packages."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback

from sqlquarry.errors import ConfigError, MissingExtraError
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from trl_runs import HELD_OUT, OPTIONS, TRAIN, Seen, run


def test_early_stopping_ends_the_run_and_what_it_needs_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    fields = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "eval_loss"}
    early = EarlyStoppingCallback(early_stopping_threshold=10.0)
    stopped = run(tiny_llama, tmp_path / "a", early, evaluation=HELD_OUT, sft_config=fields)
    assert stopped.run.steps == 2
    with pytest.raises(ConfigError, match="eval_strategy='steps'"):
        run(tiny_llama, tmp_path / "b", early, sft_config=fields)
    for lacking in ({}, fields | {"metric_for_best_model": None}):
        with pytest.raises(ConfigError, match=r"EarlyStoppingCallback .*metric_for_best_model"):
            run(tiny_llama, tmp_path / "b", EarlyStoppingCallback, evaluation=HELD_OUT, sft_config=lacking)


def test_liger_must_be_installed(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    monkeypatch.setattr("sqlquarry.training.trl.arguments.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="pip install liger-kernel"):
        run(tiny_llama, tmp_path / "a", sft_config={"use_liger_kernel": True})


@pytest.mark.parametrize("installed", ["0.8.6", "1.15.2", "2.0.0", None])
def test_another_version_of_trl_is_refused_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str | None
) -> None:
    def version(_: str) -> str:
        if installed is None:  # a folder named "trl" in the working directory
            raise PackageNotFoundError
        return installed

    monkeypatch.setattr("sqlquarry.extras.version", version)
    monkeypatch.setitem(sys.modules, "trl.trainer.sft_config", None)
    trainers = [
        QLoRAFSDPTrainer(tmp_path / "missing", backend="trl", sft_config={"weight_decay": 0.1}),
        QLoRAFSDPTrainer(tmp_path / "missing", config=TrainingConfig.published()),
    ]
    for trainer in trainers:
        with pytest.raises(MissingExtraError, match=rf"trl.*{installed or ''}.*sqlquarry\[trl\]"):
            trainer.train(TRAIN, output_dir=tmp_path / "a")


def test_callbacks_must_be_callbacks_and_cannot_travel(tiny_llama: Path, tmp_path: Path) -> None:
    config = TrainingConfig(**OPTIONS)
    with pytest.raises(ConfigError, match="callbacks"):
        QLoRAFSDPTrainer(tiny_llama, callbacks=[Seen()])
    with pytest.raises(ConfigError, match="torchrun"):
        QLoRAFSDPTrainer(tiny_llama, config=config, callbacks=[Seen]).train(TRAIN, output_dir=tmp_path, processes=2)
    with pytest.raises(ConfigError, match="Path"):
        QLoRAFSDPTrainer(tiny_llama, config=config, callbacks=[Path]).train(TRAIN, output_dir=tmp_path / "a")


def test_checkpoints_in_s3_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = QLoRAFSDPTrainer(tiny_llama, config=TrainingConfig(**OPTIONS))
    with pytest.raises(ConfigError, match="s3://bucket/runs"):
        trainer.train(TRAIN, output_dir=tmp_path / "a", checkpoint_dir="s3://bucket/runs")


@pytest.mark.parametrize(
    ("sft_config", "named"),
    [
        ({"lr_schedular_type": "constant"}, "lr_scheduler_type"),
        ({"max_seq_length": 512}, "max_length"),
        ({"output_dir": "x"}, "output_dir"),
        ({"learning_rate": 1e-4}, r"TrainingConfig\.learning_rate"),
        ({"warmup_steps": 5}, r"TrainingConfig\.warmup_ratio"),
        ({"fsdp": "full_shard"}, r"TrainingConfig\.sharding"),
        ({"report_to": "wandb"}, r"TrainingConfig\.report_to"),
        ({"assistant_only_loss": True}, "PromptFormatter"),
        ({"model_init_kwargs": {"quantization_config": {"bnb_4bit_quant_storage": "bfloat16"}}}, "float32"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"adam_beta1": {1}}, "adam_beta1"),
        ({"packing_strategy": "ffd"}, "bfd_split"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0"),
        ({"weight_decay": "much", "max_steps": 2.5, "bf16": 1}, r"weight_decay.*'much'.*max_steps.*2\.5.*bf16.*1"),
        ({"label_names": "labels"}, "label_names is 'labels'"),
    ],
)
def test_fields_of_sft_config_are_checked_at_once(sft_config: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        TrainingConfig(backend="trl", sft_config=sft_config)


def test_options_that_trl_cannot_follow_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"trainable_tokens.*gradient_checkpointing.*sharding"):
        TrainingConfig(backend="trl", trainable_tokens="auto", sharding="hybrid", gradient_checkpointing=2)
    with pytest.raises(ConfigError, match="backend"):
        TrainingConfig(sft_config={"weight_decay": 0.1})


def test_a_value_that_sft_config_refuses_is_a_config_error(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cosin"):
        run(tiny_llama, tmp_path / "a", sft_config={"lr_scheduler_type": "cosin"})


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    fields = {"weight_decay": "1e-4", "lr_scheduler_kwargs": {"min_lr": "1e-5", "betas": ["2e-1"]}}
    config = TrainingConfig(backend="trl", sft_config=fields)
    assert config.sft_config == {"weight_decay": 1e-4, "lr_scheduler_kwargs": {"min_lr": 1e-5, "betas": [0.2]}}


def test_the_fields_of_a_config_are_a_copy_that_cannot_be_changed() -> None:
    given = {"weight_decay": 0.1}
    config = TrainingConfig(backend="trl", sft_config=given)
    given["weight_decay"] = 0.2
    with pytest.raises(TypeError):
        config.sft_config["weight_decay"] = 0.2  # type: ignore[index]  # what the test is about
    assert config.sft_config == config.identity["sft_config"] == {"weight_decay": 0.1}
    copies = [
        pickle.loads(pickle.dumps(config)),
        dataclasses.replace(config),
        TrainingConfig(**dataclasses.asdict(config)),
    ]
    assert {hash(one) for one in [config, *copies]} == {hash(config)}
    assert copies == [config] * 3
    trainer = QLoRAFSDPTrainer("base", config=config, sft_config={"optim": "sgd"})
    assert trainer.config.sft_config == {"weight_decay": 0.1, "optim": "sgd"}
    assert QLoRAFSDPTrainer("base", backend="trl").config.backend == "trl"
