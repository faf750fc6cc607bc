"""Advise how to make a run better or cheaper: enough steps, no idle GPUs, a cheaper instance."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.planning.hardware import INSTANCES
from sqlquarry.training.planning.offers import cheaper_offer
from sqlquarry.training.planning.plan import TrainingPlan

FEW_STEPS = 20  # our choice: warm-up and cosine need about this many steps to have their shape
MIN_STEPS_PER_EPOCH = 4  # fewer steps hurt learning more than idle processes waste time


def advice(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    """Yield one sentence for each recommended change.

    Args:
        plan: the run's forecast.
        config: the user's configuration.
    """
    yield from _about_trl(plan, config)
    if plan.steps < FEW_STEPS:
        yield _more_steps(plan, config)
    if plan.idle_share:
        yield _idle_processes(plan)
    yield from _unused_gpus(plan)
    if offers := cheaper_offer(plan, config):
        planned, other = offers
        minutes, before = f"{other.seconds / 60:.0f}", f"{planned.seconds / 60:.0f}"
        takes = f"take {minutes} instead of {before} minutes" if minutes != before else f"also take {minutes} minutes"
        yield (
            f"{other.instance_type} would cost about ${other.cost_usd:.2f} instead of ${planned.cost_usd:.2f} and "
            f"{takes} (with a rough estimate for start and merge)."
        )


def _about_trl(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    if config.backend != "trl":
        return
    yield (
        "memory, time and price are forecast for our own engine. TRL takes 1.4 to 2.7 times as long (measured with an "
        "8B model on one H200)."
    )
    if config.packing_strategy == "wrapped":
        yield (
            f'packing "wrapped" cuts {plan.cut:,} of {plan.records:,} records at the ends of rows, and the records of '
            "a row see each other. The published recipe does so."
        )
    elif plan.cut:
        yield f'packing "bfd_split" cuts {plan.cut:,} of {plan.records:,} records into several parts.'


def _more_steps(plan: TrainingPlan, config: TrainingConfig) -> str:
    """Advise fewer records per step, and also more epochs if needed. Count steps as in `forecast.schedule_of`."""
    few = f"the optimizer takes only {plan.steps} step{'s' if plan.steps > 1 else ''}, which is too few to learn much. "
    if "gradient_accumulation_steps" in config.sft_config:
        return f"{few}Lower gradient_accumulation_steps in sft_config, or raise num_train_epochs."
    rows_per_step = max(1, math.floor(config.num_train_epochs * plan.rows / FEW_STEPS))
    while rows_per_step > 1 and math.ceil(config.num_train_epochs * math.ceil(plan.rows / rows_per_step)) < FEW_STEPS:
        rows_per_step -= 1
    steps_per_epoch = math.ceil(plan.rows / rows_per_step)
    more_epochs = math.ceil(config.num_train_epochs * steps_per_epoch) < FEW_STEPS
    changes = []
    if rows_per_step < plan.rows_per_step:
        changes.append(f"records_per_step={math.floor(rows_per_step * plan.records / plan.rows)}")
    if more_epochs:
        changes.append(f"num_train_epochs={math.ceil(FEW_STEPS / steps_per_epoch)}")
    return f"{few}Set {' and '.join(changes)} for at least {FEW_STEPS} steps." + (
        " A smaller max_length also gives more, shorter rows." if more_epochs else ""
    )


def _idle_processes(plan: TrainingPlan) -> str:
    rows = -(-plan.rows_per_step // plan.processes) * plan.processes
    idle = f"with {_rows(plan)} per step, {plan.processes} processes are idle {plan.idle_share:.0%} of the time."
    more = f" records_per_step={round(rows * plan.records / plan.rows)} gives {rows} rows per step."
    return idle + (more if rows <= plan.rows else "")


def _unused_gpus(plan: TrainingPlan) -> Iterator[str]:
    if plan.instance_type not in INSTANCES:
        return
    gpus = INSTANCES[plan.instance_type].gpus * plan.instances
    if plan.processes < gpus:
        more = f" records_per_step={-(-gpus * plan.records // plan.rows)} would use all of them."
        yield (
            f"a step of {_rows(plan)} uses only {plan.processes} of the {gpus} GPUs that you pay for."
            + (more if MIN_STEPS_PER_EPOCH * gpus <= plan.rows else "")
        )


def _rows(plan: TrainingPlan) -> str:
    return f"{plan.rows_per_step} row{'s' if plan.rows_per_step > 1 else ''}"
