"""From records and a base model to a LoRA adapter."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MANIFEST, AdapterCheckpoint, Record, base_digest, write_json, write_manifest
from sqlquarry.errors import MetadataError, RecordError, TrainingError
from sqlquarry.extras import require
from sqlquarry.inference import pick_device
from sqlquarry.locations import is_s3, local_path, located
from sqlquarry.locks import LOCK_FILE, only_writer
from sqlquarry.metadata import read_object
from sqlquarry.openmp import warn_of_spinning
from sqlquarry.options import check_options
from sqlquarry.progress import phase
from sqlquarry.prompt import Encoded, PromptFormatter
from sqlquarry.quantization import check_config, load_tokenizer, quiet_transformers
from sqlquarry.text import visible_logger
from sqlquarry.training.base_model import resolve_base_model
from sqlquarry.training.card import write_card
from sqlquarry.training.checkpoint import Checkpoints
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.device_failures import device_failures
from sqlquarry.training.given import as_records
from sqlquarry.training.guards import check_run
from sqlquarry.training.hardware import gpu_named
from sqlquarry.training.identity import base_name, differences
from sqlquarry.training.launch import launch
from sqlquarry.training.loop import Log, Loop
from sqlquarry.training.model import load_trainable
from sqlquarry.training.packing import Row, pack
from sqlquarry.training.plan import TrainingPlan, plan_training, schedule_of
from sqlquarry.training.plot import write_loss_plot
from sqlquarry.training.progress import StepLog
from sqlquarry.training.reach import beyond_base
from sqlquarry.training.reporting import Reporter, check_report_to
from sqlquarry.training.shape import ModelShape
from sqlquarry.training.speed import PaceMeter, peak_gpu_bytes
from sqlquarry.training.world import World

logger = visible_logger(__name__)
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
_MARKER = ".training"  # in a directory that a run has begun to fill; holds what the run is of


@check_options()
class QLoRAFSDPTrainer:
    """Fine-tune a base model with QLoRA on one CPU, one GPU, or several, which share the base (FSDP2) where they must.

    Under ``torchrun`` every process calls `train`; from a notebook or a script, ``train(..., processes=4)`` starts
    them. A run that was killed goes on from its newest checkpoint when the same call is made again, also on another
    number of processes.

    Args:
        base_model: a directory, a ``.gguf`` file, an ``s3://`` prefix or a Hugging Face id.
        formatter: the prompt; None uses the published wording.
        config: see `TrainingConfig`.
        session: the boto3 session for S3; None takes the default credentials. The processes that
            ``train(processes=n)`` starts get its credentials in their environment, and cannot renew temporary ones.

    Source: Hu et al. 2021, arXiv:2106.09685 (LoRA); Dettmers et al. 2023, arXiv:2305.14314 (QLoRA); Zhao et al. 2023,
    arXiv:2304.11277 (FSDP).
    """

    def __init__(
        self,
        base_model: str | Path,
        formatter: PromptFormatter | None = None,
        config: TrainingConfig | None = None,
        *,
        session: Any = None,
    ) -> None:
        self.base_model: str | Path = str(located(base_model)) if is_s3(base_model) else base_model
        self.session = session
        self.formatter = formatter or PromptFormatter()
        self.config = config or TrainingConfig()

    def train(
        self,
        train: Iterable[Record],
        evaluation: Iterable[Record] | None = None,
        *,
        output_dir: str | Path,
        checkpoint_dir: str | Path | None = None,
        processes: int | None = None,
    ) -> AdapterCheckpoint:
        """Train an adapter and save it with its prompt and manifest.

        A directory that already holds the finished adapter of the same base, records, prompt and configuration is
        returned as it is.

        Args:
            train: records with SQL; a generator is read into memory.
            evaluation: records whose loss is reported after each epoch; they are not learnt.
            output_dir: receives ``adapter_model.safetensors``, ``adapter_config.json``, ``prompt.json``,
                ``training_log.jsonl``, ``loss.svg``, a model card and, last, ``manifest.json``. It is on this machine.
            checkpoint_dir: a directory of its own or an ``s3://`` prefix for checkpoints; None puts them below
                `output_dir`. They are removed once the adapter is finished.
            processes: start so many processes on this machine, one for each GPU, and wait for them; None trains in this
                process (or, under ``torchrun``, in these processes).

        Raises:
            MissingExtraError: the extra "train" is not installed.
            RecordError: something else than records, records without SQL, or records longer than a row.
            ConfigError: base model and prompt do not fit (see `PromptFormatter.bind`), or the run cannot work: all
                reasons are named before anything is loaded (see `check_run`).
            ModelError: the base model or the device cannot be used.
            TrainingError: `output_dir` holds something else, the loss is no longer a number, a checkpoint cannot be
                written, or one of several processes died.
            TrainingInterruptedError: a signal stopped it; the same call goes on.
            OutputInUseError: another process trains into `output_dir`.
        """
        require("train", "QLoRAFSDPTrainer")
        train = as_records(train, "train")
        evaluation = as_records(() if evaluation is None else evaluation, "evaluation")
        output = local_path(output_dir, "output_dir")
        with contextlib.ExitStack() as held:
            return self._train(
                train, evaluation, output=output, checkpoint_dir=checkpoint_dir, processes=processes, held=held
            )

    def _train(
        self,
        train: Sequence[Record],
        evaluation: Sequence[Record],
        *,
        output: Path,
        checkpoint_dir: str | Path | None,
        processes: int | None,
        held: contextlib.ExitStack,
    ) -> AdapterCheckpoint:
        """Do what `train` describes; `held` keeps the output's lock until all is done."""
        device = pick_device(self.config.device)
        if device == "cpu":
            warn_of_spinning()
        base = resolve_base_model(self.base_model, session=self.session)
        check_config(base)
        tokenizer = load_tokenizer(base)
        formatter = self.formatter.bind(tokenizer)
        limit = self.config.max_sequence_tokens
        examples = _encode(train, formatter, tokenizer, limit)
        held_out = _encode(evaluation, formatter, tokenizer, limit) if evaluation else []
        if problems := "; ".join(beyond_base(evaluation, held_out, ModelShape.read(base), tokenizer)):
            raise RecordError(f"the evaluation cannot be used: {problems}.")
        evaluation_rows = self._rows(evaluation, held_out)
        if processes is not None:
            self._checked_plan(train, examples, base, formatter, tokenizer, processes=processes)
            launch(self, train, evaluation, output_dir=output, checkpoint_dir=checkpoint_dir, processes=processes)
            return AdapterCheckpoint.load(output)

        world = World.join(device)
        identity = {
            "base_model": {
                "name": base_name(self.base_model),
                "path": str(base),
                "sha256": world.lead(lambda: _base_digest(base)),
            },
            "prompt_fingerprint": formatter.fingerprint,
            "data_sha256": hashlib.sha256(json.dumps(examples).encode()).hexdigest(),
            "config": self.config.identity,
        }
        if not world.lead(lambda: _claimed(output, identity, held)):
            plan = world.lead(
                lambda: self._checked_plan(
                    train,
                    examples,
                    base,
                    formatter,
                    tokenizer,
                    processes=world.size,
                    instances=world.machines,
                )
            )
            checkpoints = Checkpoints(
                checkpoint_dir or output / ".checkpoints", kept=self.config.kept_checkpoints, session=self.session
            )
            with device_failures():
                provenance = self._trained(
                    base,
                    world,
                    plan,
                    rows=self._rows(train, examples),
                    evaluation_rows=evaluation_rows,
                    output=output,
                    checkpoints=checkpoints,
                )
            provenance["run"]["records"] = len(train)

            def finish() -> None:
                formatter.save(output)
                write_loss_plot(output / "training_log.jsonl", output / "loss.svg")
                write_card(output, identity | provenance, base=base)
                write_manifest(output, AdapterCheckpoint.kind, identity | provenance)
                # Only now: whatever a kill leaves before the manifest can be gone on with.
                checkpoints.clear()
                (output / _MARKER).unlink()

            world.lead(finish)
        # On several machines only the leading process's disk holds the files.
        manifest = world.lead(lambda: AdapterCheckpoint.load(output).manifest)
        world.leave()
        return AdapterCheckpoint(output, manifest)

    def plan(
        self,
        records: Iterable[Record],
        *,
        instance_type: str | None = None,
        gpu: str | None = None,
        processes: int | None = None,
        instances: int = 1,
        price_per_hour: float | None = None,
    ) -> TrainingPlan:
        """Forecast tokens, steps, memory, time and price of `train` without loading a weight; see `plan_training`.

        Raises:
            RecordError: there are no records, or some have no SQL.
            ConfigError: an unknown GPU or instance type.
            ModelError: the base model cannot be used.
        """
        require("train", "QLoRAFSDPTrainer.plan")
        records = as_records(records, "records")
        base = resolve_base_model(self.base_model, session=self.session)
        check_config(base)
        tokenizer = load_tokenizer(base)
        return plan_training(
            base,
            self.formatter.bind(tokenizer),
            tokenizer,
            self.config,
            records,
            instance_type=instance_type,
            gpu=gpu,
            processes=processes,
            instances=instances,
            price_per_hour=price_per_hour,
        )

    def _checked_plan(
        self,
        records: Sequence[Record],
        examples: list[Encoded],
        base: Path,
        formatter: PromptFormatter,
        tokenizer: Any,
        *,
        processes: int,
        instances: int = 1,
    ) -> TrainingPlan:
        """The forecast of a run on this machine, after `check_run` found nothing against it."""
        import torch

        check_report_to(self.config.report_to)
        plan = plan_training(
            base,
            formatter,
            tokenizer,
            self.config,
            records,
            examples=examples,
            processes=processes,
            instances=instances,
        )
        here = torch.cuda.device_count() if pick_device(self.config.device) == "cuda" else None
        # Under torchrun this machine may be one of several.
        gpus_here = here if "LOCAL_WORLD_SIZE" not in os.environ else None
        for note in check_run(plan, self.config, tokenizer=tokenizer, gpus_here=gpus_here):
            logger.info(note)
        return plan

    def _trained(
        self,
        base: Path,
        world: World,
        plan: TrainingPlan,
        *,
        rows: list[Row],
        evaluation_rows: list[Row],
        output: Path,
        checkpoints: Checkpoints,
    ) -> dict[str, Any]:
        """Train and, on the leading process, save the adapter's two files; what the manifest says of the run."""
        how = f", {plan.config.quantization}" if plan.config.quantization else ""
        with quiet_transformers(), phase(f"loading the base model{how}"):
            model, recipe = load_trainable(base, plan.config, world, trained_rows=plan.trained_rows)
        schedule = schedule_of(rows, self.config, model.config.hidden_size)
        with contextlib.ExitStack() as stack:
            logs: list[Log] = []
            if world.leads:
                known = gpu_named(plan.gpu.name) if plan.gpu else None  # of another no peak rate is known
                pace = PaceMeter(plan.needed_flops_per_token, known, world.size)
                note = "compiling" if plan.config.compiles(cuda=world.device.type == "cuda") else ""
                log = StepLog(output / "training_log.jsonl", schedule.steps, pace, note=note)
                logs.append(stack.enter_context(log))
                logs.append(
                    stack.enter_context(Reporter(self.config.report_to, output, self.config.identity, schedule.steps))
                )
            outcome = Loop(
                model,
                rows,
                schedule,
                plan.config,
                world,
                checkpoints=checkpoints,
                logs=logs,
                evaluation=evaluation_rows,
            ).run()
        if world.leads:
            with quiet_transformers():
                model.save_pretrained(output)
        return {
            "quantization": dataclasses.asdict(recipe) if recipe else None,
            "run": {
                "rows": len(rows),
                "tokens_per_epoch": plan.tokens_per_epoch,
                "tokens_unshared": plan.tokens_unshared,
                "steps": outcome.steps,
                "learning_rate": schedule.peak_rate,
                "training_loss": outcome.loss,
                "seconds": outcome.seconds,
                "tokens_per_second": plan.tokens_per_epoch * self.config.epochs / outcome.seconds,
                "device": world.device.type,
                "processes": world.size,
                "sharers": plan.config.sharers(world.size, world.machines),
                "trained_rows": list(plan.trained_rows),
                "peak_memory_bytes": peak_gpu_bytes(),
            },
            "versions": {name: version(name) for name in _PACKAGES},
        }

    def _rows(self, records: Sequence[Record], examples: list[Encoded]) -> list[Row]:
        return pack(
            examples,
            [record.schema for record in records],
            max_tokens=self.config.max_sequence_tokens,
            share_prefixes=self.config.share_prefixes,
            seed=self.config.seed,
        )


