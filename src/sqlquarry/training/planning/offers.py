"""Forecast the cost of a complete SageMaker job on each instance type, to suggest a cheaper one that is fast enough."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.planning.fit import fitted, worst_rows
from sqlquarry.training.planning.hardware import INSTANCES, Instance
from sqlquarry.training.planning.memory import forecast_memory
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.planning.speed import run_seconds

# Estimates, not measured: the seconds to start a machine with its image and packages, how often a job goes through the
# base's weights (download, load, merge, upload), and the rate at which it does so.
_START_S = 400
_HANDLED_TIMES, _HANDLED_BYTES_PER_SECOND = 4, 200e6
# A merge on the machine needs more memory than the 16-bit weights. Estimated, not measured.
_MEMORY_TIMES_WEIGHTS = 1.5
# An offer takes at most twice as long and is at least a fifth cheaper. Less is not worth the time to change the job.
_SLOWER, _CHEAPER = 2.0, 0.8


class Offer(NamedTuple):
    """Cost and duration of a job on one instance of a type, including start and merge."""

    instance_type: str
    cost_usd: float
    seconds: float


def cheaper_offer(plan: TrainingPlan, config: TrainingConfig) -> tuple[Offer, Offer] | None:
    """Return the planned job and the cheapest one that takes at most twice as long, or None if none is cheap enough.

    Args:
        plan: a run on SageMaker instances.
        config: the user's configuration, in which options may still be "auto".
    """
    if plan.instance_type is None or plan.cost_usd is None or not plan.seconds:
        return None
    seconds = plan.seconds + _other_seconds(plan.shape)
    planned = Offer(plan.instance_type, plan.cost_usd / plan.seconds * seconds, seconds)
    offers = [offer for offer in _offers(plan, config) if offer.seconds <= _SLOWER * seconds]
    best = min(offers, key=lambda offer: (offer.cost_usd, offer.seconds), default=planned)
    return (planned, best) if best.cost_usd <= _CHEAPER * planned.cost_usd else None


def cheapest_fit(plan: TrainingPlan, config: TrainingConfig) -> Offer | None:
    """Return the cheapest instance that the run fits on, however long it takes, or None if it fits on none."""
    return min(_offers(plan, config), key=lambda offer: offer.cost_usd, default=None)


def _offers(plan: TrainingPlan, config: TrainingConfig) -> list[Offer]:
    # The plan has switched compilation off if the model has experts.
    config = dataclasses.replace(config, torch_compile=plan.config.torch_compile)
    found, seen = [], set()
    # Of the instance types with the same GPUs, only the cheapest with enough memory counts.
    for name, instance in sorted(INSTANCES.items(), key=lambda item: item[1].usd_per_hour or 0):
        if instance.usd_per_hour is None or not instance.gpu.has_bf16 or not _merges(plan.shape, instance):
            continue
        processes = min(instance.gpus, plan.rows_per_step)
        if (instance.gpu.name, processes) in seen:
            continue
        seen.add((instance.gpu.name, processes))
        seconds = _training_seconds(plan, config, instance, processes)
        if seconds is not None:
            seconds += _other_seconds(plan.shape)
            found.append(Offer(name, instance.usd_per_hour * seconds / 3600, seconds))
    return found


def _training_seconds(plan: TrainingPlan, config: TrainingConfig, instance: Instance, processes: int) -> float | None:
    """Return the seconds of training on an instance, or None if the run does not fit."""
    rows = worst_rows(plan.row_sizes)
    chosen = fitted(plan.shape, config, rows, instance.gpu, processes=processes)
    if forecast_memory(plan.shape, chosen, rows, processes=processes).needed > instance.gpu.memory_bytes:
        return None
    return run_seconds(
        plan.shape,
        chosen,
        plan.row_sizes,
        rows_per_step=plan.rows_per_step,
        steps=plan.steps,
        gpu=instance.gpu,
        processes=processes,
    )


def _merges(shape: ModelShape, instance: Instance) -> bool:
    return 2 * shape.parameters * _MEMORY_TIMES_WEIGHTS <= instance.memory_gib * 2**30


def _other_seconds(shape: ModelShape) -> float:
    return _START_S + _HANDLED_TIMES * 2 * shape.parameters / _HANDLED_BYTES_PER_SECOND
