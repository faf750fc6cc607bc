"""Forecast a training run from its records and the sizes of its base, before any weight is loaded."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import Record
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.pretrained import pick_device
from sqlquarry.prompt import PromptFormatter
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.base.stop_row import StopCheck, check_stop, named_rows
from sqlquarry.training.config import TrainingConfig, learning_rate_for
from sqlquarry.training.encoding.packing import Row
from sqlquarry.training.encoding.prepared import PreparedRecords, prepare_both
from sqlquarry.training.guards import check_run, run_problems
from sqlquarry.training.planning.advice import advice
from sqlquarry.training.planning.fit import fitted
from sqlquarry.training.planning.hardware import A10G, GPU, GPUS, gpu_named, instance_named
from sqlquarry.training.planning.memory import forecast_memory
from sqlquarry.training.planning.outline import read_outline
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.planning.speed import flops_per_token, run_seconds
from sqlquarry.training.steps.schedule import Schedule


def plan_run(
    base_model: str | Path,
    formatter: PromptFormatter,
    config: TrainingConfig,
    records: Sequence[Record],
    evaluation: Sequence[Record] | None = None,
    *,
    s3: Callable[[], Any],
    check: bool = True,
    **machines: Any,
) -> TrainingPlan:
    """Forecast a run of a base model that may be anywhere, and check it; only small files of the base are read.

    Args:
        base_model: as `QLoRAFSDPTrainer` takes it.
        formatter: the prompt.
        config: as it would train.
        records: with SQL.
        evaluation: records whose loss would be reported.
        s3: makes a client of S3, for a base model that is there.
        check: False forecasts what cannot work, too, and lists why in `TrainingPlan.problems`.
        machines: as in `plan_training`.

    Raises:
        RecordError: there are no records, some have no SQL, or (with `check`) some cannot be learnt from.
        ConfigError, DeviceError: with `check`, what `check_run` raises; otherwise an unknown GPU or instance type.
        ModelError: the base model cannot be used or reached.
    """
    outline = read_outline(base_model, s3=s3)
    bound = formatter.bind(outline.tokenizer)
    prepared, held_out = prepare_both(records, evaluation, bound, outline, config)
    plan = plan_training(outline.shape, prepared, config, evaluation=held_out, **machines)
    plan = dataclasses.replace(plan, estimated=outline.estimated)
    plan = with_stop(plan, outline.directory, config, formatter=bound, tokenizer=outline.tokenizer)
    here = None if machines.get("instance_type") or machines.get("gpu") else gpus_here(config)
    if not check and (problems := run_problems(plan, config, gpus_here=here)):
        return dataclasses.replace(plan, problems=problems)
    notes = check_run(plan, config, tokenizer=outline.tokenizer, gpus_here=here)
    return dataclasses.replace(plan, notes=(*notes, *advice(plan, config)))


def plan_training(
    shape: ModelShape,
    prepared: PreparedRecords,
    config: TrainingConfig,
    *,
    evaluation: PreparedRecords | None = None,
    instance_type: str | None = None,
    gpu: str | None = None,
    processes: int | None = None,
    instances: int = 1,
    price_per_hour: float | None = None,
) -> TrainingPlan:
    """Forecast a run; whether it can work is for `check_run` to say.

    Args:
        shape: the base model's sizes.
        prepared: the records.
        config: as it would train.
        evaluation: records whose loss would be reported; only what is wrong with them is read.
        instance_type: a SageMaker instance ("ml.g5.12xlarge"); names GPU, processes and price.
        gpu: a GPU by name ("H100"), or "cpu", where there is no instance type; None takes this machine's GPU, or its
            CPU.
        processes: None starts one for each GPU of the instances, but on each no more than there are rows for; without
            an instance type 1.
        instances: machines of that type.
        price_per_hour: dollars for one instance, instead of the table's.

    Raises:
        ConfigError: an unknown instance type or GPU, or processes that cannot be spread evenly over the instances.
        RecordError: no record can be learnt from.
    """
    device, gpus = _device(config, instance_type, gpu, instances)
    count = processes or gpus
    if instances < 1 or count % instances:
        raise ConfigError(
            f"{count} processes on {instances} instances: each instance must run the same number of processes"
        )
    if price_per_hour is None and instance_type is not None:
        price_per_hour = instance_named(instance_type).price_per_hour
    rows, records = prepared.rows, len(prepared.examples)
    over_length = prepared.over_length + (evaluation.over_length if evaluation else ())
    if not rows:
        reasons = [f"{len(prepared.unlearnable)} have no answer tokens"] if prepared.unlearnable else []
        if prepared.over_length:
            reasons.append(
                f"{len(prepared.over_length)} are longer than max_sequence_tokens={config.max_sequence_tokens}, the "
                f"longest has {max(tokens for _, tokens in prepared.over_length):,} tokens. Raise it"
            )
        raise RecordError(f"none of {records} records can be learnt from: {'; '.join(reasons)}.")
    row_sizes = tuple((len(row.input_ids), row.answers) for row in rows)
    schedule = schedule_of(rows, config, shape.hidden)
    if processes is None:
        count = instances * max(1, min(gpus, schedule.rows_per_step) // instances)
    tokens, answers = (sum(column) for column in zip(*row_sizes, strict=True))
    if shape.expert_parameters:
        config = dataclasses.replace(
            config, compiled=False
        )  # tokens choose their weights: shapes differ from row to row
    if device is not None:
        config = fitted(shape, config, row_sizes, device, processes=count, machines=instances)
    seconds = run_seconds(
        shape,
        config,
        row_sizes,
        rows_per_step=schedule.rows_per_step,
        steps=schedule.steps,
        gpu=device,
        processes=count,
        machines=instances,
    )
    return TrainingPlan(
        records=records,
        over_length=tuple(sorted(over_length, key=lambda item: -item[1])),
        unlearnable=prepared.unlearnable + (evaluation.unlearnable if evaluation else ()),
        rows=len(rows),
        row_sizes=row_sizes,
        steps=schedule.steps,
        rows_per_step=schedule.rows_per_step,
        epochs=schedule.steps / schedule.steps_per_epoch,
        tokens_per_epoch=tokens,
        tokens_unshared=prepared.tokens_unshared,
        answer_tokens=answers,
        adapter_parameters=shape.adapter_parameters(config.target_modules, config.rank),
        memory=forecast_memory(shape, config, row_sizes, processes=count, machines=instances, cuda=device is not None),
        seconds=seconds,
        gpu=device,
        processes=count,
        instance_type=instance_type,
        instances=instances,
        price=None if price_per_hour is None else price_per_hour * instances * seconds / 3600,
        shape=shape,
        config=config,
        needed_flops_per_token=flops_per_token(
            shape,
            dataclasses.replace(config, gradient_checkpointing=False),
            round(tokens / len(rows)),
            answers / tokens,
            cuda=device is not None,
        ),
        beyond_base=prepared.beyond_base + (evaluation.beyond_base if evaluation else ()),
        notes=tuple(filter(None, [prepared.note, evaluation.note if evaluation else ""])),
    )


def with_stop(
    plan: TrainingPlan, base: Path | None, config: TrainingConfig, *, formatter: PromptFormatter, tokenizer: Any
) -> TrainingPlan:
    """Return the plan with what `check_stop` finds in the head; if the weights are elsewhere, with the named rows."""
    if base is None:
        note = "the base's weights are not here, so training will check whether it can end its answers"
        # An estimate has no tokens that could be named.
        named = named_rows(config, tokenizer) if not plan.estimated else ()
        stop = StopCheck("", note, named)
    else:
        stop = check_stop(base, formatter, tokenizer, config)
    more = len(stop.trained_rows) - len(plan.trained_rows)  # a plan made before the weights came has named ones
    rows = more * plan.shape.hidden * (1 if plan.shape.tied else 2)
    return dataclasses.replace(
        plan,
        stop_problem=stop.problem,
        trained_rows=stop.trained_rows,
        adapter_parameters=plan.adapter_parameters + rows,
        notes=(*plan.notes, *filter(None, [stop.note])),
    )


def schedule_of(rows: Sequence[Row], config: TrainingConfig, hidden_size: int) -> Schedule:
    """The steps of a run over these rows: as many rows a step as hold `records_per_step` records on average."""
    records = sum(row.records for row in rows)
    return Schedule(
        rows=len(rows),
        rows_per_step=min(len(rows), max(1, round(config.records_per_step * len(rows) / records))),
        epochs=config.epochs,
        warmup_share=config.warmup_share,
        peak_rate=config.learning_rate or learning_rate_for(hidden_size),
        seed=config.seed,
    )


def _device(
    config: TrainingConfig, instance_type: str | None, gpu: str | None, instances: int
) -> tuple[GPU | None, int]:
    """Return what a process computes with (None is a CPU) and how many GPUs there are."""
    if instance_type is not None:
        instance = instance_named(instance_type)
        return instance.gpu, instance.gpus * instances
    if gpu == "cpu":
        return None, 1
    if gpu is not None:
        found = gpu_named(gpu)
        if found is None:
            raise ConfigError(f"gpu {gpu!r} is not known here. Known: {', '.join(one.name for one in GPUS)}, cpu.")
        return found, 1
    return this_machine(config), 1


def gpus_here(config: TrainingConfig) -> int | None:
    """Return how many GPUs this machine has for training; None if it trains on its CPU."""
    import torch

    return torch.cuda.device_count() if pick_device(config.device) == "cuda" else None


def this_machine(config: TrainingConfig) -> GPU | None:
    """This machine's GPU with the memory that is free on it; one of no known name is taken to be as fast as an A10G.

    Raises:
        DeviceError: the configuration asks for CUDA, and there is none.
    """
    import torch

    if pick_device(config.device) == "cpu":
        return None
    name = torch.cuda.get_device_name()
    gc.collect()  # an earlier model may be held by reference cycles
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    known = gpu_named(name) or dataclasses.replace(A10G, name=name, has_bf16=has_bf16)
    return dataclasses.replace(known, memory_bytes=free)