def _encode(records: Sequence[Record], formatter: PromptFormatter, tokenizer: Any, max_tokens: int) -> list[Encoded]:
    """Encode records, refusing those that cannot be learnt from.

    Raises:
        RecordError: there are no records, some have no SQL, or some are longer than a row.
    """
    if not records:
        raise RecordError("there are no records to train on")
    without = [_name(records, index) for index, record in enumerate(records) if record.sql is None]
    if without:
        raise RecordError(f"{len(without)} records have no sql to learn: {', '.join(without[:5])} …")
    with phase(f"encoding {len(records):,} records"):
        examples = formatter.encode_all(records, tokenizer)
    long = [index for index, example in enumerate(examples) if len(example.input_ids) > max_tokens]
    if long:
        worst = max(long, key=lambda index: len(examples[index].input_ids))
        raise RecordError(
            f"{len(long)} of {len(records)} records are longer than max_sequence_tokens={max_tokens}; the longest is "
            f"{_name(records, worst)} with {len(examples[worst].input_ids)} tokens. Nothing is cut silently: raise "
            "max_sequence_tokens, shorten the schemas, or leave those records out."
        )
    return examples


def _base_digest(base: Path) -> str:
    with phase("hashing the base model"):
        return base_digest(base)


def _name(records: Sequence[Record], index: int) -> str:
    return records[index].id or f"record {index}"


