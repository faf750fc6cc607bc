"""Compares the memory and time of one row that a plan forecasts with those that a GPU needs, for random Llamas.

    python benchmarks/forecast.py [SHAPE …]

For each shape (see `SHAPES` in benchmarks/common.py) a process builds the model once and trains it in several ways with
the loop of the trainer. "launched" means without CUDA graphs, which is how rows with dropout run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from unittest import mock

from common import GIB, SHAPES, argument_parser, random_base, random_row, seconds_per_step

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from sqlquarry.training import TrainingConfig
    from sqlquarry.training.steps.world import World


@dataclass(frozen=True)
class Way:
    """A way to train rows."""

    row_tokens: int
    recomputed: float  # share of layers
    dequantized: bool = False
    launched: bool = False
    compiled: bool = True


WAYS = (
    Way(3072, 1),
    Way(3072, 0.66),
    Way(3072, 0.5),
    Way(3072, 0),
    Way(8192, 1),
    Way(2048, 0),
    Way(3072, 0, launched=True),
    Way(3072, 1, launched=True),
    Way(3072, 1, compiled=False),
    Way(3072, 0, dequantized=True),
    Way(3072, 0, dequantized=True, launched=True),
    Way(8192, 0, dequantized=True),
    Way(12288, 0, dequantized=True),
)
ROWS, STEPS = 4, 2


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    print("| shape | way | row | recomputed | forecast GiB | measured | reserved | forecast s/row | measured |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for shape in options.shapes or ["8b", "1b", "135m"]:
        subprocess.run([sys.executable, __file__, "--worker", shape], check=False)


def work(shape: str) -> None:
    import torch

    from sqlquarry.pretrained import compute_dtype
    from sqlquarry.quantization import hold_dequantized
    from sqlquarry.training import TrainingConfig
    from sqlquarry.training.steps.world import World

    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    world = World(0, 1, 1, torch.device(device, 0) if device == "cuda" else torch.device(device))
    base = random_base(SHAPES[shape], TrainingConfig(device=device), world)
    held = False
    for way in WAYS:
        if way.dequantized and not held:
            base, held = hold_dequantized(base, compute_dtype(device)), True
        layers = round(way.recomputed * base.config.num_hidden_layers)
        config = TrainingConfig(
            max_length=way.row_tokens, gradient_checkpointing=layers, device=device, hold_dequantized=way.dequantized
        )
        if not way.compiled:
            config = dataclasses.replace(config, torch_compile=False, attn_implementation="flex_attention")
        without_graphs = mock.patch.object(TrainingConfig, "uses_cuda_graphs", return_value=False)
        with without_graphs if way.launched else contextlib.nullcontext():
            planned, found, base = measured(base, config, world)
        label = ", ".join(["bf16" if held else "4 bits", *(["launched"] if way.launched else [])])
        label += "" if way.compiled else ", not compiled"
        print(
            f"| {shape} | {label} | {way.row_tokens:,} | {layers} | {planned.bytes / GIB:.2f} | "
            f"{found.bytes / GIB:.2f} | {found.reserved / GIB:.2f} | {planned.seconds:.4f} | {found.seconds:.4f} |",
            flush=True,
        )


@dataclass(frozen=True)
class Cost:
    """The peak memory of a step and the seconds for a row."""

    bytes: int
    seconds: float
    reserved: int = 0  # bytes that torch reserved on the GPU, for measurements only


def measured(base: LlamaForCausalLM, config: TrainingConfig, world: World) -> tuple[Cost, Cost, LlamaForCausalLM]:
    """Return the forecast, the measurement, and the base with its adapter removed."""
    import torch

    from sqlquarry.training.base.shape import ModelShape
    from sqlquarry.training.planning.hardware import gpu_named
    from sqlquarry.training.planning.memory import forecast_memory
    from sqlquarry.training.planning.speed import row_seconds
    from sqlquarry.training.steps.adapted_model import make_trainable
    from sqlquarry.training.steps.loop import Loop
    from sqlquarry.training.steps.schedule import Schedule

    cuda = world.device.type == "cuda"
    gc.collect()
    torch._dynamo.reset()  # noqa: SLF001 - the limit of compilations applies to the process
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = make_trainable(base, config, world)
    rows = [random_row(number, config.max_length) for number in range(ROWS)]
    schedule = Schedule(rows=ROWS, rows_per_step=ROWS, epochs=9, warmup_ratio=0.0, peak_rate=1e-5, seed=0)
    seconds = seconds_per_step(Loop(model, rows, schedule, config, world), STEPS, warm_up=2) / ROWS
    sizes = [(row.size.tokens, row.size.answers) for row in rows]
    shape = ModelShape.of(base.config.to_dict(), _tensors_of(base))
    gpu = gpu_named(torch.cuda.get_device_name()) if cuda else None
    planned = Cost(
        bytes=forecast_memory(shape, config, sizes, cuda=cuda).allocated,
        seconds=row_seconds(shape, config, *sizes[0], gpu=gpu),
    )
    found = Cost(
        bytes=torch.cuda.max_memory_allocated() if cuda else 0,
        seconds=seconds,
        reserved=torch.cuda.max_memory_reserved() if cuda else 0,
    )
    bare = model.unload()
    for layer in bare.model.layers:
        layer.__dict__.pop("forward", None)
    return planned, found, bare


def _tensors_of(base: LlamaForCausalLM) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and shape that the tensors of the model would have on disk."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        state = AutoModelForCausalLM.from_config(base.config, trust_remote_code=False).state_dict()
    return {name: ("BF16", tuple(value.shape)) for name, value in state.items()}


if __name__ == "__main__":
    main()
