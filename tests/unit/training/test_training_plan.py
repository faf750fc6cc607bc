"""Forecasts: parameters counted from headers, memory and time compared with measurements, and the printed text."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.errors import ConfigError, RecordError, UnsupportedModelError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.provenance import TrainingRun
from sqlquarry.records import Record
from sqlquarry.training import TrainingConfig
from sqlquarry.training import config as config_module
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.encoding.prepared import prepare
from sqlquarry.training.planning.fit import fitted
from sqlquarry.training.planning.forecast import plan_training
from sqlquarry.training.planning.hardware import A10G, GPU, GPUS, H100, H200, INSTANCES, gpu_named, instance_named
from sqlquarry.training.planning.machines import Machines, this_machine
from sqlquarry.training.planning.memory import forecast_memory
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.planning.speed import flops_per_token, row_seconds, summing_seconds
from sqlquarry.training.tracking.pace import PaceMeter

from conftest import tiny_tokenizer, toy_examples

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
SMOLLM2 |= {"num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}
SMOLLM2_1_7B = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32}
SMOLLM2_1_7B |= {"num_key_value_heads": 32, "vocab_size": 49152, "tie_word_embeddings": True}
LLAMA_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_8B |= {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False}
LLAMA_70B = LLAMA_8B | {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
LLAMA_70B |= {"num_attention_heads": 64}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": False}
RECORDS = [Record(**example) for example in toy_examples(60)]


def llama_tensors(config: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return names, dtypes and shapes of a Llama's tensors."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    narrow = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (vocabulary, hidden), "model.norm": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head"] = (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        attention = {"q": (hidden, hidden), "k": (narrow, hidden), "v": (narrow, hidden), "o": (hidden, hidden)}
        mlp = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        place = f"model.layers.{layer}"
        shapes |= {f"{place}.self_attn.{name}_proj": sizes for name, sizes in attention.items()}
        shapes |= {f"{place}.mlp.{name}_proj": sizes for name, sizes in mlp.items()}
        shapes |= {f"{place}.{name}_layernorm": (hidden,) for name in ("input", "post_attention")}
    return {f"{name}.weight": ("BF16", sizes) for name, sizes in shapes.items()}


def llama(config: dict[str, Any]) -> ModelShape:
    return ModelShape.of(config, llama_tensors(config))


def save_headers(directory: Path, config: dict[str, Any]) -> Path:
    """Write a base model of headers only: config.json, and a safetensors file whose data is never read."""
    write_holes(directory / "model.safetensors", {name: shape for name, (_, shape) in llama_tensors(config).items()})
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def write_holes(path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """Write a complete safetensors file of bfloat16 whose data takes no space on disk."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def plan(
    tmp_path: Path, records: list[Record] = RECORDS, config: TrainingConfig | None = None, **options: Any
) -> TrainingPlan:
    config = config or TrainingConfig(max_length=256, records_per_step=8)
    tokenizer = tiny_tokenizer()
    shape = ModelShape.read(save_headers(tmp_path, TINY))
    return plan_training(
        shape, prepare(records, PromptFormatter(), tokenizer, config, shape=shape), config, Machines(**options)
    )


def test_parameter_counts_equal_those_of_the_model_cards(tmp_path: Path) -> None:
    assert ModelShape.read(save_headers(tmp_path, SMOLLM2)).parameters == 134_515_008
    shape = llama(LLAMA_8B)
    assert shape.parameters == 8_030_261_248
    assert shape.adapter_parameters("all-linear", 16) == 41_943_040
    assert shape.adapter_parameters(("q_proj", "v_proj"), 8) == 32 * 8 * (2 * 4096 + 4096 + 1024)


def test_a_tied_head_that_is_stored_twice_counts_once() -> None:
    tensors = llama_tensors(SMOLLM2)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    assert ModelShape.of(SMOLLM2, tensors).parameters == 134_515_008