def _claimed(output: Path, identity: dict[str, Any], held: contextlib.ExitStack) -> bool:
    """As `_finished`; if there is work to do, this process is the only writer while `held` is open."""
    if not (output / MANIFEST).is_file():
        try:
            held.enter_context(only_writer(output))
        except OSError as error:
            raise TrainingError(f"{output} cannot be written ({error}). Choose another output_dir.") from error
    return _finished(output, identity)


def _finished(output: Path, identity: dict[str, Any]) -> bool:
    """Whether the finished adapter of the same inputs is there; else the directory is made ready to train or go on in.

    Raises:
        TrainingError: the directory holds another run, or files that no training run wrote.
    """
    if (output / MANIFEST).is_file():
        adapter = AdapterCheckpoint.load(output)
        if differing := differences(adapter.manifest.provenance, identity):
            raise TrainingError(
                f"{output} already holds a finished adapter that differs in {differing}. "
                "Choose another output_dir, or delete it."
            )
        return True
    marker = output / _MARKER
    if marker.is_file():
        try:
            there = read_object(marker, lenient=True) if marker.stat().st_size else {}
        except (OSError, MetadataError) as error:
            raise TrainingError(f"{marker} cannot be read ({error}). Choose another output_dir.") from error
        if differing := differences(there, identity):
            raise TrainingError(
                f"{output} holds an unfinished run that differs in {differing}, so it cannot be resumed. "
                "Choose another output_dir, or delete it."
            )
        return False
    if output.is_dir() and any(path.name != LOCK_FILE for path in output.iterdir()):
        raise TrainingError(f"{output} holds files that no training run wrote. Choose an empty output_dir.")
    write_json(marker, identity)
    return False
