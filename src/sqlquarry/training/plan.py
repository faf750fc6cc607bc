"""What a run will take, before any weight is loaded: tokens, steps, memory, time, money; afterwards, what it took."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import Record
from sqlquarry.control_tokens import note_in_prompts
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.notebook import html_table
from sqlquarry.prompt import IGNORED_LABEL, Encoded, PromptFormatter
from sqlquarry.text import visible
from sqlquarry.training.config import TrainingConfig, learning_rate_for
from sqlquarry.training.fit import fitted
from sqlquarry.training.hardware import A10G, GPU, GPUS, PRICE_NOTE, gpu_named, instance_named
from sqlquarry.training.memory import MemoryForecast, forecast_memory
from sqlquarry.training.packing import Row, pack
from sqlquarry.training.reach import beyond_base
from sqlquarry.training.schedule import Schedule
from sqlquarry.training.shape import ModelShape
from sqlquarry.training.speed import flops_per_token, row_seconds, summing_seconds
from sqlquarry.training.stop_row import check_stop

_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """The forecast of one training run.

    Args:
        records: records given.
        over_length: (name, tokens) of records longer than a row, longest first; `train` refuses them.
        unlearnable: names of records without any answer token.
        beyond_base: what of the records the base cannot take (see `beyond_base`); `train` refuses it.
        rows: packed rows of an epoch.
        row_sizes: tokens and answer tokens of each.
        steps: optimiser steps of the run.
        rows_per_step: rows that each sees.
        epochs: passes over the rows that those steps make.
        tokens_per_epoch: tokens computed, shared beginnings once.
        tokens_unshared: the same without sharing.
        answer_tokens: tokens learnt from in an epoch.
        adapter_parameters: parameters that are trained.
        memory: bytes of one process at its peak.
        seconds: of training, without loading the base.
        gpu: what was computed with; None is this machine's CPU.
        processes: processes that share the rows.
        instance_type: the SageMaker instance, if one was given.
        instances: how many of them.
        price: dollars for `seconds` on those; None where no price is known.
        shape: the base model's sizes.
        config: as it would train on that device; on a GPU with all chosen that depends on its memory.
        needed_flops_per_token: arithmetic of one token without recomputation, for MFU.
        stop_problem: why answers could not learn to end; "" if they can.
        trained_rows: tokens whose rows of embeddings and head are trained (`TrainingConfig.trainable_tokens`).
        notes: what is worth knowing of records and base.
    """

    records: int
    over_length: tuple[tuple[str, int], ...]
    unlearnable: tuple[str, ...]
    rows: int
    row_sizes: tuple[tuple[int, int], ...] = field(repr=False)
    steps: int
    rows_per_step: int
    epochs: float
    tokens_per_epoch: int
    tokens_unshared: int
    answer_tokens: int
    adapter_parameters: int
    memory: MemoryForecast
    seconds: float
    gpu: GPU | None
    processes: int
    instance_type: str | None
    instances: int
    price: float | None
    shape: ModelShape = field(repr=False)
    config: TrainingConfig = field(repr=False)
    needed_flops_per_token: float
    stop_problem: str = ""
    trained_rows: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    beyond_base: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether one process's memory fits its GPU; a CPU is always taken to fit."""
        return self.gpu is None or self.memory.needed <= self.gpu.memory_bytes

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the run by its seconds, all processes together."""
        return self._tokens / self.seconds if self.seconds else 0.0

    @property
    def _tokens(self) -> float:
        return self.tokens_per_epoch * self.epochs

    @property
    def idle_share(self) -> float:
        """Share of the processes' time in which some have no row of the step left while others have."""
        rounds = math.ceil(self.rows_per_step / self.processes)
        return 1 - self.rows_per_step / (rounds * self.processes)

    def summary(self) -> str:
        """The forecast as lines of text, each with where it comes from."""
        shown = (f"{label:<9} {value:>22}  {note}".rstrip() for label, value, note in self._lines())
        return "\n".join(visible(line, one_line=True) for line in shown)

    def _repr_html_(self) -> str:
        return html_table(self._lines(), caption="training plan", numbers=[1])

    def _lines(self) -> list[tuple[str, str, str]]:
        place = self.gpu.name if self.gpu else "CPU"
        room = f" of {_gib(self.gpu.memory_bytes)}" if self.gpu else ""
        idle = f": {self.idle_share:.0%} of {self.processes} processes' time is idle" if self.idle_share else ""
        where = f"{self.processes} on {place}"
        if self.processes > 1:
            sharers = self.config.sharers(self.processes, self.instances)
            where += f", a base for every {sharers}" if sharers > 1 else ", each with the whole base"
        lines = [
            ("records", f"{self.records:,}", ""),
            ("rows", f"{self.rows:,}", f"{self.tokens_per_epoch:,} tokens, {self.answer_tokens:,} of them learnt"),
            ("steps", f"{self.steps:,}", f"{self.rows_per_step} rows each{idle}"),
            ("trained", f"{self.adapter_parameters:,}", "parameters: rank · (inputs + outputs), arXiv:2106.09685"),
            ("memory", f"{_gib(self.memory.needed)}{room}", f"each of {where}: training/memory.py"),
            ("time", _duration(self.seconds), f"{self.tokens_per_second:,.0f} tokens/s: training/speed.py"),
        ]
        if self.price is not None:
            lines.append(
                ("price", f"${self.price:,.2f}", f"{self.instances} × {self.instance_type or place}, training only")
            )
            lines.append(("", "", PRICE_NOTE if self.instance_type else "by the price given"))
        if self.over_length:
            name, tokens = self.over_length[0]
            lines.append(
                ("too long", f"{len(self.over_length):,}", f"left out here; the longest is {name}: {tokens:,} tokens")
            )
        lines.extend(("note", "", note) for note in self.notes)
        if self.stop_problem:
            lines.append(("refused", "", self.stop_problem))
        return lines

    def compare(self, run: Mapping[str, Any]) -> str:
        """Forecast beside actual, for the figures that a run has.

        Args:
            run: `AdapterCheckpoint.manifest.provenance["run"]`; its `peak_memory_bytes` is torch's allocation.
        """
        figures: list[tuple[str, float, Any, str]] = [
            ("rows", self.rows, run.get("rows"), ",.0f"),
            ("steps", self.steps, run.get("steps"), ",.0f"),
            ("tokens per epoch", self.tokens_per_epoch, run.get("tokens_per_epoch"), ",.0f"),
            ("seconds", self.seconds, run.get("seconds"), ",.1f"),
            ("tokens per second", self.tokens_per_second, run.get("tokens_per_second"), ",.0f"),
            ("peak memory, GiB", self.memory.allocated / _GIB, _in_gib(run.get("peak_memory_bytes")), ",.2f"),
        ]
        lines = [f"{'':<18} {'forecast':>14} {'actual':>14} {'off by':>8}"]
        for label, planned, actual, form in figures:
            if actual is not None:
                off = f"{planned / actual - 1:+.0%}" if actual else ""
                lines.append(f"{label:<18} {planned:>14{form}} {actual:>14{form}} {off:>8}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def plan_training(
    base: Path,
    formatter: PromptFormatter,
    tokenizer: Any,
    config: TrainingConfig,
    records: Sequence[Record],
    *,
    examples: Sequence[Encoded] | None = None,
    instance_type: str | None = None,
    gpu: str | None = None,
    processes: int | None = None,
    instances: int = 1,
    price_per_hour: float | None = None,
) -> TrainingPlan:
    """Forecast a run from its records and the base model's headers.

    Args:
        base: the base model's directory.
        formatter: the prompt.
        tokenizer: the base's tokenizer.
        config: as it would train.
        records: with SQL.
        examples: the records as encoded already, in their order; None encodes them.
        instance_type: a SageMaker instance ("ml.g5.12xlarge"); names GPU, processes and price.
        gpu: a GPU by name ("H100") where there is no instance type; else this machine's, or its CPU.
        processes: default: one for each GPU of the instances, else 1.
        instances: machines of that type.
        price_per_hour: dollars for one instance, instead of the table's.

    Raises:
        ConfigError: an unknown instance type or GPU, or processes that cannot be spread evenly over the instances.
        RecordError: there are no records, some have no SQL or one that cannot be learnt, or all are longer than a row.
        UnsupportedModelError: the base's sizes cannot be read.
    """
    device, count = _device(config, instance_type, gpu, instances, processes)
    if instances < 1 or count % instances:
        raise ConfigError(f"{count} processes on {instances} instances: each instance runs as many as another")
    if price_per_hour is None and instance_type is not None:
        price_per_hour = instance_named(instance_type).price_per_hour
    shape = ModelShape.read(base)
    stop = check_stop(base, formatter, tokenizer, config)
    without = sum(record.sql is None for record in records)
    if not records or without:
        raise RecordError(f"{without} of {len(records)} records have no sql to learn" if records else "no records")
    if examples is None:
        examples = formatter.encode_all(records, tokenizer)
    sizes = [(len(e.input_ids), sum(label != IGNORED_LABEL for label in e.labels)) for e in examples]
    names = [record.id or f"record {index}" for index, record in enumerate(records)]
    over = [
        (name, tokens) for name, (tokens, _) in zip(names, sizes, strict=True) if tokens > config.max_sequence_tokens
    ]
    fine = [index for index, (tokens, answers) in enumerate(sizes) if tokens <= config.max_sequence_tokens and answers]
    if not fine:
        raise RecordError(
            f"none of {len(records)} records can be learnt from: {len(over)} are longer than "
            f"max_sequence_tokens={config.max_sequence_tokens}, the others have no answer tokens"
        )
    rows = pack(
        [examples[index] for index in fine],
        [records[index].schema for index in fine],
        max_tokens=config.max_sequence_tokens,
        share_prefixes=config.share_prefixes,
        seed=config.seed,
    )
    row_sizes = tuple((len(row.input_ids), row.answers) for row in rows)
    schedule = schedule_of(rows, config, shape.hidden)
    tokens, answers = (sum(column) for column in zip(*row_sizes, strict=True))
    if shape.expert_parameters:
        config = dataclasses.replace(
            config, compiled=False
        )  # tokens choose their weights: shapes differ from row to row
    if device is not None:
        config = fitted(shape, config, row_sizes, device, processes=count, machines=instances)
    seconds = _run_seconds(shape, config, schedule, row_sizes, gpu=device, processes=count, machines=instances)
    return TrainingPlan(
        records=len(records),
        over_length=tuple(sorted(over, key=lambda item: -item[1])),
        unlearnable=tuple(name for name, (_, answers) in zip(names, sizes, strict=True) if not answers),
        rows=len(rows),
        row_sizes=row_sizes,
        steps=schedule.steps,
        rows_per_step=schedule.rows_per_step,
        epochs=schedule.steps / schedule.steps_per_epoch,
        tokens_per_epoch=tokens,
        tokens_unshared=sum(sizes[index][0] for index in fine),
        answer_tokens=answers,
        adapter_parameters=shape.adapter_parameters(config.target_modules, config.rank)
        + len(stop.trained_rows) * shape.hidden * (1 if shape.tied else 2),
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
        stop_problem=stop.problem,
        trained_rows=stop.trained_rows,
        notes=tuple(filter(None, (stop.note, note_in_prompts(records, tokenizer)))),
        beyond_base=tuple(beyond_base(records, examples, shape, tokenizer)),
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
    config: TrainingConfig, instance_type: str | None, gpu: str | None, instances: int, processes: int | None
) -> tuple[GPU | None, int]:
    if instance_type is not None:
        instance = instance_named(instance_type)
        return instance.gpu, processes or instance.gpus * instances
    if gpu is not None:
        found = gpu_named(gpu)
        if found is None:
            raise ConfigError(f"gpu {gpu!r} is not known here. Known: {', '.join(one.name for one in GPUS)}.")
        return found, processes or 1
    return _this_machine(config), processes or 1


