"""Train a LoRA adapter from records and a base model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.aws import aws_client
from sqlquarry.errors import ConfigError
from sqlquarry.extras import require
from sqlquarry.files.locations import is_s3, local_path, located
from sqlquarry.openmp import warn_of_spinning
from sqlquarry.options import check_options
from sqlquarry.pretrained import pick_device
from sqlquarry.prompt import DEFAULT_FORMATTER, PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training.arguments import as_records, check_checkpoint_dir, check_counts
from sqlquarry.training.config import DEFAULT_CONFIG, Auto, TrainingConfig
from sqlquarry.training.launch import launch
from sqlquarry.training.local_run import LocalRun
from sqlquarry.training.planning.forecast import plan_run
from sqlquarry.training.planning.machines import Machines
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.steps.world import World
from sqlquarry.training.tracking.reporting import check_report_to

if TYPE_CHECKING:
    import boto3


@check_options()
class QLoRAFSDPTrainer:
    """Fine-tune a base model with QLoRA on a CPU, on one GPU, or on several GPUs that can share the base (FSDP2).

    ``train(..., processes=4)`` starts four processes from a notebook or a script. With ``torchrun``, every process
    calls `train`. If a run was killed, the same call resumes it from its newest checkpoint, even with another number of
    processes.

    Args:
        base_model: a directory, a ``.gguf`` file, an ``s3://`` prefix or a Hugging Face id.
        formatter: the prompt. The default is the published wording.
        config: see `TrainingConfig`.
        backend: replaces `TrainingConfig.backend`.
        sft_config: fields of TRL's `SFTConfig`, added to `TrainingConfig.sft_config`. They replace those of the same
            name.
        callbacks: transformers' `TrainerCallback` objects or classes, only for backend "trl" in this process or in
            processes that ``torchrun`` or ``accelerate launch`` started.
        session: the boto3 session for S3. None uses the default credentials. The processes that ``train(processes=n)``
            starts get the session's credentials in their environment, and cannot renew temporary credentials.

    Source: Hu et al. 2021, arXiv:2106.09685 (LoRA); Dettmers et al. 2023, arXiv:2305.14314 (QLoRA); Zhao et al. 2023,
    arXiv:2304.11277 (FSDP).
    """

    def __init__(
        self,
        base_model: str | Path,
        *,
        formatter: PromptFormatter = DEFAULT_FORMATTER,
        config: TrainingConfig = DEFAULT_CONFIG,
        backend: Literal["sqlquarry", "trl"] | None = None,
        sft_config: Mapping[str, object] | None = None,
        callbacks: Sequence[object] = (),
        session: boto3.Session | None = None,
    ) -> None:
        is_plain = not (is_s3(base_model) or str(base_model).startswith("~"))  # "./a/b" must not become a hub id
        self.base_model: str | Path = base_model if is_plain else str(located(base_model))
        self.session = session
        self.formatter = formatter
        self.config = dataclasses.replace(
            config, backend=backend or config.backend, sft_config={**config.sft_config, **(sft_config or {})}
        )
        self.callbacks = tuple(callbacks)
        if self.callbacks and self.config.backend != "trl":
            raise ConfigError('QLoRAFSDPTrainer: callbacks are only called with backend="trl".')

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

        If the directory already contains the finished adapter of the same base, records, prompt and configuration,
        return that adapter without training.

        Args:
            train: records with SQL. A generator is read into memory.
            evaluation: records whose loss is reported after each epoch. They are not learned.
            output_dir: a directory on this machine. It receives ``adapter_model.safetensors``,
                ``adapter_config.json``, ``prompt.json``, ``training_log.jsonl``, ``loss.svg``, a model card and, last,
                ``manifest.json``.
            checkpoint_dir: a separate directory or an ``s3://`` prefix for checkpoints. None stores them below
                `output_dir`. They are removed when the adapter is finished.
            processes: number of processes to start on this machine, one per GPU. None starts none and trains in this
                process, or in the processes that ``torchrun`` started.

        Raises:
            MissingExtraError: the extra "train" is not installed.
            RecordError: the arguments are not records, or records have no SQL or are longer than a row.
            ConfigError: the prompt does not fit the base model (see `PromptFormatter.bind`), `checkpoint_dir` is in
                `output_dir`, TRL refuses `sft_config` or `callbacks`, or the run cannot work. All reasons are listed
                before the base is downloaded, hashed or loaded (see `check_run`).
            ModelError: the base model or the device cannot be used.
            TrainingError: `output_dir` contains another run or other files, the loss is not a finite number, a
                checkpoint cannot be written, or one of several processes died.
            TrainingInterruptedError: a signal stopped the run. The same call resumes it.
            OutputInUseError: another process trains into `output_dir`.
        """
        require("trl" if self.config.backend == "trl" else "train", "QLoRAFSDPTrainer")
        if self.callbacks and processes is not None:
            raise ConfigError(
                f"callbacks cannot be passed to the {processes} processes that train(processes={processes}) starts. "
                "Start your script with torchrun or accelerate launch, and leave processes out."
            )
        records = as_records(train, "train")
        held_out = as_records(() if evaluation is None else evaluation, "evaluation")
        output = local_path(output_dir, "output_dir")
        if processes is not None:
            check_counts(processes=processes)
        check_checkpoint_dir(checkpoint_dir, output, self.config.backend)
        device = pick_device(self.config.device)
        if device == "cpu":
            warn_of_spinning()
        prepare = functools.partial(
            LocalRun,
            records,
            held_out,
            base_model=self.base_model,
            formatter=self.formatter,
            config=self.config,
            callbacks=self.callbacks,
            session=self.session,
        )
        if processes is None:
            world = World.join(device, cpu_collectives=self.config.backend == "trl")
            return prepare(world=world).execute(world, output, checkpoint_dir)
        prepare().check(processes=processes)
        launch(
            records,
            held_out,
            base_model=self.base_model,
            formatter=self.formatter,
            config=self.config,
            output_dir=output,
            checkpoint_dir=checkpoint_dir,
            processes=processes,
            session=self.session,
        )
        return AdapterCheckpoint.load(output)

    def plan(
        self,
        records: Iterable[Record],
        evaluation: Iterable[Record] | None = None,
        *,
        instance_type: str | None = None,
        gpu: str = "auto",
        processes: int | Auto = "auto",
        instances: int = 1,
        usd_per_hour: float | None = None,
        check: bool = True,
    ) -> TrainingPlan:
        """Forecast tokens, steps, memory, time and price of `train`, and refuse a run that `train` would refuse.

        Only the base model's configuration, tokenizer and headers are read, wherever it is stored. If the hub cannot be
        reached, the sizes of a well-known base come from a table and its tokens are estimated
        (`TrainingPlan.estimated`).

        Args:
            records: records with SQL.
            evaluation: records whose loss would be reported.
            instance_type: a SageMaker instance type ("ml.g5.12xlarge"), which determines GPU, processes and price. None
                for any other machine.
            gpu: without an instance type, the name of a GPU ("H100") or "cpu". "auto" uses this machine's GPU, or its
                CPU if it has no GPU.
            processes: "auto" starts one per GPU of the instances, but not more than a step has rows.
            instances: number of instances of that type.
            usd_per_hour: price of one instance in US dollars per hour. None uses the price table, if it lists the type.
            check: False also forecasts runs that cannot work, and lists the reasons in `TrainingPlan.problems`.

        Raises:
            RecordError: there are no records, some have no SQL, or some cannot be learned from.
            ConfigError: the GPU or instance type is unknown, or the run cannot work. All reasons are listed (see
                `check_run`).
            DeviceError: only the GPUs are wrong: their memory, number or lack of bfloat16.
            ModelError: the base model cannot be used or reached.
        """
        require("train", "QLoRAFSDPTrainer.plan")
        check_counts(processes=1 if processes == "auto" else processes, instances=instances)
        machines = Machines(
            instance_type=instance_type,
            gpu=gpu,
            processes=processes,
            instances=instances,
            usd_per_hour=usd_per_hour,
        )
        given = as_records(records, "records")
        held_out = as_records(() if evaluation is None else evaluation, "evaluation")
        if check and machines.is_here:
            check_report_to(self.config.report_to)
        return plan_run(
            given,
            held_out,
            self.base_model,
            self.formatter,
            self.config,
            machines=machines,
            s3=lambda: aws_client("s3", self.session),
            check=check,
        )
