"""From records and a base model to a LoRA adapter."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MANIFEST, AdapterCheckpoint, Record, base_digest, write_manifest
from sqlquarry.aws import aws_client
from sqlquarry.extras import require
from sqlquarry.files.locations import is_hub_id, is_s3, local_path, located
from sqlquarry.openmp import warn_of_spinning
from sqlquarry.options import check_options
from sqlquarry.pretrained import pick_device, quiet_transformers
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import PromptFormatter
from sqlquarry.text import visible_logger
from sqlquarry.training.base.base_model import resolve_base_model
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.encoding.given import as_records, check_apart, check_counts
from sqlquarry.training.encoding.packing import Row
from sqlquarry.training.encoding.prepared import PreparedRecords, prepare_both
from sqlquarry.training.guards import check_run
from sqlquarry.training.identity import MARKER, base_name, claimed
from sqlquarry.training.launch import launch
from sqlquarry.training.planning.advice import advice
from sqlquarry.training.planning.forecast import gpus_here, plan_run, plan_training, schedule_of, with_stop
from sqlquarry.training.planning.hardware import gpu_named
from sqlquarry.training.planning.outline import BaseOutline, read_outline
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.planning.speed import PaceMeter, peak_gpu_bytes
from sqlquarry.training.steps.checkpoint import Checkpoints
from sqlquarry.training.steps.device_failures import device_failures
from sqlquarry.training.steps.loop import Log, Loop
from sqlquarry.training.steps.model import load_trainable
from sqlquarry.training.steps.world import World
from sqlquarry.training.tracking.card import write_card
from sqlquarry.training.tracking.plot import write_loss_plot
from sqlquarry.training.tracking.progress import StepLog
from sqlquarry.training.tracking.reporting import Reporter, check_report_to

logger = visible_logger(__name__)
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


@check_options()
class QLoRAFSDPTrainer:
    """Fine-tune a base model with QLoRA on one CPU, one GPU, or several, which share the base (FSDP2) where they must.

    Under ``torchrun`` every process calls `train`; from a notebook or a script, ``train(..., processes=4)`` starts
    them. A run that was killed resumes from its newest checkpoint when the same call is made again, also on another
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
        is_plain = not (is_s3(base_model) or str(base_model).startswith("~"))  # "./a/b" must not become a hub id
        self.base_model: str | Path = base_model if is_plain else str(located(base_model))
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
            processes: start this number of processes on this machine, one for each GPU, and wait for them; None trains
                in this process (or, under ``torchrun``, in these processes).

        Raises:
            MissingExtraError: the extra "train" is not installed.
            RecordError: something else than records, records without SQL, or records longer than a row.
            ConfigError: base model and prompt do not fit (see `PromptFormatter.bind`), `checkpoint_dir` is in
                `output_dir`, or the run cannot work: all reasons are named before the base is downloaded, hashed or
                loaded (see `check_run`).
            ModelError: the base model or the device cannot be used.
            TrainingError: `output_dir` holds something else, the loss is no longer a number, a checkpoint cannot be
                written, or one of several processes died.
            TrainingInterruptedError: a signal stopped it; the same call resumes.
            OutputInUseError: another process trains into `output_dir`.
        """
        require("train", "QLoRAFSDPTrainer")
        train = as_records(train, "train")
        evaluation = as_records(() if evaluation is None else evaluation, "evaluation")
        output = local_path(output_dir, "output_dir")
        check_counts(processes=processes)
        check_apart(checkpoint_dir, output)
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
        outline = read_outline(self.base_model, s3=lambda: aws_client("s3", self.session), exact=True)
        formatter = self.formatter.bind(outline.tokenizer)
        prepared, held_out = prepare_both(train, evaluation, formatter, outline, self.config)
        if processes is not None:
            self._checked_plan(outline, formatter, prepared, held_out, processes=processes)
            launch(self, train, evaluation, output_dir=output, checkpoint_dir=checkpoint_dir, processes=processes)
            return AdapterCheckpoint.load(output)

        world = World.join(device)
        plan = None
        if not world.lead((output / MANIFEST).is_file):  # before the base is downloaded and hashed
            plan = world.lead(
                lambda: self._checked_plan(
                    outline,
                    formatter,
                    prepared,
                    held_out,
                    processes=world.size,
                    instances=world.machines,
                    started=world.size > 1,
                )
            )
        base = outline.directory
        if base is None or is_hub_id(self.base_model):  # of the hub's files, only what a plan reads is here for sure
            base = resolve_base_model(self.base_model, session=self.session)
        if plan is not None and outline.directory is None:  # the rows of the head are here only now
            plan = with_stop(plan, base, self.config, formatter=formatter, tokenizer=outline.tokenizer)
            check_run(plan, self.config, started=True)
        identity = {
            "base_model": {
                "name": base_name(self.base_model),
                "path": str(base),
                "sha256": world.lead(lambda: _base_digest(base)),
            },
            "prompt_fingerprint": formatter.fingerprint,
            "data_sha256": prepared.digest,
            "config": self.config.identity,
        }
        if not world.lead(lambda: claimed(output, identity, held)) and plan is not None:
            checkpoints = Checkpoints(
                checkpoint_dir or output / ".checkpoints", kept=self.config.kept_checkpoints, session=self.session
            )
            with device_failures():
                provenance = self._trained(
                    base,
                    world,
                    plan,
                    rows=prepared.rows,
                    evaluation_rows=held_out.rows if held_out else [],
                    output=output,
                    checkpoints=checkpoints,
                )
            provenance["run"]["records"] = len(train)

            def finish() -> None:
                formatter.save(output)
                write_loss_plot(output / "training_log.jsonl", output / "loss.svg")
                write_card(output, identity | provenance, base=base)
                write_manifest(output, AdapterCheckpoint.kind, identity | provenance)
                # Only now: a run that is killed before the manifest is written can be resumed.
                checkpoints.clear()
                (output / MARKER).unlink()

            world.lead(finish)
        # On several machines only the leading process's disk holds the files.
        manifest = world.lead(lambda: AdapterCheckpoint.load(output).manifest)
        world.leave()
        return AdapterCheckpoint(output, manifest)

    def plan(
        self,
        records: Iterable[Record],
        evaluation: Iterable[Record] | None = None,
        *,
        instance_type: str | None = None,
        gpu: str | None = None,
        processes: int | None = None,
        instances: int = 1,
        price_per_hour: float | None = None,
        check: bool = True,
    ) -> TrainingPlan:
        """Forecast tokens, steps, memory, time and price of `train`, and refuse what it would refuse.

        Of the base model only configuration, tokenizer and headers are read, wherever it is. If the hub cannot be
        reached, a well-known base is planned from a table and its tokens are estimated (`TrainingPlan.estimated`).

        Args:
            records: with SQL.
            evaluation: records whose loss would be reported.
            instance_type: a SageMaker instance ("ml.g5.12xlarge"); names GPU, processes and price.
            gpu: a GPU by name ("H100"), or "cpu"; None takes this machine's GPU, or its CPU.
            processes: None starts one for each GPU of the instances, but no more than there are rows for.
            instances: machines of that type.
            price_per_hour: dollars for one instance, instead of the table's.
            check: False forecasts what cannot work, too, and lists why in `TrainingPlan.problems`.

        Raises:
            RecordError: there are no records, some have no SQL, or some cannot be learnt from.
            ConfigError: the run cannot work: all reasons are named (see `check_run`). Or an unknown GPU or instance
                type.
            DeviceError: only the devices are wrong.
            ModelError: the base model cannot be used or reached.
        """
        require("train", "QLoRAFSDPTrainer.plan")
        check_counts(processes=processes, instances=instances)
        records = as_records(records, "records")
        held_out = as_records(() if evaluation is None else evaluation, "evaluation")
        if check and instance_type is None and gpu is None:
            check_report_to(self.config.report_to)
        return plan_run(
            self.base_model,
            self.formatter,
            self.config,
            records,
            held_out,
            s3=lambda: aws_client("s3", self.session),
            check=check,
            instance_type=instance_type,
            gpu=gpu,
            processes=processes,
            instances=instances,
            price_per_hour=price_per_hour,
        )

    def _checked_plan(
        self,
        outline: BaseOutline,
        formatter: PromptFormatter,
        prepared: PreparedRecords,
        evaluation: PreparedRecords | None,
        *,
        processes: int,
        instances: int = 1,
        started: bool = False,
    ) -> TrainingPlan:
        """The forecast of a run on this machine, after `check_run` found nothing against it."""
        check_report_to(self.config.report_to)
        plan = plan_training(
            outline.shape, prepared, self.config, evaluation=evaluation, processes=processes, instances=instances
        )
        plan = with_stop(plan, outline.directory, self.config, formatter=formatter, tokenizer=outline.tokenizer)
        # Under torchrun this machine may be one of several.
        here = gpus_here(self.config) if "LOCAL_WORLD_SIZE" not in os.environ else None
        for note in check_run(plan, self.config, tokenizer=outline.tokenizer, gpus_here=here, started=started):
            logger.info(note)
        for note in advice(plan, self.config):
            logger.warning(note)
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


def _base_digest(base: Path) -> str:
    with phase("hashing the base model"):
        return base_digest(base)
