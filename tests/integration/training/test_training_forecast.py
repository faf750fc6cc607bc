"""A run takes the rows, steps and tokens that its plan counted, and jobs are refused as their plan is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from sqlquarry.errors import ConfigError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.sagemaker import Compute, SageMakerLauncher
from sqlquarry.tokenizing.encoded import IGNORED_LABEL
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.encoding.packing import PackedRow
from sqlquarry.training.encoding.prepared import prepare
from sqlquarry.training.planning.forecast import plan_training
from sqlquarry.training.planning.guards import check_run
from sqlquarry.training.steps.engine import StepEngine
from sqlquarry.training.tracking.card import write_card
from sqlquarry.training.tracking.loss_plot import write_loss_plot

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(30)]


@pytest.mark.parametrize("epochs", [0.5, 2.0])
def test_a_run_takes_the_rows_steps_and_tokens_of_its_plan(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: float
) -> None:
    computed: list[PackedRow] = []
    real = StepEngine.learn

    def learn(self: StepEngine, row: PackedRow, weight: float) -> Any:
        computed.append(row)
        return real(self, row, weight)

    monkeypatch.setattr(StepEngine, "learn", learn)
    config = TrainingConfig(num_train_epochs=epochs, records_per_step=8, max_length=256, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    shape = ModelShape.read(tiny_llama)
    plan = plan_training(shape, prepare(RECORDS, PromptFormatter(), tokenizer, config, shape=shape), config)
    assert check_run(plan, config, tokenizer=tokenizer) == ()
    adapter = QLoRAFSDPTrainer(tiny_llama, config=config).train(RECORDS, output_dir=tmp_path / "adapter")
    run = adapter.run
    assert (plan.rows, plan.steps, plan.tokens_per_epoch) == (run.rows, run.steps, run.tokens_per_epoch)
    assert plan.tokens_unshared == run.tokens_unshared
    assert "+0%" in plan.compare(run)

    # All of these are counted from what the run did, and not computed by the plan's code.
    log = [json.loads(line) for line in (adapter.path / "training_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(1, plan.steps + 1))
    examples = PromptFormatter().encode_all(RECORDS, tokenizer)
    assert plan.tokens_unshared == sum(len(example.input_ids) for example in examples)
    assert plan.answer_tokens == sum(label != IGNORED_LABEL for example in examples for label in example.labels)
    assert sum(entry["tokens"] for entry in log) == sum(len(row.tokens().input_ids) for row in computed)
    distinct = {id(row): row for row in computed}.values()
    if epochs == 2:
        assert len(computed) == 2 * plan.rows
        assert len(distinct) == plan.rows
        assert sum(row.size.records for row in distinct) == len(RECORDS)
        assert sum(len(row.tokens().input_ids) for row in distinct) == plan.tokens_per_epoch
    else:
        assert len(computed) == len(distinct) == pytest.approx(plan.rows / 2, abs=plan.rows_per_step)
    assert all(len(row.tokens().input_ids) <= 256 for row in computed)
    assert sum(row.size.records for row in computed) / plan.steps == pytest.approx(8, rel=0.35)

    write_loss_plot(adapter.path / "training_log.jsonl", tmp_path / "loss.svg")
    assert f"over {run.steps} steps" in (tmp_path / "loss.svg").read_text()
    write_card(tmp_path, adapter.manifest.provenance, base=tiny_llama)
    assert str(adapter.manifest.provenance["data_sha256"]) in (tmp_path / "README.md").read_text()


def test_sizes_from_headers_equal_those_of_the_loaded_model(tiny_llama: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    shape = ModelShape.read(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert shape.parameters == model.num_parameters()
    for targets in ("all-linear", ("q_proj", "down_proj")):
        names = targets if isinstance(targets, str) else list(targets)
        adapted = get_peft_model(
            AutoModelForCausalLM.from_pretrained(tiny_llama), LoraConfig(r=4, target_modules=names)
        )
        assert shape.adapter_parameters(targets, 4) == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("kind", ["mixtral", "qwen3-moe"])
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "o_proj")])
def test_adapter_parameters_of_a_base_with_experts_are_counted(tmp_path: Path, kind: str, targets: Any) -> None:
    sizes: dict[str, Any] = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "intermediate_size": 96, "num_experts_per_tok": 2}
    model = (
        MixtralForCausalLM(MixtralConfig(**sizes, num_local_experts=4))
        if kind == "mixtral"
        else Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, num_experts=8, moe_intermediate_size=32, head_dim=16))
    )
    model.save_pretrained(tmp_path)
    lora = LoraConfig(r=4, target_modules=targets if targets == "all-linear" else list(targets), task_type="CAUSAL_LM")
    trained = sum(value.numel() for value in get_peft_model(model, lora).parameters() if value.requires_grad)
    shape = ModelShape.read(tmp_path)
    assert shape.adapter_parameters(targets, 4) == trained
    if targets == "all-linear":
        half = shape.adapter_parameters(targets, 4, expert_share=0.5)
        assert trained / 2 < half < trained


def test_a_job_with_idle_processes_is_refused_before_anything_is_uploaded(tiny_llama: Path) -> None:
    role = "arn:aws:iam::123456789012:role/training"
    four_gpus = SageMakerLauncher(role, bucket="models", session=boto3.Session(region_name="us-east-1"))
    config = TrainingConfig(records_per_step=1, max_length=256)
    with pytest.raises(ConfigError, match=r"4 processes .*1 row\b"):
        QLoRAFSDPTrainer(tiny_llama, config=config).plan(RECORDS, instance_type="ml.g5.12xlarge", processes=4)
    two_machines = dataclasses.replace(four_gpus, compute=Compute(instance_count=2))
    with pytest.raises(ConfigError, match=r"2 processes .*1 row\b.*1 machine\b"):
        two_machines.dry_run(QLoRAFSDPTrainer(tiny_llama, config=config), RECORDS)

    def arguments(records_per_step: int) -> list[str]:
        changed = dataclasses.replace(config, records_per_step=records_per_step)
        request = four_gpus.dry_run(QLoRAFSDPTrainer(tiny_llama, config=changed), RECORDS)
        return request["AlgorithmSpecification"]["ContainerArguments"][-3:]

    assert arguments(1) == ["processes=1", "install", "train"]  # a step has only one row
    assert arguments(30)[1:] == ["install", "train"]
    assert not arguments(30)[0].startswith("processes")
