"""Forecast a training run from its records and the sizes of its base, without loading any weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.errors import RecordError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training.base.outline import BaseOutline, read_outline
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.base.stop_token import StopCheck, check_stop, named_rows
from sqlquarry.training.config import TrainingConfig, learning_rate_for
from sqlquarry.training.encoding.packing import RowSize
from sqlquarry.training.encoding.prepared import PreparedRecords, prepare_both
from sqlquarry.training.planning.advice import advice
from sqlquarry.training.planning.fit import fitted
from sqlquarry.training.planning.guards import check_run, run_problems
from sqlquarry.training.planning.hardware import GPU
from sqlquarry.training.planning.machines import Machines, gpus_here
from sqlquarry.training.planning.memory import forecast_memory
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.planning.speed import run_seconds
from sqlquarry.training.steps.schedule import Schedule
from sqlquarry.training.trl.settings import ROWS_PER_STEP

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_HERE = Machines()


def plan_run(
    records: Sequence[Record],
    evaluation: Sequence[Record] | None,
    base_model: str | Path,
    formatter: PromptFormatter,
    config: TrainingConfig,
    *,
    machines: Machines = _HERE,
    s3: Callable[[], S3Client],
    check: bool = True,
) -> TrainingPlan:
    """Forecast and check a run. Only the small files of the base model are read, wherever it is stored.

    Args:
        records: records with SQL.
        evaluation: records whose loss would be reported, or None.
        base_model: as for `QLoRAFSDPTrainer`.
        formatter: the prompt.
        config: the run's configuration.
        machines: the machines to train on.
        s3: creates an S3 client, for a base model in S3.
        check: False also forecasts runs that cannot work, and lists the reasons in `TrainingPlan.problems`.

    Raises:
        RecordError: there are no records, some have no SQL, or (with `check`) some cannot be learned from.
        ConfigError, DeviceError: with `check`, as `check_run`. Without it, the GPU or instance type is unknown.
        ModelError: the base model cannot be used or reached.
    """
    outline = read_outline(base_model, s3=s3)
    bound = formatter.bind(outline.tokenizer)
    prepared, held_out = prepare_both(records, evaluation, bound, outline, config)
    plan = plan_training(outline.shape, prepared, config, machines, evaluation=held_out)
    plan = dataclasses.replace(plan, estimated=outline.estimated)
    plan = with_stop_check(plan, outline, config, formatter=bound)
    here = gpus_here(config) if machines.is_here else None
    if not check and (problems := run_problems(plan, config, gpus_here=here)):
        return dataclasses.replace(plan, problems=problems)
    notes = check_run(plan, config, tokenizer=outline.tokenizer, gpus_here=here)
    return dataclasses.replace(plan, notes=(*notes, *advice(plan, config)))


def plan_training(
    shape: ModelShape,
    prepared: PreparedRecords,
    config: TrainingConfig,
    machines: Machines = _HERE,
    *,
    evaluation: PreparedRecords | None = None,
) -> TrainingPlan:
    """Forecast a run without checking that it can work (see `check_run`).

    Args:
        shape: the base model's sizes.
        prepared: the encoded records.
        config: the run's configuration.
        machines: the machines to train on.
        evaluation: records whose loss would be reported. Only their problems enter the plan.

    Raises:
        ConfigError: the instance type or GPU is unknown, or the processes cannot be spread evenly over the instances.
        RecordError: none of the records can be learned from.
    """
    gpu, gpus = machines.find_gpus(config)
    if not prepared.row_sizes:
        raise RecordError(_nothing_to_learn(prepared, config))
    schedule = schedule_of(prepared.row_sizes, config, shape.hidden, processes=gpus)
    processes = machines.count_processes(gpus, schedule.rows_per_step)
    schedule = schedule_of(prepared.row_sizes, config, shape.hidden, processes=processes)
    row_sizes = tuple((size.tokens, size.answers) for size in prepared.row_sizes)
    if shape.expert_parameters:  # each token chooses its experts, so shapes differ from row to row
        config = dataclasses.replace(config, torch_compile=False)
    if gpu is not None:
        config = fitted(shape, config, row_sizes, gpu, processes=processes, machines=machines.instances)
    plan = _forecast(shape, config, row_sizes, schedule=schedule, gpu=gpu, machines=machines, processes=processes)
    given = [prepared, *([evaluation] if evaluation else [])]
    return dataclasses.replace(
        plan,
        records=len(prepared.examples),
        tokens_unshared=prepared.tokens_unshared,
        over_length=tuple(sorted((one for records in given for one in records.over_length), key=lambda one: -one[1])),
        unlearnable=tuple(name for records in given for name in records.unlearnable),
        base_problems=tuple(problem for records in given for problem in records.base_problems),
        cut=prepared.cut,
        notes=tuple(records.note for records in given if records.note),
    )


def _forecast(
    shape: ModelShape,
    config: TrainingConfig,
    row_sizes: tuple[tuple[int, int], ...],
    *,
    schedule: Schedule,
    gpu: GPU | None,
    machines: Machines,
    processes: int,
) -> TrainingPlan:
    """Return the plan of a run whose options are all chosen, without the problems of its records."""
    seconds = run_seconds(
        shape,
        config,
        row_sizes,
        rows_per_step=schedule.rows_per_step,
        steps=schedule.steps,
        gpu=gpu,
        processes=processes,
        machines=machines.instances,
    )
    memory = forecast_memory(
        shape, config, row_sizes, processes=processes, machines=machines.instances, cuda=gpu is not None
    )
    price = machines.price
    return TrainingPlan(
        row_sizes=row_sizes,
        steps=schedule.steps,
        rows_per_step=schedule.rows_per_step,
        epochs=schedule.steps / schedule.steps_per_epoch,
        adapter_parameters=shape.adapter_parameters(config.target_modules, config.lora_r),
        memory=memory,
        seconds=seconds,
        gpu=gpu,
        processes=processes,
        instance_type=machines.instance_type,
        instances=machines.instances,
        cost_usd=None if price is None else price * machines.instances * seconds / 3600,
        shape=shape,
        config=config,
    )


def _nothing_to_learn(prepared: PreparedRecords, config: TrainingConfig) -> str:
    empty, long = len(prepared.unlearnable), len(prepared.over_length)
    reasons = [f"{empty} {'has' if empty == 1 else 'have'} no answer tokens"] if empty else []
    if long:
        reasons.append(
            f"{long} {'is' if long == 1 else 'are'} longer than max_length={config.max_length} (the longest has "
            f"{max(tokens for _, tokens in prepared.over_length):,} tokens). Increase max_length"
        )
    return f"none of the {len(prepared.examples)} records can be learned from: {', and '.join(reasons)}."


def with_stop_check(
    plan: TrainingPlan, outline: BaseOutline, config: TrainingConfig, *, formatter: PromptFormatter
) -> TrainingPlan:
    """Add the result of `check_stop` to a plan. If the weights are not on this machine, add only the named rows."""
    if outline.directory is None:
        note = (
            "the weights of the base model are not on this machine, so training will check whether the model can learn "
            "to end its answers."
        )
        # A `TokenEstimator` has no named tokens.
        named = named_rows(config, outline.tokenizer) if not plan.estimated else ()
        stop = StopCheck("", note, named)
    else:
        stop = check_stop(outline.directory, formatter, outline.tokenizer, config)
    # A plan that was made before the weights were downloaded already counts the named rows.
    more = len(stop.trained_rows) - len(plan.trained_rows)
    rows = more * plan.shape.hidden * (1 if plan.shape.tied else 2)
    return dataclasses.replace(
        plan,
        stop_problem=stop.problem,
        trained_rows=stop.trained_rows,
        adapter_parameters=plan.adapter_parameters + rows,
        notes=(*plan.notes, *filter(None, [stop.note])),
    )


def schedule_of(rows: Sequence[RowSize], config: TrainingConfig, hidden_size: int, *, processes: int = 1) -> Schedule:
    """Return the schedule of a run over these rows. A step has `records_per_step` records on average.

    With TRL, `sft_config` may have the rows of each process in a step instead.
    """
    records = sum(row.records for row in rows)
    per_step = round(config.records_per_step * len(rows) / records)
    batch, accumulated = (config.sft_config.get(name) for name in ROWS_PER_STEP)
    if accumulated is not None:
        per_step = int(str(batch or 1)) * int(str(accumulated)) * processes
    return Schedule(
        rows=len(rows),
        rows_per_step=min(len(rows), max(1, per_step)),
        epochs=config.num_train_epochs,
        warmup_ratio=config.warmup_ratio,
        peak_rate=learning_rate_for(hidden_size) if config.learning_rate == "auto" else config.learning_rate,
        seed=config.seed,
    )