def _this_machine(config: TrainingConfig) -> GPU | None:
    """This machine's GPU with the memory that is free on it; one of no known name is taken to be as fast as an A10G."""
    import torch

    if config.device == "cpu" or not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    gc.collect()  # a model of before may lie in cycles
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    known = gpu_named(name) or dataclasses.replace(A10G, name=name, has_bf16=has_bf16)
    return dataclasses.replace(known, memory_bytes=free)


def _run_seconds(
    shape: ModelShape,
    config: TrainingConfig,
    schedule: Schedule,
    row_sizes: Sequence[tuple[int, int]],
    *,
    gpu: GPU | None,
    processes: int,
    machines: int,
) -> float:
    """Each step waits for the process with the most rows; the mean row stands for all."""
    mean = sum(
        row_seconds(shape, config, tokens, answers, gpu=gpu, processes=processes, machines=machines)
        for tokens, answers in row_sizes
    ) / len(row_sizes)
    full, rest = divmod(schedule.rows, schedule.rows_per_step)
    rounds = full * math.ceil(schedule.rows_per_step / processes) + math.ceil(rest / processes)
    summing = summing_seconds(shape, config, gpu=gpu, processes=processes, machines=machines)
    return schedule.steps * (rounds * mean / schedule.steps_per_epoch + summing)


def _gib(count: float) -> str:
    return f"{count / _GIB:.2f} GiB"


def _in_gib(count: float | None) -> float | None:
    return None if count is None else count / _GIB


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
