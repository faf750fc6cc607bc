"""Choose the memory options that a configuration leaves at "auto": the fastest way to train that fits the GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.config import Sharding, TrainingConfig
from sqlquarry.training.planning.hardware import GPU
from sqlquarry.training.planning.memory import forecast_memory
from sqlquarry.training.planning.speed import row_seconds


def fitted(
    shape: ModelShape,
    config: TrainingConfig,
    rows: Sequence[tuple[int, int]],
    gpu: GPU,
    *,
    processes: int,
    machines: int = 1,
) -> TrainingConfig:
    """Return the config with `sharding`, `hold_dequantized` and `gradient_checkpointing` chosen by memory and time.

    If nothing fits, return the choice that needs the least memory. The adapter does not depend on the choice, except
    for rounding.

    Args:
        shape: the base model.
        config: options that are not "auto" are kept.
        rows: tokens and answer tokens of each packed row.
        gpu: the GPU of each process. Its `memory_bytes` is the limit.
        processes: number of processes on all machines.
        machines: number of machines.
    """
    # With offloading, 16-bit weights would mean four times the traffic.
    may_hold = config.quantization is not None and not config.cpu_offload
    held, layers = config.hold_dequantized, config.gradient_checkpointing
    ways = [
        dataclasses.replace(config, sharding=sharding, hold_dequantized=hold, gradient_checkpointing=recomputed)
        for sharding in _shardings(config, processes, machines)
        for hold in ([held] if held != "auto" else [False, True] if may_hold else [False])
        for recomputed in ([layers] if layers != "auto" else range(shape.layers, -1, -1))
    ]
    worst = worst_rows(rows)
    needed = [forecast_memory(shape, way, worst, processes=processes, machines=machines).needed for way in ways]
    room = max(gpu.memory_bytes, min(needed))
    longest = max(rows)
    return min(
        (way for way, bytes_ in zip(ways, needed, strict=True) if bytes_ <= room),
        key=lambda way: row_seconds(shape, way, *longest, gpu=gpu, processes=processes, machines=machines),
    )


def worst_rows(row_sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the rows that no other row exceeds in both tokens and answers. Only these can need the most memory."""
    worst: list[tuple[int, int]] = []
    for tokens, answers in sorted(set(row_sizes), reverse=True):
        if not worst or answers > worst[-1][1]:
            worst.append((tokens, answers))
    return worst


def _shardings(config: TrainingConfig, processes: int, machines: int) -> list[Sharding]:
    """Return the possible values of `sharding`. If forecasts are equal, the first one wins."""
    if config.sharding != "auto" or processes == 1:
        return [config.sharding]
    kinds: list[Sharding] = ["none", "hybrid", "full"] if 1 < machines < processes else ["none", "full"]
    # Only sharded weights can be offloaded.
    return [kind for kind in kinds if not (config.cpu_offload and kind == "none")]
