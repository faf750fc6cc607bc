"""Carry out one training run on this machine: prepare and check records and base, train, and save the adapter."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.aws import aws_client
from sqlquarry.files.locations import is_hub_id
from sqlquarry.manifests import MANIFEST, base_digest, write_manifest
from sqlquarry.pretrained import quiet_transformers
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import PromptFormatter
from sqlquarry.provenance import TrainingRun
from sqlquarry.quantization import QuantizationRecipe
from sqlquarry.records import Record
from sqlquarry.text import visible_logger
from sqlquarry.training.base.base_model import resolve_base_model
from sqlquarry.training.base.outline import read_outline
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.encoding.prepared import PreparedRecords, prepare_both
from sqlquarry.training.identity import MARKER, base_name, claim_output
from sqlquarry.training.planning.advice import advice
from sqlquarry.training.planning.forecast import plan_training, schedule_of, with_stop_check
from sqlquarry.training.planning.guards import check_run
from sqlquarry.training.planning.hardware import gpu_named
from sqlquarry.training.planning.machines import Machines, gpus_here
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.steps.adapted_model import load_trainable
from sqlquarry.training.steps.checkpoint import Checkpoints
from sqlquarry.training.steps.device_failures import device_failures
from sqlquarry.training.steps.loop import Log, Loop, Outcome
from sqlquarry.training.steps.world import World
from sqlquarry.training.tracking.card import write_card
from sqlquarry.training.tracking.loss_plot import write_loss_plot
from sqlquarry.training.tracking.pace import PaceMeter, peak_gpu_bytes
from sqlquarry.training.tracking.progress import StepLog
from sqlquarry.training.tracking.reporting import Reporter, check_report_to
from sqlquarry.training.trl.arguments import check_trl
from sqlquarry.training.trl.checkpoints import TrainerCheckpoints
from sqlquarry.training.trl.fit import fit

if TYPE_CHECKING:
    import boto3

logger = visible_logger(__name__)
_LOG = "training_log.jsonl"
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


class LocalRun:
    """A run with encoded records and a checked base model, whose weights are not loaded yet.

    Args:
        train: records with SQL.
        evaluation: records whose loss is reported after each epoch. May be empty.
        base_model: a directory, a ``.gguf`` file, an ``s3://`` prefix or a Hugging Face id.
        formatter: the prompt.
        config: see `TrainingConfig`.
        world: the processes that train, of which only rank 0 encodes and packs. None if this process only checks the
            run.
        callbacks: transformers' callbacks for TRL's trainer.
        session: the boto3 session for S3. None uses the default credentials.

    Raises:
        RecordError, ConfigError, ModelError: as `QLoRAFSDPTrainer.train`.
    """

    def __init__(
        self,
        train: Sequence[Record],
        evaluation: Sequence[Record],
        *,
        base_model: str | Path,
        formatter: PromptFormatter,
        config: TrainingConfig,
        world: World | None = None,
        callbacks: Sequence[object] = (),
        session: boto3.Session | None,
    ) -> None:
        self._base_model, self._config, self._session = base_model, config, session
        self._callbacks = callbacks
        self._outline = read_outline(base_model, s3=lambda: aws_client("s3", session), exact=True)
        self._formatter = formatter.bind(self._outline.tokenizer)

        def prepared() -> tuple[PreparedRecords, PreparedRecords | None]:
            return prepare_both(train, evaluation, self._formatter, self._outline, config)

        self._train, self._evaluation = world.on_rank0(prepared) if world else prepared()

    def check(self, *, processes: int, instances: int = 1, started: bool = False) -> TrainingPlan:
        """Forecast the run on this machine, check it with `check_run`, log the notes and return the plan."""
        check_report_to(self._config.report_to)
        machines = Machines(processes=processes, instances=instances)
        plan = plan_training(self._outline.shape, self._train, self._config, machines, evaluation=self._evaluation)
        plan = with_stop_check(plan, self._outline, self._config, formatter=self._formatter)
        # With torchrun, this machine may be one of several.
        here = gpus_here(self._config) if "LOCAL_WORLD_SIZE" not in os.environ else None
        tokenizer = self._outline.tokenizer
        for note in check_run(plan, self._config, tokenizer=tokenizer, gpus_here=here, started=started):
            logger.info(note)
        for note in advice(plan, self._config):
            logger.warning(note)
        return plan

    def execute(self, world: World, output: Path, checkpoint_dir: str | Path | None) -> AdapterCheckpoint:
        """Train with the processes of `world` and save the adapter. A run that has finished before is not repeated."""
        with contextlib.ExitStack() as held:  # holds the output's lock until the adapter is saved
            plan = None
            if not world.on_rank0((output / MANIFEST).is_file):  # before the base is downloaded and hashed
                started, machines = world.size > 1, world.machines
                plan = world.on_rank0(lambda: self.check(processes=world.size, instances=machines, started=started))
                if self._config.backend == "trl":
                    check_trl(self._config, world, self._callbacks, evaluates=self._evaluation is not None)
            base = self._fetch_base()
            if plan is not None and self._outline.directory is None:  # the head can be checked only now
                outline = dataclasses.replace(self._outline, directory=base)
                plan = with_stop_check(plan, outline, self._config, formatter=self._formatter)
                check_run(plan, self._config, started=True)
            identity = self._identity(base, world.on_rank0(lambda: _digest(base)))
            if not world.on_rank0(lambda: claim_output(output, identity, held)) and plan is not None:
                place = checkpoint_dir or output / ".checkpoints"
                with_trl = functools.partial(self._fit_with_trl, identity=identity)
                train = with_trl if self._config.backend == "trl" else self._fit
                with device_failures():
                    facts, clear = train(base, world, plan, output, place)
                world.on_rank0(lambda: self._finish(output, identity | facts, base, clear))
            # With several machines, only the disk of rank 0 has the files.
            manifest = world.on_rank0(lambda: AdapterCheckpoint.load(output).manifest)
            world.leave()
            return AdapterCheckpoint(output, manifest)

    def _fetch_base(self) -> Path:
        directory = self._outline.directory
        # For a hub id, only the small files that a plan needs have been downloaded.
        if directory is None or is_hub_id(self._base_model):
            return resolve_base_model(self._base_model, session=self._session)
        return directory

    def _identity(self, base: Path, digest: str) -> dict[str, object]:
        return {
            "base_model": {"name": base_name(self._base_model), "path": str(base), "sha256": digest},
            "prompt_fingerprint": self._formatter.fingerprint,
            "data_sha256": self._train.digest,
            "config": self._config.identity,
        }

    def _fit(
        self, base: Path, world: World, plan: TrainingPlan, output: Path, place: str | Path
    ) -> tuple[dict[str, object], Callable[[], None]]:
        """Train and save the adapter's two files on rank 0.

        Return the run's part of the manifest, and a function that removes the checkpoints.
        """
        checkpoints = Checkpoints(place, kept=self._config.save_total_limit, session=self._session)
        how = f", {plan.config.quantization}" if plan.config.quantization else ""
        with quiet_transformers(), phase(f"loading the base model{how}"):
            model, recipe = load_trainable(base, plan.config, world, trained_rows=plan.trained_rows)
        schedule = schedule_of(self._train.row_sizes, self._config, model.config.hidden_size)
        with self._logs(world, plan, schedule.steps, output) as logs:
            outcome = Loop(
                model,
                self._train.rows,
                schedule,
                plan.config,
                world,
                checkpoints=checkpoints,
                logs=logs,
                evaluation=self._evaluation.rows if self._evaluation else [],
            ).run()
        if world.is_rank0:
            with quiet_transformers():
                model.save_pretrained(output)
        return _provenance(plan, world, schedule.peak_rate, outcome, recipe), checkpoints.clear

    def _fit_with_trl(
        self,
        base: Path,
        world: World,
        plan: TrainingPlan,
        output: Path,
        place: str | Path,
        *,
        identity: Mapping[str, object],
    ) -> tuple[dict[str, object], Callable[[], None]]:
        """Do the same as `_fit` with TRL."""
        checkpoints = TrainerCheckpoints(place, world, identity)
        rate = schedule_of(self._train.row_sizes, self._config, self._outline.shape.hidden).peak_rate
        fitted = fit(
            base,
            self._config,
            world,
            train=self._train.examples,
            evaluation=self._evaluation.examples if self._evaluation else [],
            rows_per_step=plan.rows_per_step,
            rate=rate,
            output=output,
            checkpoints=checkpoints,
            open_logs=lambda steps: self._logs(world, plan, steps, output),
            callbacks=self._callbacks,
        )
        config = dataclasses.replace(self._config, sharding="full" if fitted.is_sharded else "none")
        done = dataclasses.replace(plan, config=config, row_sizes=fitted.row_sizes)
        facts = _provenance(done, world, rate, fitted.outcome, fitted.recipe)
        return facts | {"backend": fitted.backend}, checkpoints.clear

    @contextlib.contextmanager
    def _logs(self, world: World, plan: TrainingPlan, steps: int, output: Path) -> Iterator[list[Log]]:
        """Open the loggers that receive the figures of each step. Only rank 0 has any."""
        if not world.is_rank0:
            yield []
            return
        known = gpu_named(plan.gpu.name) if plan.gpu else None  # the peak rate of other GPUs is unknown
        pace = PaceMeter(plan.needed_flops_per_token, known, world.size)
        compiles = plan.config.compiles_layers(cuda=world.device.type == "cuda") and self._config.backend != "trl"
        note = "compiling" if compiles else ""
        with (
            StepLog(output / _LOG, steps, pace, note=note) as log,
            Reporter(self._config.report_to, output, self._config.identity, steps) as reporter,
        ):
            yield [log, reporter]

    def _finish(self, output: Path, provenance: dict[str, object], base: Path, clear: Callable[[], None]) -> None:
        self._formatter.save(output)
        write_loss_plot(output / _LOG, output / "loss.svg")
        write_card(output, provenance, base=base)
        write_manifest(output, AdapterCheckpoint.kind, provenance)
        # Last, so that a run that is killed before the manifest is written can be resumed.
        clear()
        (output / MARKER).unlink()


def _provenance(
    plan: TrainingPlan, world: World, rate: float, outcome: Outcome, recipe: QuantizationRecipe | None
) -> dict[str, object]:
    run = TrainingRun(
        records=plan.records,
        rows=plan.rows,
        tokens_per_epoch=plan.tokens_per_epoch,
        tokens_unshared=plan.tokens_unshared,
        steps=outcome.steps,
        learning_rate=rate,
        training_loss=outcome.loss,
        duration_s=outcome.seconds,
        tokens_per_second=plan.tokens_per_epoch * plan.config.num_train_epochs / outcome.seconds,
        device=world.device.type,
        processes=world.size,
        shard_group_size=plan.config.shard_group_size(world.size, world.machines),
        trained_rows=tuple(plan.trained_rows),
        peak_memory_bytes=peak_gpu_bytes(),
    )
    return {
        "quantization": dataclasses.asdict(recipe) if recipe else None,
        "run": dataclasses.asdict(run),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _digest(base: Path) -> str:
    with phase("hashing the base model"):
        return base_digest(base)
