"""Tests that need a CUDA device. Run them by hand: `pytest -m gpu tests/gpu`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.merging import AdapterMerger
from sqlquarry.models.local.model import LocalModel
from sqlquarry.pretrained import load_causal_lm
from sqlquarry.prompt import PromptFormatter
from sqlquarry.quantization import QuantizationRecipe, hold_dequantized
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.encoding.packing import pack
from sqlquarry.training.launch import TORCHRUN
from sqlquarry.training.steps.loss import RowShape, answer_loss, model_inputs
from sqlquarry.training.steps.world import World

from conftest import save_tiny_llama, toy_examples

pytestmark = pytest.mark.gpu
RECORDS = [Record(**example) for example in toy_examples(64)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "tie_word_embeddings": False}
    return save_tiny_llama(tmp_path_factory.mktemp("base"), **sizes)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    config = TrainingConfig(
        num_train_epochs=20, records_per_step=16, max_length=1024, learning_rate=5e-3, device="cuda"
    )
    return QLoRAFSDPTrainer(base, config=config).train(
        RECORDS, RECORDS[:8], output_dir=tmp_path_factory.mktemp("run") / "adapter"
    )


def test_the_4_bit_values_on_cuda_are_reproduced_on_a_cpu(base: Path) -> None:
    recipe = QuantizationRecipe(load_dtype="bfloat16")
    model = load_causal_lm(base, "cuda", recipe)
    recipe = recipe.completed(model)
    assert recipe.device == "cuda"
    weights = load_file(base / "model.safetensors")
    for name in recipe.modules:
        layer = model.get_submodule(name)
        on_cuda = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).cpu()
        on_cpu = recipe.round_trip(weights[f"{name}.weight"], name)
        assert torch.equal(on_cpu, on_cuda.reshape(on_cpu.shape)), name


def test_training_in_4_bits_learns(adapter: AdapterCheckpoint) -> None:
    provenance = adapter.manifest.provenance
    assert provenance["run"]["device"] == "cuda"
    assert provenance["quantization"]["load_dtype"] == "bfloat16"
    assert provenance["run"]["training_loss"] < 4.0  # a random model starts at ln(445) = 6.1


def test_packed_loss_equals_the_mean_of_examples_alone(base: Path) -> None:
    model = load_causal_lm(base, "cuda")
    examples = PromptFormatter().encode_all(RECORDS[:16], AutoTokenizer.from_pretrained(base))
    keys = [record.schema for record in RECORDS[:16]]
    answers = sum(label != -100 for example in examples for label in example.labels)
    totals = {}
    for share in (True, False):
        rows = pack(examples, keys, max_tokens=1024, share_prefixes=share, seed=0)
        batches = [model_inputs(row) for row in rows]
        with torch.no_grad():
            totals[share] = sum(
                answer_loss(model, {key: value.cuda() for key, value in batch.items()}).item() / answers
                for batch in batches
            )
    assert totals[True] == pytest.approx(totals[False], rel=2e-3)  # bfloat16


def losses(model: Any, **options: Any) -> list[float]:
    examples = PromptFormatter().encode_all(RECORDS[:24], AutoTokenizer.from_pretrained(model.config.name_or_path))
    rows = pack(examples, [r.schema for r in RECORDS[:24]], max_tokens=512, share_prefixes=True, seed=0)
    with torch.no_grad():
        return [answer_loss(model, model_inputs(row, "cuda", **options)).item() / row.size.answers for row in rows]


def test_flex_attention_on_padded_rows_gives_the_loss_of_the_dense_mask(base: Path) -> None:
    dense = losses(load_causal_lm(base, "cuda"))
    flex = load_causal_lm(base, "cuda", attention="flex_attention")
    assert losses(flex, shape=RowShape(640, 400), flex=True) == pytest.approx(dense, rel=2e-3)


def test_4_bit_values_held_in_bf16_give_the_same_loss(base: Path) -> None:
    recipe = QuantizationRecipe()
    packed = losses(load_causal_lm(base, "cuda", recipe))
    assert losses(hold_dequantized(load_causal_lm(base, "cuda", recipe), torch.bfloat16)) == pytest.approx(
        packed, rel=1e-3
    )


OPTIONS: dict[str, Any] = {"num_train_epochs": 2, "records_per_step": 16, "max_length": 512, "learning_rate": 1e-3}
OPTIONS |= {"device": "cuda"}


def trained(
    base: Path, output: Path, *, processes: int | None = None, evaluation: int = 0, **changes: Any
) -> list[float]:
    config = TrainingConfig(**OPTIONS | changes)
    QLoRAFSDPTrainer(base, config=config).train(RECORDS, RECORDS[:evaluation], output_dir=output, processes=processes)
    return losses_of(output)


def losses_of(output: Path) -> list[float]:
    """Return the loss of each step, and after each epoch that of the evaluation."""
    entries = [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]
    return [entry[kind] for entry in entries for kind in ("loss", "eval_loss") if kind in entry]


def job(base: Path, output: Path, **changes: Any) -> Path:
    """Write a job file for the same run as `trained`."""
    records = output.with_suffix(".jsonl")
    records.write_text("".join(json.dumps(example) + "\n" for example in toy_examples(64)))
    fields = {"base_model": str(base), "train": str(records), "output_dir": str(output), "config": OPTIONS | changes}
    output.with_suffix(".json").write_text(json.dumps(fields))
    return output.with_suffix(".json")


SHARINGS = [("full", False), ("full", True), ("none", True)]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(("sharding", "held"), SHARINGS)
def test_two_gpus_take_the_steps_of_one(base: Path, tmp_path: Path, *, sharding: str, held: bool) -> None:
    changes = {"hold_dequantized": held, "sharding": sharding, "gradient_checkpointing": 1, "evaluation": 8}
    one = trained(base, tmp_path / "1", **changes)
    assert trained(base, tmp_path / "2", **changes, processes=2) == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize(("sharding", "held"), SHARINGS)
def test_two_processes_that_share_a_gpu_take_the_steps_of_one(
    base: Path, tmp_path: Path, *, sharding: str, held: bool
) -> None:
    # With bfloat16 storage, FSDP2 changes packed weights that look like NaN, and losses differ from the first step on.
    changes = {"hold_dequantized": held, "sharding": sharding}
    one = trained(base, tmp_path / "1", **changes)
    two = [str(Path(__file__).with_name("two_on_one_gpu.py")), str(job(base, tmp_path / "2", **changes))]
    subprocess.run([sys.executable, *TORCHRUN, "--nproc-per-node=2", *two], check=True, timeout=300)
    assert losses_of(tmp_path / "2") == pytest.approx(one, rel=1e-3)


def test_rows_can_be_recorded_while_nccl_runs(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # NCCL's watchdog thread queries events at any time, which must not break a recording.
    alone = trained(base, tmp_path / "alone")
    store, device = torch.distributed.HashStore(), torch.device("cuda", 0)
    torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=device)
    try:
        monkeypatch.setattr(World, "sum", lambda _, tensors: [*map(torch.distributed.all_reduce, list(tensors))])
        assert trained(base, tmp_path / "nccl") == alone
    finally:
        torch.distributed.destroy_process_group()


LAST_LAYER = ("layers.1.self_attn.q_proj", "layers.1.mlp.down_proj")


@pytest.mark.parametrize(
    ("tied", "changes"),
    [
        (True, {"hold_dequantized": True}),
        (False, {"hold_dequantized": False, "gradient_checkpointing": True}),
        (False, {"hold_dequantized": False, "target_modules": LAST_LAYER}),  # the first layer has no backward pass
    ],
)
def test_rows_can_be_recorded_if_the_base_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, *, tied: bool
) -> None:
    base = save_tiny_llama(tmp_path / "base", hidden_size=256, intermediate_size=512, tie_word_embeddings=tied)
    # With one process, FSDP2 copies instead of gathering. How NCCL behaves in a graph can be tested only on two GPUs.
    store, device = torch.distributed.HashStore(), torch.device("cuda", 0)
    assert TrainingConfig(device="cuda").uses_cuda_graphs(cuda=True, shard_group_size=2)
    monkeypatch.setattr(TrainingConfig, "shard_group_size", lambda *_: 2)
    torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=device)
    try:
        recorded = trained(base, tmp_path / "recorded", sharding="full", evaluation=8, **changes)
        monkeypatch.setattr(TrainingConfig, "uses_cuda_graphs", lambda *_, **__: False)
        launched = trained(base, tmp_path / "launched", sharding="full", evaluation=8, **changes)
    finally:
        torch.distributed.destroy_process_group()
    assert recorded == launched


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("mistral", {"sliding_window": 64}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}),
    ],
)
def test_recorded_steps_equal_plain_ones_with_sliding_windows(tmp_path: Path, kind: str, fields: Any) -> None:
    base = tmp_path / "base"
    save_tiny_llama(base)
    sizes = {"vocab_size": len(AutoTokenizer.from_pretrained(base)), "hidden_size": 128, "intermediate_size": 256}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **fields), dtype=torch.bfloat16)
    model.save_pretrained(base)
    plain = trained(base, tmp_path / "plain", torch_compile=False, attn_implementation="sdpa", evaluation=8)
    assert trained(base, tmp_path / "recorded", evaluation=8) == pytest.approx(plain, rel=2e-3)


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": 1, "hold_dequantized": False}])
def test_compiled_and_recorded_steps_equal_plain_ones(base: Path, tmp_path: Path, changes: Any) -> None:
    plain = trained(base, tmp_path / "plain", torch_compile=False, attn_implementation="sdpa", **changes)
    assert trained(base, tmp_path / "recorded", **changes) == pytest.approx(plain, rel=1e-3)


def test_compiled_steps_equal_plain_ones_with_trained_token_rows(base: Path, tmp_path: Path) -> None:
    changes = {"trainable_tokens": ["<|im_end|>"]}
    plain = trained(base, tmp_path / "plain", torch_compile=False, attn_implementation="sdpa", **changes)
    assert trained(base, tmp_path / "compiled", **changes) == pytest.approx(plain, rel=2e-3)
    rows = json.loads((tmp_path / "compiled" / "manifest.json").read_text())["provenance"]["run"]["trained_rows"]
    assert rows == AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(["<|im_end|>"])


def test_a_killed_run_resumes_to_the_same_bits(base: Path, tmp_path: Path) -> None:
    changes = {"num_train_epochs": 40, "save_steps": 7}
    trained(base, tmp_path / "undisturbed", **changes)
    path = job(base, tmp_path / "killed", **changes)
    process = subprocess.Popen([sys.executable, "-m", "sqlquarry.training", str(path)])
    log = tmp_path / "killed" / "training_log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 20:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    trained(base, tmp_path / "killed", **changes)
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_merged_model_answers_as_the_adapter_on_its_4_bit_base(adapter: AdapterCheckpoint, tmp_path: Path) -> None:
    merged = AdapterMerger().merge(adapter, tmp_path / "merged")
    served = LocalModel(merged, max_tokens=24).generate(RECORDS)
    trained = LocalModel(adapter, max_tokens=24).generate(RECORDS)
    assert sum(a.text == b.text for a, b in zip(served, trained, strict=True)) >= len(RECORDS) - 4
