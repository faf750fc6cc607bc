"""From records and a base model to a LoRA adapter."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.aws import aws_client
from sqlquarry.extras import require
from sqlquarry.files.locations import is_s3, local_path, located
from sqlquarry.openmp import warn_of_spinning
from sqlquarry.options import check_options
from sqlquarry.pretrained import pick_device
from sqlquarry.prompt import DEFAULT_FORMATTER, PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training.arguments import as_records, check_apart, check_counts
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
    """Fine-tune a base model with QLoRA on one CPU, one GPU, or several, which share the base (FSDP2) where they must.

    Under ``torchrun`` every process calls `train`; from a notebook or a script, ``train(..., processes=4)`` starts
    them. A run that was killed resumes from its newest checkpoint when the same call is made again, also on another
    number of processes.

    Args:
        base_model: a directory, a ``.gguf`` file, an ``s3://`` prefix or a Hugging Face id.
        formatter: the prompt; by default in the published wording.
        config: see `TrainingConfig`.
        session: the boto3 session for S3; None uses the default credentials. The processes that
            ``train(processes=n)`` starts get its credentials in their environment, and cannot renew temporary ones.

    Source: Hu et al. 2021, arXiv:2106.09685 (LoRA); Dettmers et al. 2023, arXiv:2305.14314 (QLoRA); Zhao et al. 2023,
    arXiv:2304.11277 (FSDP).
    """

    def __init__(
        self,
        base_model: str | Path,
        *,
        formatter: PromptFormatter = DEFAULT_FORMATTER,
        config: TrainingConfig = DEFAULT_CONFIG,
        session: boto3.Session | None = None,
    ) -> None:
        is_plain = not (is_s3(base_model) or str(base_model).startswith("~"))  # "./a/b" must not become a hub id
        self.base_model: str | Path = base_model if is_plain else str(located(base_model))
        self.session = session
        self.formatter = formatter
        self.config = config

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
            processes: start this number of processes on this machine, one for each GPU, and wait for them; None starts
                none and trains in this process (or, under ``torchrun``, in these processes).

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
        records = as_records(train, "train")
        held_out = as_records(() if evaluation is None else evaluation, "evaluation")
        output = local_path(output_dir, "output_dir")
        if processes is not None:
            check_counts(processes=processes)
        check_apart(checkpoint_dir, output)
        device = pick_device(self.config.device)
        if device == "cpu":
            warn_of_spinning()
        run = LocalRun(
            records,
            held_out,
            base_model=self.base_model,
            formatter=self.formatter,
            config=self.config,
            session=self.session,
        )
        if processes is None:
            return run.execute(World.join(device), output, checkpoint_dir)
        run.check(processes=processes)
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
        """Forecast tokens, steps, memory, time and price of `train`, and refuse what it would refuse.

        Of the base model only configuration, tokenizer and headers are read, wherever it is. If the hub cannot be
        reached, a well-known base is planned from a table and its tokens are estimated (`TrainingPlan.estimated`).

        Args:
            records: with SQL.
            evaluation: records whose loss would be reported.
            instance_type: a SageMaker instance ("ml.g5.12xlarge"); names GPU, processes and price. None for another
                machine.
            gpu: without an instance type, a GPU by name ("H100") or "cpu"; "auto" takes this machine's GPU, or its CPU.
            processes: "auto" starts one for each GPU of the instances, but no more than there are rows for.
            instances: machines of that type.
            usd_per_hour: US dollars for one instance; None if not given: the table's price counts, if it has one.
            check: False forecasts what cannot work, too, and lists why in `TrainingPlan.problems`.

        Raises:
            RecordError: there are no records, some have no SQL, or some cannot be learnt from.
            ConfigError: the run cannot work: all reasons are named (see `check_run`). Or an unknown GPU or instance
                type.
            DeviceError: only the devices are wrong.
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