def test_only_the_experts_that_a_token_uses_count_as_active() -> None:
    tensors = {name: entry for name, entry in llama_tensors(TINY).items() if ".mlp." not in name}
    for layer in range(2):
        for expert in range(8):
            for matrix in ("w1", "w2", "w3"):
                tensors[f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{matrix}.weight"] = ("BF16", (128, 64))
        tensors[f"model.layers.{layer}.block_sparse_moe.gate.weight"] = ("BF16", (8, 64))
    shape = ModelShape.of(TINY | {"num_local_experts": 8, "num_experts_per_tok": 2}, tensors)
    assert shape.expert_parameters == 2 * 8 * 3 * 128 * 64
    assert shape.active_parameters == shape.linear_parameters + shape.expert_parameters // 4
    assert not any("gate" in name or "experts" in name for name in shape.linears)
    assert shape.mlp == 2 * 128


def test_a_broken_header_is_a_typed_error(tmp_path: Path) -> None:
    save_headers(tmp_path, TINY)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(UnsupportedModelError, match=f"{re.escape(str(tmp_path))} .*model.safetensors"):
        ModelShape.read(tmp_path)


# benchmarks/forecast.py on one H200, 2026-11-28, 8B: options, tokens of a row, peak GiB allocated by torch, seconds per
# row. 25 of 96 tokens of a record are learned. With dropout, a row does not run as a CUDA graph.
MEASURED: list[tuple[dict[str, Any], int, float, float]] = [
    ({"gradient_checkpointing": 32}, 3072, 7.41, 0.2837),
    ({"gradient_checkpointing": 16}, 3072, 13.36, 0.2405),
    ({"gradient_checkpointing": 0}, 3072, 19.46, 0.1962),
    ({"gradient_checkpointing": 32}, 8192, 9.76, 0.6897),
    ({"gradient_checkpointing": 0}, 2048, 15.18, 0.1363),
    ({"gradient_checkpointing": 0, "lora_dropout": 0.01}, 3072, 19.64, 0.3729),
    ({"gradient_checkpointing": 32, "lora_dropout": 0.01}, 3072, 7.72, 0.4780),
    (
        {"gradient_checkpointing": 32, "torch_compile": False, "attn_implementation": "flex_attention"},
        3072,
        8.32,
        0.7320,
    ),
    ({"gradient_checkpointing": 0, "hold_dequantized": True}, 3072, 29.35, 0.1783),
    ({"gradient_checkpointing": 0, "hold_dequantized": True, "lora_dropout": 0.01}, 3072, 29.35, 0.1994),
]


@pytest.mark.parametrize(("changes", "tokens", "memory", "seconds"), MEASURED)
def test_forecasts_agree_with_measurements_on_one_gpu(
    changes: dict[str, Any], tokens: int, memory: float, seconds: float
) -> None:
    config = TrainingConfig(max_length=tokens, **{"hold_dequantized": False} | changes)
    answers = tokens * 25 // 96
    forecast = forecast_memory(llama(LLAMA_8B), config, [(10, 2), (tokens, answers)])
    assert forecast.allocated / 2**30 == pytest.approx(memory, rel=0.05)
    assert row_seconds(llama(LLAMA_8B), config, tokens, answers, gpu=H200) == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize(("gpus", "memory", "seconds"), [(1, 45.25, 2.391), (2, 30.44, 2.597)])
def test_forecasts_fitted_to_8b_agree_with_measurements_of_70b(gpus: int, memory: float, seconds: float) -> None:
    # benchmarks/scaling.py --shapes 70b, H200, 2026-11-29. Two GPUs share the base.
    config = TrainingConfig(max_length=3072, hold_dequantized=False, gradient_checkpointing=True)
    forecast = forecast_memory(llama(LLAMA_70B), config, [(3072, 800)], processes=gpus)
    assert forecast.allocated / 2**30 == pytest.approx(memory, rel=0.05)
    measured = pytest.approx(seconds, rel=0.05)
    assert row_seconds(llama(LLAMA_70B), config, 3072, 800, gpu=H200, processes=gpus) == measured


@pytest.mark.parametrize(
    ("changes", "tokens", "memory", "seconds"),
    [  # benchmarks/scaling.py, two H200, 2026-11-29. With dropout a row does not run as a graph, as with --launched.
        ({"hold_dequantized": False}, 3072, 18.49, 0.867 / 4),
        ({"hold_dequantized": False, "lora_dropout": 0.01}, 3072, 18.46, 1.387 / 4),
        ({"hold_dequantized": False}, 8192, 40.20, 0.998 / 2),
        ({"hold_dequantized": True}, 3072, 23.48, 0.910 / 4),
        ({"hold_dequantized": True, "lora_dropout": 0.01}, 3072, 23.45, 1.021 / 4),
    ],
)
def test_forecasts_agree_with_measurements_on_two_gpus_that_share_a_base(
    changes: dict[str, Any], tokens: int, memory: float, seconds: float
) -> None:
    config = TrainingConfig(max_length=tokens, sharding="full", gradient_checkpointing=False, **changes)
    answers = tokens * 25 // 96
    forecast = forecast_memory(llama(LLAMA_8B), config, [(tokens, answers)], processes=2)
    assert forecast.allocated / 2**30 == pytest.approx(memory, rel=0.05)
    measured = pytest.approx(seconds, rel=0.05)
    assert row_seconds(llama(LLAMA_8B), config, tokens, answers, gpu=H200, processes=2) == measured


@pytest.mark.parametrize(
    ("gpu", "processes", "held", "layers"),
    [
        (H200, 1, True, 0),  # everything fits, so nothing is unpacked or recomputed
        (dataclasses.replace(H200, memory_bytes=20 * 2**30), 1, False, range(4, 16)),
        (dataclasses.replace(H200, memory_bytes=12 * 2**30), 1, False, range(24, 32)),
        (A10G, 4, False, range(1, 9)),  # 16 GB of weights in bf16 and a row do not fit, but most activations do
        (dataclasses.replace(H200, memory_bytes=14 * 2**30), 8, False, range(1, 32)),
    ],
)
def test_automatic_options_are_chosen_by_memory_and_time(
    gpu: GPU, processes: int, *, held: bool, layers: int | range
) -> None:
    config = TrainingConfig(max_length=3072)
    chosen = fitted(llama(LLAMA_8B), config, [(3072, 800)], gpu, processes=processes)
    assert chosen.hold_dequantized is held
    assert chosen.gradient_checkpointing in (layers if isinstance(layers, range) else [layers])
    asked = TrainingConfig(max_length=3072, hold_dequantized=False, gradient_checkpointing=True, sharding="full")
    assert fitted(llama(LLAMA_8B), asked, [(3072, 800)], gpu, processes=processes) == asked


@pytest.mark.parametrize(
    ("gpu", "processes", "machines", "options", "sharding"),
    [
        (H200, 1, 1, {}, "auto"),
        (H200, 2, 1, {}, "none"),  # the base fits each GPU, so nothing is gathered and rows run as graphs
        (A10G, 8, 2, {}, "none"),
        (dataclasses.replace(H200, memory_bytes=10 * 2**30), 8, 1, {"lora_r": 64}, "full"),
        (A10G, 4, 1, {"cpu_offload": True}, "full"),  # only a sharded base can be offloaded
        (A10G, 8, 2, {"cpu_offload": True}, "hybrid"),  # the network is slower than the links within a machine
        (A10G, 2, 2, {"cpu_offload": True}, "full"),  # with one process per machine, there is no group within a machine
    ],
)
def test_the_base_is_sharded_only_if_necessary(
    gpu: GPU, processes: int, machines: int, options: dict[str, Any], sharding: str | None
) -> None:
    config = TrainingConfig(max_length=2048, **options)
    chosen = fitted(llama(LLAMA_8B), config, [(2048, 500)], gpu, processes=processes, machines=machines)
    assert chosen.sharding == sharding


@pytest.mark.parametrize(("sharding", "shard_group_size"), [("auto", 8), ("full", 8), ("hybrid", 4), ("none", 1)])
def test_the_base_is_split_over_the_processes_that_share_it(sharding: Any, shard_group_size: int) -> None:
    shape, config = llama(LLAMA_8B), TrainingConfig(sharding=sharding)
    forecast = forecast_memory(shape, config, [(2048, 500)], processes=8, machines=2)
    assert forecast.weights_4bit == pytest.approx(shape.linear_parameters / 2 / shard_group_size, rel=1e-6)
    assert (forecast.gathered > 0) == (shard_group_size > 1)
    launched = forecast_memory(
        shape, dataclasses.replace(config, lora_dropout=0.1), [(2048, 500)], processes=8, machines=2
    )
    assert forecast.needed - launched.needed == forecast.gathered  # evaluation cannot use a graph's memory


@pytest.mark.parametrize(
    ("options", "shard_group_size", "torch", "recorded"),
    [
        ({}, 1, (2, 9), True),
        ({}, 8, (2, 11), True),
        ({}, 8, (2, 10), False),  # FSDP2's addresses would be overwritten
        ({"lora_dropout": 0.1}, 1, (2, 11), False),  # dropout differs from row to row
        ({"cpu_offload": True}, 8, (2, 11), False),
        ({"attn_implementation": "sdpa"}, 1, (2, 11), False),
        ({"torch_compile": False}, 1, (2, 11), False),
    ],
)
def test_rows_run_as_graphs_only_if_nothing_changes_between_them(
    options: dict[str, Any],
    shard_group_size: int,
    torch: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    *,
    recorded: bool,
) -> None:
    monkeypatch.setattr(config_module, "_torch_version", lambda: torch)  # cached, so there is no public way
    config = TrainingConfig(**options)
    assert config.uses_cuda_graphs(cuda=True, shard_group_size=shard_group_size) is recorded
    assert not config.uses_cuda_graphs(cuda=False, shard_group_size=shard_group_size)


def test_a_shared_base_is_loaded_in_parts_unless_it_has_experts() -> None:
    dense = llama(LLAMA_8B)
    whole, shared = (forecast_memory(dense, TrainingConfig(), [(2048, 500)], processes=count) for count in (1, 8))
    assert shared.loading < whole.loading / 2
    assert shared.loading > whole.loading / 8
    experts = dataclasses.replace(dense, expert_parameters=10**9, active_expert_share=0.25)
    whole, shared = (forecast_memory(experts, TrainingConfig(), [(2048, 500)], processes=count) for count in (1, 8))
    assert shared.loading == whole.loading


def test_a_step_over_the_network_waits_for_its_gradient() -> None:
    config = TrainingConfig()
    gradient = 4 * llama(LLAMA_8B).adapter_parameters("all-linear", 16)
    near, far = (
        summing_seconds(llama(LLAMA_8B), config, gpu=A10G, processes=4, machines=machines) for machines in (1, 2)
    )
    assert near == pytest.approx(1.5 * gradient / A10G.link_bytes_per_second)
    assert far > near
    assert summing_seconds(llama(LLAMA_8B), config, gpu=A10G, processes=1) == 0


def test_a_run_that_cannot_fit_gets_the_options_that_need_the_least_memory() -> None:
    small = dataclasses.replace(A10G, memory_bytes=6 * 2**30)
    config = TrainingConfig(max_length=3072)
    chosen = fitted(llama(LLAMA_8B), config, [(3072, 800)], small, processes=1)
    assert (chosen.hold_dequantized, chosen.gradient_checkpointing) == (False, 32)
    assert forecast_memory(llama(LLAMA_8B), chosen, [(3072, 800)]).needed > small.memory_bytes


def test_an_8b_shape_needs_about_thirty_gigaflop_per_token() -> None:
    config = TrainingConfig(gradient_checkpointing=False)
    assert flops_per_token(llama(LLAMA_8B), config, 1, 0.0, cuda=True) == pytest.approx(28.2e9, rel=0.01)
    recomputed = flops_per_token(llama(LLAMA_8B), TrainingConfig(gradient_checkpointing=True), 1, 0.0, cuda=True)
    assert recomputed == pytest.approx(42.1e9, rel=0.01)


@given(
    tokens=st.integers(16, 4096),
    more=st.integers(0, 2048),
    answers=st.integers(1, 512),
    rank=st.integers(1, 64),
    processes=st.integers(1, 8),
    recompute=st.booleans(),
)
def test_memory_grows_with_sizes_and_shrinks_with_sharing_processes(
    *, tokens: int, more: int, answers: int, rank: int, processes: int, recompute: bool
) -> None:
    shape = llama(LLAMA_8B)

    def needed(tokens: int = tokens, processes: int = processes, **changes: Any) -> int:
        changed = TrainingConfig(
            **{"gradient_checkpointing": recompute, "lora_r": rank, "attn_implementation": "sdpa"} | changes
        )
        forecast = forecast_memory(shape, changed, [(tokens, answers)], processes=processes)
        assert forecast.needed > forecast.peak >= forecast.loading + forecast.process
        return forecast.training

    assert needed(tokens + more) >= needed()
    assert needed(lora_r=rank + 1) > needed()
    assert needed(gradient_checkpointing=True) <= needed(gradient_checkpointing=False)
    assert needed(quantization=None) > needed()
    assert needed(hold_dequantized=True) > needed()
    if processes >= 2:
        assert needed(processes=processes * 2) < needed()
        assert needed(cpu_offload=True) < needed()


def test_a_plan_counts_rows_tokens_and_cost(tmp_path: Path) -> None:
    forecast = plan(tmp_path, gpu="NVIDIA H100 80GB HBM3", usd_per_hour=3.6)
    assert forecast.gpu is H100
    assert forecast.rows == len(forecast.row_sizes)
    assert forecast.tokens_per_epoch < forecast.tokens_unshared
    assert forecast.answer_tokens < forecast.tokens_per_epoch
    assert forecast.epochs == pytest.approx(2.0)
    assert forecast.cost_usd == pytest.approx(forecast.seconds / 1000)
    assert forecast.fits
    for value in ("60", f"{forecast.rows}", f"{forecast.steps}", "H100", "GiB", "training only"):
        assert value in str(forecast)


def test_an_instance_type_determines_gpus_and_price(tmp_path: Path) -> None:
    many = TrainingConfig(max_length=256, records_per_step=60)
    forecast = plan(tmp_path, config=many, instance_type="ml.g5.12xlarge", instances=2)
    assert (forecast.gpu, forecast.processes) == (A10G, 8)
    assert forecast.cost_usd == pytest.approx(2 * 7.09 * forecast.seconds / 3600)
    assert "2 × ml.g5.12xlarge" in forecast.summary()
    assert "not verified" in forecast.summary()
    assert plan(tmp_path, instance_type="ml.p5en.48xlarge").cost_usd is None


def test_records_longer_than_a_row_are_counted_and_not_refused(tmp_path: Path) -> None:
    long = Record(
        "How many?", f"CREATE TABLE t ({', '.join(f'column_{i} TEXT' for i in range(200))})", "SELECT 1", id="wide"
    )
    forecast = plan(tmp_path, [*RECORDS, long])
    assert forecast.records == len(RECORDS) + 1
    ((name, tokens),) = forecast.over_length
    assert name == "wide"
    assert tokens > 256
    assert f"wide ({tokens:,} tokens)" in forecast.summary()
    with pytest.raises(RecordError, match=rf"max_length=256 .*{tokens:,}"):
        plan(tmp_path, [long])


def test_invalid_machines_and_records_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ml\.g5\.12xlarge"):
        plan(tmp_path, instance_type="ml.huge")
    with pytest.raises(ConfigError, match="H100"):
        plan(tmp_path, gpu="abacus")
    with pytest.raises(ConfigError, match="gpu None"):
        plan(tmp_path, gpu=None)
    for instances, processes in ((2, "auto"), (3, 8), (0, 1)):
        with pytest.raises(ConfigError, match=f"{instances} instances"):
            plan(tmp_path, gpu="H100", instances=instances, processes=processes)
    with pytest.raises(RecordError, match="no records"):
        plan(tmp_path, [])
    with pytest.raises(RecordError, match=r"1 of 1 records .*no sql"):
        plan(tmp_path, [Record("q", "s")])


def test_actual_figures_are_compared_with_the_forecast(tmp_path: Path) -> None:
    forecast = plan(tmp_path, gpu="H100")
    run = TrainingRun(
        records=forecast.records,
        rows=forecast.rows,
        tokens_per_epoch=forecast.tokens_per_epoch,
        tokens_unshared=forecast.tokens_unshared,
        steps=forecast.steps,
        learning_rate=1e-4,
        training_loss=1.0,
        duration_s=forecast.seconds / 2,
        tokens_per_second=1.0,
        device="cuda",
        processes=1,
        shard_group_size=1,
        trained_rows=(),
        peak_memory_bytes=round(2 * forecast.memory.allocated),
    )
    lines = {line[:18].strip(): line for line in forecast.compare(run).splitlines()}
    assert lines["rows"].endswith("+0%")
    assert lines["seconds"].endswith("+100%")
    assert lines["peak memory, GiB"].endswith("-50%")
    on_a_cpu = forecast.compare(dataclasses.replace(run, peak_memory_bytes=None))
    assert "peak memory" not in on_a_cpu  # torch does not measure it on a CPU


def test_gpus_are_found_by_the_names_that_drivers_report() -> None:
    names = {"NVIDIA A10G": "A10G", "NVIDIA L40S": "L40S", "NVIDIA L4": "L4", "NVIDIA H200": "H200", "Tesla T4": "T4"}
    names |= {"NVIDIA A100-SXM4-80GB": "A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB": "A100-SXM4-40GB"}
    for given_name, name in names.items():
        found = gpu_named(given_name)
        assert found is not None
        assert found.name == name
    assert gpu_named("Radeon") is None
    assert all(gpu_named(gpu.name) is gpu for gpu in GPUS)
    assert instance_named("ml.g5.12xlarge").gpus == 4
    assert all(instance.gpu in GPUS for instance in INSTANCES.values())


def test_the_pace_is_measured_over_the_last_steps() -> None:
    meter = PaceMeter(needed_flops_per_token=1e9, gpu=H100, processes=2)
    assert meter({"seconds": 10.0, "tokens": 5000}).tokens_per_second == 0.0  # the first step's duration is unknown
    pace = meter({"seconds": 12.0, "tokens": 4000})
    assert pace.tokens_per_second == pytest.approx(2000)
    assert pace.utilization == pytest.approx(2000 * 1e9 / (2 * 989e12))
    for step in range(1, 40):
        pace = meter({"seconds": 12.0 + step, "tokens": 1000})
    assert pace.tokens_per_second == pytest.approx(1000)
    assert str(PaceMeter()({"seconds": 1.0, "tokens": 1})) == "0 tokens/s"


def test_an_unknown_gpu_is_planned_with_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    found: dict[str, Any] = {"is_available": True, "get_device_name": "NVIDIA RTX 9999"}
    found |= {"memory_reserved": 3 * 2**30, "memory_allocated": 2**30}
    for name, value in found.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (18 * 2**30, 24 * 2**30))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: not including_emulation)
    gpu = this_machine(TrainingConfig())
    assert gpu is not None
    assert (gpu.name, gpu.memory_bytes, gpu.has_bf16) == ("NVIDIA RTX 9999", 20 * 2**30, True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert this_machine(TrainingConfig()) == dataclasses.replace(H200, memory_bytes=20 * 2**30)
    assert this_machine(TrainingConfig(device="cpu")) is None


def test_gpu_names_must_match_as_whole_words() -> None:
    assert gpu_named("NVIDIA L40") is None
    assert gpu_named("Quadro T400") is None
    assert gpu_named("NVIDIA L40S") is not gpu_named("NVIDIA L4")


def test_a_model_with_experts_is_forecast_uncompiled(tmp_path: Path) -> None:
    tensors = {name: list(entry[1]) for name, entry in llama_tensors(TINY).items() if ".mlp." not in name}
    tensors |= {
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{matrix}.weight": [128, 64]
        for layer in range(2)
        for expert in range(4)
        for matrix in ("w1", "w2", "w3")
    }
    write_holes(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(TINY | {"num_local_experts": 4, "num_experts_per_tok": 2}))
    tokenizer = tiny_tokenizer()
    shape = ModelShape.read(tmp_path)
    prepared = prepare(RECORDS, PromptFormatter(), tokenizer, TrainingConfig(), shape=shape)
    forecast = plan_training(shape, prepared, TrainingConfig(), Machines(gpu="H200"))
    assert forecast.config.torch_compile is False
    assert not forecast.config.uses_flex_attention(cuda=True)
    assert not forecast.config.uses_cuda_graphs(cuda=True, shard_group_size=1)
