"""What a plan forecasts and what a GPU measures, side by side: memory and time of one row, for random Llamas.

    python benchmarks/forecast.py [SHAPE …]

One process for each shape (of benchmarks/scaling.py) makes the model once and trains it in each way with the trainer's
own loop. "launched" is without CUDA graphs, as rows with dropout run.
"""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import time
from typing import Any

from scaling import random_base, random_row

# Tokens of a row and what is set otherwise than by default; layers to recompute as a share of all.
RUNS: list[tuple[int, float, dict[str, Any]]] = [
    (3072, 1, {}),
    (3072, 0.66, {}),
    (3072, 0.5, {}),
    (3072, 0, {}),
    (8192, 1, {}),
    (2048, 0, {}),
    (3072, 0, {"launched": True}),
    (3072, 1, {"launched": True}),
    (3072, 1, {"torch_compile": False, "attn_implementation": "flex_attention"}),
    (3072, 0, {"hold_dequantized": True}),
    (3072, 0, {"hold_dequantized": True, "launched": True}),
    (8192, 0, {"hold_dequantized": True}),
    (12288, 0, {"hold_dequantized": True}),
]
ROWS, STEPS = 4, 2


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2])
        return
    print("| shape | way | row | recomputed | forecast GiB | measured | reserved | forecast s/row | measured |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for shape in sys.argv[1:] or ["8b", "1b", "135m"]:
        subprocess.run([sys.executable, __file__, "worker", shape], check=False)


def work(name: str) -> None:
    import torch

    from sqlquarry.pretrained import compute_dtype
    from sqlquarry.quantization import hold_dequantized
    from sqlquarry.training import TrainingConfig
    from sqlquarry.training.steps.world import World

    device = "cuda" if torch.cuda.is_available() else "cpu"
    world = World(0, 1, 1, torch.device(device, 0) if device == "cuda" else torch.device(device))
    base = random_base(name, "4bit", TrainingConfig(device=device), world)
    held = False
    for tokens, recomputed, changes in RUNS:
        fields = dict(changes)
        launched = fields.pop("launched", False)
        if fields.get("hold_dequantized") and not held:
            base, held = hold_dequantized(base, compute_dtype(device)), True
        layers = round(recomputed * base.config.num_hidden_layers)
        config = TrainingConfig(
            max_length=tokens,
            gradient_checkpointing=layers,
            device=device,
            **({"hold_dequantized": False} | fields),
        )
        with _without_graphs() if launched else contextlib.nullcontext():
            found, base = measured(base, config, world)
        way = ", ".join(["bf16" if held else "4 bits", *(["launched"] if launched else [])])
        way += "" if config.torch_compile == "auto" else ", not compiled"
        print(
            f"| {name} | {way} | {tokens:,} | {layers} | {found['planned_bytes'] / 2**30:.2f} | "
            f"{found['bytes'] / 2**30:.2f} | {found['reserved'] / 2**30:.2f} | "
            f"{found['planned_seconds']:.4f} | {found['seconds']:.4f} |",
            flush=True,
        )


def measured(base: Any, config: Any, world: Any) -> tuple[dict[str, Any], Any]:
    """Peak memory and seconds of a row; and the base, without an adapter again."""
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
    torch._dynamo.reset()  # noqa: SLF001 - the limit of compilations is per process
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = make_trainable(base, config, world)
    rows = [random_row(number, config.max_length) for number in range(ROWS)]
    schedule = Schedule(rows=ROWS, rows_per_step=ROWS, epochs=9, warmup_ratio=0.0, peak_rate=1e-5, seed=0)
    loop = Loop(model, rows, schedule, config, world)
    loop._step(0, stop=False)  # noqa: SLF001 - compiles
    loop._step(1, stop=False)  # noqa: SLF001 - see above
    started = time.monotonic()
    for step in range(2, 2 + STEPS):
        loop._step(step, stop=False)  # noqa: SLF001 - one step is what is measured; it waits for the GPU
    seconds = (time.monotonic() - started) / STEPS / ROWS
    sizes = [(len(row.input_ids), row.answers) for row in rows]
    tensors = {name: ("BF16", tuple(value.shape)) for name, value in _shapes_of(base).items()}
    shape = ModelShape.of(base.config.to_dict(), tensors)
    gpu = gpu_named(torch.cuda.get_device_name()) if cuda else None
    found = {
        "bytes": torch.cuda.max_memory_allocated() if cuda else 0,
        "reserved": torch.cuda.max_memory_reserved() if cuda else 0,
        "seconds": seconds,
        "planned_bytes": forecast_memory(shape, config, sizes, cuda=cuda).allocated,
        "planned_seconds": row_seconds(shape, config, *sizes[0], gpu=gpu),
    }
    bare = model.unload()
    for layer in bare.model.layers:
        layer.__dict__.pop("forward", None)
    return found, bare


@contextlib.contextmanager
def _without_graphs() -> Any:
    from sqlquarry.training import TrainingConfig

    real, TrainingConfig.uses_cuda_graphs = TrainingConfig.uses_cuda_graphs, lambda *_, **__: False
    try:
        yield
    finally:
        TrainingConfig.uses_cuda_graphs = real


def _shapes_of(base: Any) -> dict[str, Any]:
    """The tensors of the model as it would lie on disk."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return dict(AutoModelForCausalLM.from_config(base.config, trust_remote_code=False).state_dict())


if __name__ == "__main__":
    main()
