"""Runs that cannot work are refused before anything is loaded. The error lists all problems and what to do."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace
from typing import Any

import pytest

from sqlquarry.errors import ConfigError, DeviceError
from sqlquarry.training import TrainingConfig
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.planning.advice import advice
from sqlquarry.training.planning.guards import check_run
from sqlquarry.training.planning.hardware import A10G, H100, T4
from sqlquarry.training.planning.memory import forecast_memory
from sqlquarry.training.planning.plan import TrainingPlan


def shape(
    *, layers: int = 32, hidden: int = 4096, tied: bool = False, dtypes: tuple[str, ...] = ("BF16",)
) -> ModelShape:
    linears = {}
    for layer in range(layers):
        linears |= {f"model.layers.{layer}.self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
        linears |= {f"model.layers.{layer}.mlp.{name}_proj": (4 * hidden, hidden) for name in ("gate", "up", "down")}
    return ModelShape(
        linears=linears,
        expert_parameters=0,
        active_expert_share=0.0,
        other_parameters=2 * 128_256 * hidden,
        layers=layers,
        hidden=hidden,
        attention=hidden,
        key_value=hidden,
        head=128,
        mlp=4 * hidden,
        vocabulary=128_256,
        tied=tied,
        dtypes=frozenset(dtypes),
    )


def plan_of(config: TrainingConfig, **changes: Any) -> TrainingPlan:
    fields: dict[str, Any] = {
        "shape": shape(),
        "processes": 1,
        "gpu": A10G,
        "row_sizes": ((2048, 500),) * changes.pop("rows", 100),
    } | changes
    memory = forecast_memory(fields["shape"], config, fields["row_sizes"], processes=fields["processes"])
    defaults: dict[str, Any] = {
        "records": 1000,
        "over_length": (),
        "unlearnable": (),
        "steps": 20,
        "rows_per_step": 8,
        "epochs": 2.0,
        "tokens_unshared": 300_000,
        "adapter_parameters": 1,
        "memory": memory,
        "seconds": 1.0,
        "instance_type": None,
        "instances": 1,
        "cost_usd": None,
        "config": config,
    }
    return TrainingPlan(**defaults | fields)


def problems_of(config: TrainingConfig, *, kind: type[Exception] = ConfigError, **changes: Any) -> str:
    options = {key: changes.pop(key) for key in ("gpus_here", "tokenizer") if key in changes}
    with pytest.raises(kind) as caught:
        check_run(plan_of(config, **changes), config, **options)
    assert type(caught.value) is kind
    return str(caught.value)


def test_a_run_that_can_work_passes_without_notes() -> None:
    assert check_run(plan_of(TrainingConfig()), TrainingConfig(), gpus_here=1) == ()


def test_all_problems_are_listed_at_once() -> None:
    config = TrainingConfig(target_modules=("q_proj", "query"), cpu_offload=True)
    text = problems_of(config, over_length=(("wide", 5000),), unlearnable=("record 7",), rows_per_step=1, gpu=T4)
    for value in ("query", "wide (5,000)", "max_length", "record 7", "bfloat16", "cpu_offload"):
        assert value in text
    assert text.count("5,000") == 2  # the record's length, and the max_length to set
    assert text.count("\n- ") == 5


def test_targets_must_be_layers_of_the_decoder() -> None:
    text = problems_of(TrainingConfig(target_modules=("q_proj", "wq")))
    assert " wq" in text
    assert "down_proj, gate_proj, k_proj" in text
    untied, tied = (
        problems_of(TrainingConfig(target_modules=("lm_head",)), shape=shape(tied=tied)) for tied in (False, True)
    )
    assert "lm_head" in untied
    assert "embeddings" not in untied
    assert "embeddings" in tied  # the reason why a merge cannot change only the head
    check_run(
        plan_of(TrainingConfig(target_modules=("self_attn.q_proj",))),
        TrainingConfig(target_modules=("self_attn.q_proj",)),
    )


def test_a_cpu_cannot_train_with_flex_attention() -> None:
    config = TrainingConfig(attn_implementation="flex_attention")
    check_run(plan_of(config), config)
    with pytest.raises(ConfigError, match=r"flex_attention.*sdpa"):
        check_run(plan_of(config, gpu=None), config)


def test_more_processes_than_rows_or_gpus() -> None:
    config = TrainingConfig(records_per_step=64)
    text = problems_of(config, processes=16, rows_per_step=8)
    assert re.search("records_per_step .*160", text)  # 16 of 100 rows hold 160 of 1,000 records
    assert "records_per_step" not in problems_of(config, processes=101, rows_per_step=8)
    assert "8 processes" in text
    assert re.search("4 processes .*2 GPUs", problems_of(config, kind=DeviceError, processes=4, gpus_here=2))


def test_memory_that_cannot_fit_comes_with_the_cheapest_remedies() -> None:
    config = TrainingConfig(gradient_checkpointing=False, quantization=None)
    rows = ((8192, 2000),) * 100
    small = dataclasses.replace(A10G, memory_bytes=16 * 2**30)
    text = problems_of(config, kind=DeviceError, row_sizes=rows, gpu=dataclasses.replace(A10G, memory_bytes=30 * 2**30))
    assert re.search(r"\d\.\d GiB .*A10G.* 30\.0\b", text)
    remedies = remedies_in(text)
    assert "gradient_checkpointing=True" in remedies
    assert len(remedies) <= 3
    hopeless = problems_of(config, kind=DeviceError, row_sizes=rows, gpu=dataclasses.replace(small, memory_bytes=2**20))
    assert "a GPU with more memory" in hopeless


def remedies_in(text: str) -> list[str]:
    """Return the options that an error recommends together with the memory that they would need."""
    return re.findall(r"(\S+=\S+) \(\d+\.\d GiB\)", text)


def test_the_first_remedy_makes_the_run_fit() -> None:
    config = TrainingConfig(gradient_checkpointing=False, max_length=4096)
    plan = plan_of(config)
    assert not plan.fits
    assert remedies_in(problems_of(config, kind=DeviceError))[0] == "gradient_checkpointing=True"
    check_run(plan_of(TrainingConfig(gradient_checkpointing=True)), TrainingConfig(gradient_checkpointing=True))


def test_harmless_facts_are_only_noted() -> None:
    config = TrainingConfig()
    tokenizer = SimpleNamespace(pad_token_id=2, eos_token_id=2)
    notes = check_run(plan_of(config, shape=shape(dtypes=("BF16", "F32")), gpu=H100), config, tokenizer=tokenizer)
    assert len(notes) == 2
    assert "pads" in notes[0]
    assert "BF16 and F32" in notes[1]
    (note,) = check_run(plan_of(config, shape=shape(dtypes=("F16",))), config)
    assert "float16" in note


@pytest.mark.parametrize(
    ("rows", "processes", "idle"), [(8, 1, 0), (8, 4, 0), (6, 4, 0.25), (9, 8, 7 / 16), (4, 8, 0.5)]
)
def test_the_idle_share_of_processes_is_computed(rows: int, processes: int, idle: float) -> None:
    plan = plan_of(TrainingConfig(), gpu=H100, rows_per_step=rows, processes=processes)
    assert plan.idle_share == idle
    assert ("is idle" in plan.summary()) == (idle > 0)


@pytest.mark.parametrize(("records", "rows", "wanted"), [(6400, 545, 8), (600, 50, 8), (60, 6, None)])
def test_the_advice_against_idle_processes_gives_even_steps(records: int, rows: int, wanted: int | None) -> None:
    def steps(records_per_step: int) -> int:  # `plan.schedule_of`
        return min(rows, round(records_per_step * rows / records))

    config = TrainingConfig(records_per_step=64)
    fields = {"records": records, "rows": rows, "rows_per_step": steps(64), "processes": 4}
    (note,) = advice(plan_of(config, gpu=H100, **fields), config)
    advised = re.search(r"records_per_step=(\d+) gives (\d+) rows", note)
    assert ((steps(int(advised[1])), int(advised[2])) if advised else None) == ((wanted, wanted) if wanted else None)


def test_sharing_the_base_is_recommended_if_each_process_has_a_copy() -> None:
    config = TrainingConfig(sharding="none", max_length=4096, gradient_checkpointing=True)
    small = dataclasses.replace(A10G, memory_bytes=10 * 2**30)
    text = problems_of(config, kind=DeviceError, gpu=small, processes=8)
    assert 'sharding="full"' in text
    offloaded = dataclasses.replace(config, cpu_offload=True)
    assert 'sharding="full"' in problems_of(offloaded, kind=DeviceError, processes=2)
    alone = problems_of(offloaded, kind=DeviceError)
    assert "cpu_offload" in alone
    assert "sharding" not in alone
