"""The advice of a plan works: more steps, all GPUs in use, and cheaper machines that the run fits on."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.errors import ConfigError, DeviceError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training.base.known_bases import known_shape
from sqlquarry.training.base.token_estimator import TokenEstimator
from sqlquarry.training.encoding.prepared import prepare
from sqlquarry.training.planning.advice import FEW_STEPS, advice
from sqlquarry.training.planning.forecast import plan_training
from sqlquarry.training.planning.guards import check_run, run_problems
from sqlquarry.training.planning.hardware import INSTANCES
from sqlquarry.training.planning.machines import Machines
from sqlquarry.training.planning.offers import cheaper_offer, cheapest_fit
from sqlquarry.training.planning.plan import TrainingPlan

from conftest import toy_examples

ALL = [Record(**example) for example in toy_examples(400)]


def planned(
    records: int, base: str = "meta-llama/Meta-Llama-3-8B", config: TrainingConfig | None = None, **machines: Any
) -> TrainingPlan:
    config = config or TrainingConfig()
    shape = known_shape(base)
    assert shape is not None
    prepared = prepare(ALL[:records], PromptFormatter(), TokenEstimator(), config, shape=shape)
    return plan_training(shape, prepared, config, Machines(**{"instance_type": "ml.g5.12xlarge"} | machines))


@given(
    records=st.integers(1, 400),
    records_per_step=st.integers(1, 128),
    epochs=st.sampled_from([0.5, 1.0, 2.0, 3.5]),
    row=st.sampled_from([256, 512, 2048]),
)
@settings(max_examples=15)
def test_advice_for_more_steps_gives_them(records: int, records_per_step: int, epochs: float, row: int) -> None:
    config = TrainingConfig(records_per_step=records_per_step, num_train_epochs=epochs, max_length=row)
    plan = planned(records, config=config)
    notes = [note for note in advice(plan, config) if "optimizer" in note]
    assert bool(notes) == (plan.steps < FEW_STEPS)
    for note in notes:
        advised = {name: int(value) for name, value in re.findall(r"(records_per_step|num_train_epochs)=(\d+)", note)}
        assert advised
        assert planned(records, config=dataclasses.replace(config, **advised)).steps >= FEW_STEPS


@given(
    records=st.integers(1, 400),
    base=st.sampled_from(["meta-llama/Llama-3.2-1B", "Qwen/Qwen3-8B", "Qwen/Qwen2.5-32B", "meta-llama/Llama-3.1-70B"]),
    instance=st.sampled_from([name for name, one in INSTANCES.items() if one.usd_per_hour]),
    row=st.sampled_from([512, 2048, 8192]),
)
@settings(max_examples=10)
def test_a_suggested_machine_is_cheaper_and_the_run_fits(records: int, base: str, instance: str, row: int) -> None:
    config = TrainingConfig(max_length=row)
    plan = planned(records, base, config, instance_type=instance)
    offers = cheaper_offer(plan, config)
    fit = cheapest_fit(plan, config)
    for offer in (offers[1] if offers else None, fit):
        if offer:
            there = planned(records, base, config, instance_type=offer.instance_type)
            check_run(there, config)
            assert there.cost_usd is not None
            assert offer.cost_usd > there.cost_usd  # which includes only training
    if offers:
        assert offers[1].cost_usd <= 0.8 * offers[0].cost_usd
        assert offers[1].seconds <= 2 * offers[0].seconds
        assert fit is not None
        assert fit.cost_usd <= offers[1].cost_usd


@pytest.mark.parametrize("records", [1, 40, 120, 400])
def test_few_records_can_run_on_a_machine_with_many_gpus(records: int) -> None:
    plan = planned(records)
    check_run(plan, TrainingConfig())
    assert plan.processes == min(4, plan.rows_per_step)
    notes = " ".join(advice(plan, TrainingConfig()))
    assert f"{plan.processes} of the 4 GPUs" in notes
    named = re.search(r"(ml\.\S+) would cost about \$([\d.]+) instead of \$([\d.]+)", notes)
    assert named is not None
    assert float(named[2]) < float(named[3])
    assert INSTANCES[named[1]].gpus == 1


def test_a_remedy_for_too_many_processes_fits_the_data() -> None:
    with pytest.raises(ConfigError) as small:
        check_run(planned(120, processes=4), TrainingConfig())
    assert "records_per_step" not in str(small.value)
    assert "GPUs" in str(small.value)
    check_run(planned(120, processes=4), TrainingConfig(), started=True)  # the machines are already running
    large = TrainingConfig(max_length=256, records_per_step=8)
    with pytest.raises(ConfigError) as caught:
        check_run(planned(400, config=large, processes=4), large)
    advised = re.search(r"records_per_step to (\d+)", str(caught.value))
    assert advised is not None
    fed = dataclasses.replace(large, records_per_step=int(advised[1]))
    check_run(planned(400, config=fed, processes=4), fed)


def test_an_instance_that_cannot_work_is_refused_with_one_that_can() -> None:
    for base, instance in (("Qwen/Qwen3-8B", "ml.p3.2xlarge"), ("meta-llama/Llama-3.3-70B-Instruct", "ml.g5.2xlarge")):
        with pytest.raises(DeviceError) as caught:
            check_run(planned(120, base, instance_type=instance), TrainingConfig())
        (recommended,) = set(re.findall(r"ml\.\w+\.\w+", str(caught.value))) - {instance}
        check_run(planned(120, base, instance_type=recommended), TrainingConfig())


def test_a_plan_for_this_machine_is_refused_if_training_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def plan(device: Any = "auto", **options: Any) -> TrainingPlan:
        config = TrainingConfig(max_length=256, device=device)
        return QLoRAFSDPTrainer("Qwen/Qwen2.5-0.5B", config=config).plan(ALL[:100], **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert plan(processes=2).gpu is None
    with pytest.raises(DeviceError, match="device='cuda'"):
        plan("cuda")
    for name, value in {"is_available": True, "device_count": 2, "get_device_name": "NVIDIA H200"}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (100 * 2**30, 140 * 2**30))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    assert plan(processes=2).gpu is not None
    with pytest.raises(DeviceError, match=r"3 processes .*2 GPUs"):
        plan(processes=3)
    assert plan(processes=3, check=False).problems
    assert plan(processes=3, gpu="H200").processes == 3  # another machine


def test_a_run_that_cannot_work_can_be_forecast_without_checks() -> None:
    trainer = QLoRAFSDPTrainer("Qwen/Qwen3-8B")
    plan = trainer.plan(ALL[:40], instance_type="ml.g4dn.xlarge", check=False)
    assert plan.steps > 0
    assert plan.problems == run_problems(plan, trainer.config)
    assert "bfloat16" in " ".join(plan.problems)
    assert "problem" in plan.summary()


@pytest.mark.parametrize(
    ("given_name", "near"), [("ml.g5.12xlrage", "ml.g5.12xlarge"), ("g6.2xlarge", "ml.g6.2xlarge")]
)
def test_the_error_for_an_unknown_instance_type_suggests_similar_ones(given_name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=near):
        planned(10, instance_type=given_name)
