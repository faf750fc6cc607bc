"""What a configuration leaves open about a GPU's memory, chosen: the fastest way to train that fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.hardware import GPU
from sqlquarry.training.memory import forecast_memory
from sqlquarry.training.shape import ModelShape
from sqlquarry.training.speed import row_seconds


def fitted(
    shape: ModelShape,
    config: TrainingConfig,
    rows: Sequence[tuple[int, int]],
    gpu: GPU,
    *,
    processes: int,
    sharers: int,
) -> TrainingConfig:
    """The config with `hold_dequantized` and `gradient_checkpointing` as the forecasts of memory and time advise.

    What fits in no way is returned in the smallest. Up to rounding the adapter does not depend on the choice.

    Args:
        shape: the base model.
        config: what it sets already stays.
        rows: tokens and answer tokens of each packed row.
        gpu: each process's; `memory_bytes` is the limit.
        processes: all of the run.
        sharers: those that share one copy of the base.
    """
    may_hold = config.quantization is not None and not config.cpu_offload  # offloaded, four times as much would travel
    held, layers = config.hold_dequantized, config.gradient_checkpointing
    ways = [
        dataclasses.replace(config, hold_dequantized=hold, gradient_checkpointing=recomputed)
        for hold in ([held] if held is not None else [False, True] if may_hold else [False])
        for recomputed in ([layers] if layers is not None else range(shape.layers, -1, -1))
    ]
    longest = max(rows)
    fitting = [way for way in ways if forecast_memory(shape, way, rows, processes=sharers).needed <= gpu.memory_bytes]
    return min(fitting or ways[:1], key=lambda way: row_seconds(shape, way, *longest, gpu=gpu, processes=processes))
