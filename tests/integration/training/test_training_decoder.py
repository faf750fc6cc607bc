"""The options for how a model runs do not change its results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from sqlquarry.errors import TrainingError
from sqlquarry.pretrained import load_causal_lm
from sqlquarry.prompt import PromptFormatter
from sqlquarry.quantization import QuantizationRecipe, hold_dequantized
from sqlquarry.training import TrainingConfig
from sqlquarry.training.encoding.packing import PackedRow, pack
from sqlquarry.training.steps.decoder import run_gathered_weights, run_layers, run_lora_directly
from sqlquarry.training.steps.engine import StepEngine
from sqlquarry.training.steps.loss import RowShape, answer_loss, model_inputs
from sqlquarry.training.steps.sharding import shard_base
from sqlquarry.training.steps.world import World
from training_runs import RECORDS


@pytest.fixture(scope="module")
def rows(tiny_llama: Path) -> list[PackedRow]:
    examples = PromptFormatter().encode_all(RECORDS[:16], AutoTokenizer.from_pretrained(tiny_llama))
    return pack(examples, [r.schema for r in RECORDS[:16]], max_tokens=320, share_prefixes=True, seed=0)


def adapted(base: Path, *, quantized: bool = True, held: bool = False) -> Any:
    """Return a PEFT model with a random adapter that changes its answers."""
    model = load_causal_lm(base, "cpu", QuantizationRecipe(load_dtype="float32") if quantized else None)
    if held:
        model = hold_dequantized(model, torch.float32)
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    return model.train()


def loss_and_gradients(model: Any, row: PackedRow, **options: Any) -> tuple[float, dict[str, torch.Tensor]]:
    loss = answer_loss(model, model_inputs(row, **options))
    loss.backward()
    return loss.item(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def assert_alike(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert (gradient - other[1][name]).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize(("quantized", "held"), [(True, False), (True, True), (False, False)])
def test_the_adapter_as_two_products_equals_peft(
    tiny_llama: Path, rows: list[PackedRow], *, quantized: bool, held: bool
) -> None:
    theirs = loss_and_gradients(adapted(tiny_llama, quantized=quantized, held=held), rows[0])
    model = adapted(tiny_llama, quantized=quantized, held=held)
    run_lora_directly(model)
    assert_alike(loss_and_gradients(model, rows[0]), theirs)


@pytest.mark.parametrize("recomputed", [0, 1, 2])
def test_recomputed_layers_run_twice_and_give_the_same(
    tiny_llama: Path, rows: list[PackedRow], recomputed: int
) -> None:
    model = adapted(tiny_llama)
    calls: Counter[int] = Counter()
    for number, layer in enumerate(model.get_base_model().model.layers):
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: calls.update([number]))
    run_layers(model, compiled=False, recomputed=recomputed, random=False)
    assert_alike(loss_and_gradients(model, rows[0]), loss_and_gradients(adapted(tiny_llama), rows[0]))
    assert calls == {number: 2 if number < recomputed else 1 for number in range(2)}


def test_recomputation_repeats_dropout(tiny_llama: Path, rows: list[PackedRow]) -> None:
    losses = []
    for recomputed in (0, 2):
        model = adapted(tiny_llama)
        for module in model.modules():
            if isinstance(module, torch.nn.Identity):
                continue
            if hasattr(module, "lora_dropout"):
                module.lora_dropout["default"] = torch.nn.Dropout(0.3)
        run_lora_directly(model)
        run_layers(model, compiled=False, recomputed=recomputed, random=True)
        torch.manual_seed(5)
        losses.append(loss_and_gradients(model, rows[0]))
    assert_alike(*losses)


def test_padding_a_row_to_one_shape_changes_nothing(tiny_llama: Path, rows: list[PackedRow]) -> None:
    shape = RowShape(384, rows[0].size.answers + 7)
    padded = loss_and_gradients(adapted(tiny_llama), rows[0], shape=shape)
    assert_alike(padded, loss_and_gradients(adapted(tiny_llama), rows[0]))
    assert model_inputs(rows[0], shape=shape)["input_ids"].shape == (1, 384)


@pytest.mark.parametrize("gathered", [False, True])
def test_compiled_layers_give_the_same_steps_and_are_compiled_once(
    tiny_llama: Path, rows: list[PackedRow], monkeypatch: pytest.MonkeyPatch, *, gathered: bool
) -> None:
    torch.compiler.reset()
    counters = torch._dynamo.utils.counters  # no public name counts compilations
    counters.clear()
    real = torch.compile
    # Layers are traced, differentiated and guarded as usual. Only the C++ compiler, which takes a minute, is left out.
    monkeypatch.setattr(
        torch, "compile", lambda work, *, dynamic, **_: real(work, dynamic=dynamic, backend="aot_eager")
    )
    losses = {}
    for compiled in (False, True):
        config = TrainingConfig(max_length=320, device="cpu", torch_compile=compiled)
        model = adapted(tiny_llama)
        run_lora_directly(model)
        if gathered:  # as FSDP2 does, replace packed weights with plain parameters
            run_gathered_weights(model)
            for layer in model.modules():
                if isinstance(layer, Linear4bit):
                    layer.weight = torch.nn.Parameter(layer.weight.data, requires_grad=False)
        run_layers(model, compiled=compiled, recomputed=1, random=False)
        engine = StepEngine(model, rows, config, 1e-3, torch.device("cpu"))
        losses[compiled] = []
        for row in (*rows, *rows):
            losses[compiled].append(engine.learn(row, 1 / row.size.answers).item())
            engine.clip()
            engine.update(1e-3)
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    assert losses[True][-1] < losses[True][0]
    # The three graphs are the first layer, whose input needs no gradient, the other layers, and the loss.
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]


@pytest.mark.parametrize("storage", ["bfloat16", "float16", "uint8"])
def test_storage_dtypes_that_fsdp2_changes_are_refused(tiny_llama: Path, storage: str) -> None:
    model = load_causal_lm(tiny_llama, "cpu", QuantizationRecipe(load_dtype="float32", storage_dtype=storage))
    with pytest.raises(TrainingError, match=rf"torch\.{storage}"):
        shard_base(model, World(0, 2, 2, torch.device("cpu")), shard_group_size=2, cpu_offload=False)
