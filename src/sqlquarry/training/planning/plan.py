"""The forecast of a run (tokens, steps, memory, time and cost) and its comparison with the actual figures."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from sqlquarry.progress.notebook import html_table
from sqlquarry.provenance import TrainingRun
from sqlquarry.text import visible
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.planning.hardware import GPU, PRICE_NOTE
from sqlquarry.training.planning.memory import MemoryForecast
from sqlquarry.training.planning.speed import flops_per_token

_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """The forecast of one training run.

    Args:
        row_sizes: tokens and answer tokens of each packed row of an epoch.
        steps: optimizer steps of the run.
        rows_per_step: packed rows in one step.
        epochs: passes over the rows in those steps.
        adapter_parameters: number of trained parameters.
        memory: memory of one process at its peak.
        seconds: seconds of training, without loading the base.
        gpu: the GPU of each process, or None for a CPU.
        processes: number of processes that share the rows.
        instance_type: the SageMaker instance type, if one was given.
        instances: number of instances of that type.
        cost_usd: US dollars for `seconds` on these instances, or None if no price is known.
        shape: the base model's sizes.
        config: the run's configuration. On a GPU, all options that depend on its memory are chosen.
        records: number of records.
        tokens_unshared: tokens of the packed records, with shared beginnings counted once per record.
        over_length: (name, tokens) of records longer than a row, longest first. `train` refuses them.
        unlearnable: names of records without any answer token. `train` refuses them.
        stop_problem: why the model could not learn to end its answers, or "" if it can.
        trained_rows: tokens whose rows of embeddings and head are trained (`TrainingConfig.trainable_tokens`).
        base_problems: reasons why the base cannot learn from the records (see `limits`). `train` refuses them.
        cut: number of records that TRL's packing cuts.
        estimated: why tokens are estimated from the length of the text, or "" if the base's tokenizer counted them.
        notes: other remarks, such as a cheaper instance type (see `guards` and `advice`).
        problems: why `train` refuses this run. Empty unless the forecast was made with ``check=False``.
    """

    row_sizes: tuple[tuple[int, int], ...] = field(repr=False)
    steps: int
    rows_per_step: int
    epochs: float
    adapter_parameters: int
    memory: MemoryForecast
    seconds: float
    gpu: GPU | None
    processes: int
    instance_type: str | None
    instances: int
    cost_usd: float | None
    shape: ModelShape = field(repr=False)
    config: TrainingConfig = field(repr=False)
    records: int = 0
    tokens_unshared: int = 0
    over_length: tuple[tuple[str, int], ...] = ()
    unlearnable: tuple[str, ...] = ()
    stop_problem: str = ""
    trained_rows: tuple[int, ...] = ()
    base_problems: tuple[str, ...] = ()
    cut: int = 0
    estimated: str = ""
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of packed rows in an epoch."""
        return len(self.row_sizes)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens computed in an epoch, with shared beginnings counted once."""
        return sum(tokens for tokens, _ in self.row_sizes)

    @property
    def answer_tokens(self) -> int:
        """Tokens that are learned in an epoch."""
        return sum(answers for _, answers in self.row_sizes)

    @property
    def needed_flops_per_token(self) -> float:
        """Floating-point operations per token without recomputation, for MFU."""
        return flops_per_token(
            self.shape,
            dataclasses.replace(self.config, gradient_checkpointing=False),
            round(self.tokens_per_epoch / self.rows),
            self.answer_tokens / self.tokens_per_epoch,
            cuda=self.gpu is not None,
        )

    @property
    def fits(self) -> bool:
        """Whether the memory of one process fits its GPU. A CPU is assumed to have enough memory."""
        return self.gpu is None or self.memory.needed <= self.gpu.memory_bytes

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all processes together."""
        return self.tokens_per_epoch * self.epochs / self.seconds if self.seconds else 0.0

    @property
    def idle_share(self) -> float:
        """Share of the processes' time that is spent waiting for processes that still have a row of the step."""
        rounds = math.ceil(self.rows_per_step / self.processes)
        return 1 - self.rows_per_step / (rounds * self.processes)

    def summary(self) -> str:
        """Return the forecast as lines of text, each with the source of its figure."""
        shown = (f"{label:<9} {value:>22}  {note}".rstrip() for label, value, note in self._lines())
        return "\n".join(visible(line, one_line=True) for line in shown)

    def _repr_html_(self) -> str:
        return html_table(self._lines(), caption="training plan", numbers=[1])

    def _lines(self) -> list[tuple[str, str, str]]:
        gpu = self.gpu.name if self.gpu else "CPU"
        room = f" of {_gib(self.gpu.memory_bytes)}" if self.gpu else ""
        idle = f", {self.idle_share:.0%} of {self.processes} processes' time is idle" if self.idle_share else ""
        processes = f"for the process on {gpu}"
        if self.processes > 1:
            group_size = self.config.shard_group_size(self.processes, self.instances)
            base = f"{group_size} share a base model" if group_size > 1 else "each has its own base model"
            processes = f"for each of {self.processes} processes on {gpu}, {base}"
        lines = [
            ("records", f"{self.records:,}", ""),
            ("rows", f"{self.rows:,}", f"{self.tokens_per_epoch:,} tokens, {self.answer_tokens:,} of them learned"),
            ("steps", f"{self.steps:,}", f"{self.rows_per_step} rows each{idle}"),
            ("trained", f"{self.adapter_parameters:,}", "parameters: rank · (inputs + outputs), arXiv:2106.09685"),
            ("memory", f"{_gib(self.memory.needed)}{room}", f"{processes} (training/planning/memory.py)"),
            ("time", _duration(self.seconds), f"{self.tokens_per_second:,.0f} tokens/s (training/planning/speed.py)"),
        ]
        if self.cost_usd is not None:
            lines.append(
                ("price", f"${self.cost_usd:,.2f}", f"{self.instances} × {self.instance_type or gpu}, training only")
            )
            lines.append(("", "", PRICE_NOTE if self.instance_type else "from usd_per_hour"))
        if self.over_length:
            name, tokens = self.over_length[0]
            lines.append(
                ("too long", f"{len(self.over_length):,}", f"not in this forecast, longest: {name} ({tokens:,} tokens)")
            )
        if self.estimated:
            lines.append(("estimate", "", self.remarks[0]))
        lines += [("note", "", note) for note in self.notes]
        lines += [("problem", "", problem) for problem in self.problems]
        return lines

    @property
    def remarks(self) -> tuple[str, ...]:
        """All notes, beginning with a warning if the tokens are an estimate."""
        estimate = f"tokens are estimated, probably too high: {self.estimated}" if self.estimated else ""
        return (*filter(None, [estimate]), *self.notes)

    def compare(self, run: TrainingRun) -> str:
        """Return a table of forecast and actual figures, for all figures that the run has.

        Args:
            run: `AdapterCheckpoint.run`. Its `peak_memory_bytes` is the memory that torch allocated.
        """
        figures = [
            ("rows", self.rows, run.rows, ",.0f"),
            ("steps", self.steps, run.steps, ",.0f"),
            ("tokens per epoch", self.tokens_per_epoch, run.tokens_per_epoch, ",.0f"),
            ("seconds", self.seconds, run.duration_s, ",.1f"),
            ("tokens per second", self.tokens_per_second, run.tokens_per_second, ",.0f"),
            ("peak memory, GiB", self.memory.allocated / _GIB, _in_gib(run.peak_memory_bytes), ",.2f"),
        ]
        lines = [f"{'':<18} {'forecast':>14} {'actual':>14} {'off by':>8}"]
        for label, planned, actual, form in figures:
            if actual is not None:
                off = f"{planned / actual - 1:+.0%}" if actual else ""
                lines.append(f"{label:<18} {planned:>14{form}} {actual:>14{form}} {off:>8}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def _gib(count: float) -> str:
    return f"{count / _GIB:.2f} GiB"


def _in_gib(count: float | None) -> float | None:
    return None if count is None else count / _GIB


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
