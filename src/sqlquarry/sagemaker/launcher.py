"""SageMakerLauncher: the same trainer and records, trained and merged by a SageMaker training job."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sqlquarry.artifacts import Record
from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import error_code
from sqlquarry.errors import ConfigError, TrainingError
from sqlquarry.extras import require
from sqlquarry.options import check_options
from sqlquarry.sagemaker.failures import quota_advice, training_error
from sqlquarry.sagemaker.images import training_image
from sqlquarry.sagemaker.inputs import Base, bootstrap_source, gather
from sqlquarry.sagemaker.job import TrainingJob
from sqlquarry.sagemaker.request import (
    credential_problems,
    environment_problems,
    report_problems,
    training_request,
    violations,
)
from sqlquarry.sagemaker.staging import Channel, channel_key, staging_prefix, upload
from sqlquarry.text import visible_logger
from sqlquarry.training.encoding.given import as_records
from sqlquarry.training.planning.forecast import plan_run
from sqlquarry.training.planning.hardware import INSTANCES
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.tracking.reporting import check_report_to
from sqlquarry.training.trainer import QLoRAFSDPTrainer

logger = visible_logger(__name__)
_BUCKET = re.compile(r"[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]")
_GPU = ("ml.g", "ml.p")
_ATTEMPTS, _ANY_DIGEST = 99, "0" * 64
_PRICES = {name: found.price_per_hour for name, found in INSTANCES.items() if found.price_per_hour is not None}


@check_options()
@dataclass(frozen=True, slots=True)
class SageMakerLauncher:
    """Runs training as a SageMaker job, on machines that exist only as long as it runs.

    Needs the extras aws, train and merge: the job gets the versions installed here. Everything is checked before
    anything is sent, and nothing is sent twice: the job's name is made of the content of all that it reads.

    Args:
        role_arn: the role that the job runs as; sagemaker.amazonaws.com must be allowed to assume it.
        bucket: the bucket for inputs, checkpoints and results, in the job's region.
        prefix: the folder in it.
        session: a boto3 session; None uses the default credentials.
        region: None uses the session's.
        endpoint_url: another address for all AWS calls.
        image: URI of the container; None chooses an AWS Deep Learning Container by the torch that is installed here.
        instance_type: the machine; it gets one process for each GPU that a step has a row for.
        instance_count: machines.
        volume_gb: size of the volume, for instance types that have no disks of their own.
        max_run_s: seconds after which SageMaker stops the job.
        max_wait_s: with `spot`, seconds after which it gives up, waiting included; None is twice `max_run_s`.
        spot: use spare machines, which can be taken away at any time; training resumes from its checkpoint.
        keep_alive_s: keep the machines (billed) for the next job of the same kind.
        subnets: of the VPC that the job runs in; they need a way to a package index and to S3.
        security_group_ids: of the same VPC.
        kms_key_arn: key for the volume, the inputs and the results.
        tags: of the job.
        environment: settings of the job's process, such as WANDB_PROJECT or MLFLOW_TRACKING_URI; no secrets, which
            everybody could read who may look at the job.
        secret_arns: environment variable -> ARN of the Secrets Manager secret that holds its value, such as HF_TOKEN
            (gated models) or WANDB_API_KEY; the job is told the ARNs, never the values. Variables of pip, such as
            PIP_INDEX_URL with a private index and its password, are for the installation alone (the image needs boto3).
        requirements: what the job installs below this library. "locked" installs the versions that this release was
            tested with, each file by its SHA-256; a path is a requirements file of your own with ``==`` and ``--hash``
            for everything; "without-hashes" pins the versions installed here, and trusts the package index.
        usd_per_hour: instance type -> US dollars per hour, for `TrainingJob.cost_usd`; others as in `hardware`, whose
            prices are of us-east-1 and for orientation.
        poll_interval_s: seconds between two looks at a job that runs.

    Raises:
        ConfigError: options that cannot work, all at once.
    """

    role_arn: str
    _: KW_ONLY
    bucket: str
    prefix: str = "sqlquarry"
    session: Any = None
    region: str | None = None
    endpoint_url: str | None = None
    image: str | None = None
    # The published recipe's machine: four A10G with 24 GB each.
    instance_type: str = "ml.g5.12xlarge"
    instance_count: int = 1
    volume_gb: int = 200
    max_run_s: int = 24 * 3600
    max_wait_s: int | None = None
    spot: bool = False
    keep_alive_s: int | None = None
    subnets: Sequence[str] = ()
    security_group_ids: Sequence[str] = ()
    kms_key_arn: str | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret_arns: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    requirements: str | Path = "locked"
    usd_per_hour: Mapping[str, float] = dataclasses.field(default_factory=dict)
    poll_interval_s: float = 15.0

    def __post_init__(self) -> None:
        checks = {
            "bucket": (_BUCKET.fullmatch(self.bucket), "a bucket's name, without s3://"),
            "instance_type": (
                not self.instance_type.startswith(("ml.trn", "ml.p6e")),
                "an x86 machine with NVIDIA GPUs, or with none",
            ),
            "instance_count": (self.instance_count >= 1, "at least 1"),
            "prefix": ("s3:" not in self.prefix.lower(), "a folder in the bucket, without s3://"),
            "volume_gb": (self.volume_gb >= 1, "at least 1"),
            "poll_interval_s": (0 <= self.poll_interval_s <= 3600, "from 0 to 3600"),
            "max_run_s": (self.max_run_s >= 1, "at least 1"),
            "max_wait_s": (
                self.max_wait_s is None or (self.spot and self.max_wait_s >= self.max_run_s),
                f"None, or with spot=True at least max_run_s={self.max_run_s}",
            ),
            # "Managed warm pools", considerations: spot machines cannot be kept.
            "keep_alive_s": (not (self.keep_alive_s and self.spot), "None with spot=True"),
            "security_group_ids": (
                bool(self.security_group_ids) == bool(self.subnets),
                "given with subnets, or neither",
            ),
        }
        wrong = {name: rule for name, (fine, rule) in checks.items() if not fine}
        bad = [f"{name} is {getattr(self, name)!r}, but must be {rule}" for name, rule in wrong.items()]
        bad += environment_problems(self.environment, self.secret_arns)
        bad += credential_problems({"tags": self.tags})
        if bad:
            raise ConfigError("SageMakerLauncher: " + "; ".join(bad))

    def launch(
        self,
        trainer: QLoRAFSDPTrainer,
        train: Sequence[Record],
        evaluation: Sequence[Record] | None = None,
        *,
        name: str | None = None,
        merge: Base | None = "auto",
        wait: bool = True,
    ) -> TrainingJob:
        """Start the job, or find the one that does the same: running, it is attached to; finished, returned.

        A job that failed or was stopped is started anew under another name, and resumes from its newest checkpoint,
        also on another instance type.

        Args:
            trainer: base model, prompt and configuration. It is checked as the job will check it, wherever the base
                model is, before anything is hashed or sent. A local base model is then sent to S3, once.
            train: records with SQL.
            evaluation: records whose loss is reported after each epoch.
            name: beginning of the job's name; a part made of the content follows.
            merge: the weights that the adapter is merged into (see `AdapterMerger`); None leaves the adapter alone.
            wait: follow the job to its end (see `TrainingJob.wait`).

        Raises:
            MissingExtraError: an extra is not installed.
            ConfigError: something the service would refuse, or a run that cannot work (see `check_run`).
            RecordError: there are no records, some have no SQL, or some are longer than a row.
            DeviceError: the machine's GPUs lack memory or do not compute in bfloat16.
            ModelError: the base model cannot be used or reached.
            TrainingError: AWS refused, with what to do (which quota, which right); or, with `wait`, the job failed.
            TrainingInterruptedError: with `wait`, the job was stopped.
        """
        plan = self._planned(trainer, train, evaluation, merge, name, checked=self._check_bucket)
        job, following = self._latest(plan.stem)
        status = job.status if job else None
        if job is None or status in ("Failed", "Stopped"):
            job = self._started(plan, following)
        return job.wait() if wait and status != "Completed" else job

    def dry_run(
        self,
        trainer: QLoRAFSDPTrainer,
        train: Sequence[Record],
        evaluation: Sequence[Record] | None = None,
        *,
        name: str | None = None,
        merge: Base | None = "auto",
    ) -> dict[str, Any]:
        """Return the CreateTrainingJob request of `launch`; nothing is sent, and no credentials are needed.

        Raises:
            ConfigError, RecordError, ModelError, MissingExtraError: as `launch`.
        """
        plan = self._planned(trainer, train, evaluation, merge, name)
        for note in plan.notes:
            logger.warning(note)
        return {"TrainingJobName": plan.stem, **plan.request}

    def plan(
        self, trainer: QLoRAFSDPTrainer, train: Sequence[Record], evaluation: Sequence[Record] | None = None
    ) -> TrainingPlan:
        """Forecast steps, memory, time and price of the job on these machines, and check it as the job will.

        Each machine starts a process for each GPU, but no more than there are rows for. For an instance type that is
        not in the library's table, and for CPUs, only what does not depend on the machine is checked.

        Raises:
            RecordError, ConfigError, DeviceError, ModelError: as `QLoRAFSDPTrainer.plan`.
        """
        require("train", "SageMakerLauncher.plan")
        known = self.instance_type in INSTANCES
        plan = plan_run(
            trainer.base_model,
            trainer.formatter,
            trainer.config,
            train,
            evaluation,
            s3=lambda: self._client("s3"),
            instance_type=self.instance_type if known else None,
            gpu=None if known else "cpu",
            processes=None if known else self.instance_count,
            instances=self.instance_count,
            price_per_hour=self.usd_per_hour.get(self.instance_type),
        )
        if not known and self.instance_type.startswith(_GPU):
            note = f"{self.instance_type} is not in the table of instances: its memory and price are not checked"
            return dataclasses.replace(plan, notes=(*plan.notes, note))
        return plan

    def attach(self, name: str) -> TrainingJob:
        """Return a job of the account, to wait for it, stop it, or get its results.

        Raises:
            TrainingError: there is no such job, or AWS could not be asked.
        """
        job = self._job(name)
        job.describe()
        return job

    def _planned(
        self,
        trainer: QLoRAFSDPTrainer,
        train: Sequence[Record],
        evaluation: Sequence[Record] | None,
        merge: Base | None,
        name: str | None,
        *,
        checked: Callable[[], None] = lambda: None,
    ) -> _Plan:
        """Return the checked request and inputs of the job; nothing is sent. `checked` runs before hashing."""
        for extra in ("aws", "train", "merge"):  # the job gets the versions that are installed here
            require(extra, "SageMakerLauncher")
        processor: Literal["cpu", "gpu"] = "gpu" if self.instance_type.startswith(_GPU) else "cpu"
        merges = (None, *get_args(Base))
        bad = [] if merge in merges else [f"merge is {merge!r}, but must be one of {', '.join(map(repr, merges))}"]
        if trainer.config.device not in ("auto", {"gpu": "cuda", "cpu": "cpu"}[processor]):
            bad.append(f"the trainer's device is {trainer.config.device!r}, but {self.instance_type} has a {processor}")
        bad += report_problems(trainer.config.report_to, self.environment, self.secret_arns)
        if bad:
            raise ConfigError("SageMakerLauncher: " + "; ".join(bad))
        check_report_to(trainer.config.report_to, self.environment)
        train = as_records(train, "train")
        evaluation = None if evaluation is None else as_records(evaluation, "evaluation")
        inputs = gather(trainer, train, evaluation, merge, requirements=self.requirements)
        forecast = self.plan(trainer, train, evaluation)
        sagemaker = self._client("sagemaker")
        image = self.image or training_image(
            sagemaker.meta.region_name,
            torch=importlib.metadata.version("torch"),
            transformers=importlib.metadata.version("transformers"),
            processor=processor,
        )
        fed = forecast.processes // self.instance_count
        gpus = INSTANCES[self.instance_type].gpus if self.instance_type in INSTANCES else fed

        def request_of(digests: Mapping[str, str], learnt: str, processes: int | None = None) -> dict[str, Any]:
            place = f"s3://{self.bucket}/{self._folder}"
            sent = {name: place + channel_key(name, digest) for name, digest in digests.items()}
            return training_request(
                self,
                image,
                channels={**sent, **inputs.places},
                digests=digests,
                bootstrap_sha256=hashlib.sha256(bootstrap_source()).hexdigest(),
                checkpoints=f"{place}checkpoints/{learnt[:16]}",
                output=f"{place}jobs",
                processes=processes,
            )

        # What the service would refuse does not depend on the digests, which take minutes for a large base.
        draft = request_of({channel.name: _ANY_DIGEST for channel in inputs.channels}, _ANY_DIGEST)
        if exposed := credential_problems(draft):  # before `violations`, which shows values
            raise ConfigError("SageMakerLauncher: " + "; ".join(exposed))
        named = {"TrainingJobName": _numbered(f"{name or 'sqlquarry'}-{_ANY_DIGEST[:12]}", _ATTEMPTS), **draft}
        if wrong := violations(named, sagemaker.meta.service_model):
            raise ConfigError("SageMaker would refuse the job: " + "; ".join(wrong))
        checked()
        digests = {channel.name: channel.digest for channel in inputs.channels}
        # Processes do not change the name: if tokens are estimated, a later plan may start more.
        content = hashlib.sha256(json.dumps(request_of(digests, inputs.learnt), sort_keys=True).encode()).hexdigest()
        request = request_of(digests, inputs.learnt, fed if fed < gpus else None)
        return _Plan(f"{name or 'sqlquarry'}-{content[:12]}", request, inputs.channels, forecast.remarks)

    def _started(self, plan: _Plan, name: str) -> TrainingJob:
        from botocore.exceptions import BotoCoreError, ClientError

        for note in plan.notes:
            logger.warning(note)
        s3, sagemaker = self._client("s3"), self._client("sagemaker")
        staging = staging_prefix(s3, self.bucket, self._folder, self.kms_key_arn)
        for channel in plan.channels:
            upload(staging, channel)
        try:
            sagemaker.create_training_job(TrainingJobName=name, **plan.request)
        except (BotoCoreError, ClientError) as error:
            advice = None
            if error_code(error) == "ResourceLimitExceeded":
                advice = quota_advice(
                    error,
                    instance_type=self.instance_type,
                    count=self.instance_count,
                    spot=self.spot,
                    region=sagemaker.meta.region_name,
                )
            if error_code(error) != "ResourceInUse":  # another process was faster, with the same content
                raise training_error(error, f"starting the training job {name}", advice) from error
        logger.info("training job %s on %d x %s", name, self.instance_count, self.instance_type)
        return self._job(name)

    def _latest(self, stem: str) -> tuple[TrainingJob | None, str]:
        """The newest job of this content, and the name that the next would get."""
        job = None
        for number in range(1, _ATTEMPTS + 1):
            name = _numbered(stem, number)
            following = self._job(name)
            if not following.exists():
                return job, name
            job = following
        raise TrainingError(f"{_ATTEMPTS} jobs {stem}-… have failed or were stopped. Launch under another name.")

    def _check_bucket(self) -> None:
        """Before anything is sent: the bucket is there, may be used, and lies in the job's region."""
        from botocore.exceptions import BotoCoreError, ClientError

        s3 = self._client("s3")
        try:
            found = s3.head_bucket(Bucket=self.bucket)
        except (BotoCoreError, ClientError) as error:
            raise training_error(error, f"looking at the bucket {self.bucket}") from error
        there, here = found.get("BucketRegion"), s3.meta.region_name
        if there and there != here:
            raise ConfigError(
                f"the bucket {self.bucket} is in {there}, but the job would run in {here}: use one region"
            )

    def _job(self, name: str) -> TrainingJob:
        return TrainingJob(
            name,
            sagemaker=self._client("sagemaker"),
            logs=self._client("logs"),
            usd_per_hour={**_PRICES, **self.usd_per_hour},
            poll_interval_s=self.poll_interval_s,
        )

    @property
    def _folder(self) -> str:
        prefix = self.prefix.strip("/")
        return f"{prefix}/" if prefix else ""

    def _client(self, service: str) -> Any:
        # A job is watched for hours.
        return aws_client(service, self.session, endpoint_url=self.endpoint_url, region=self.region, attempts=8)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A job to be.

    Args:
        stem: its name, but for the number of the attempt.
        request: of CreateTrainingJob, but for the name.
        channels: what has to be sent before.
        notes: what is worth knowing before it is paid for.
    """

    stem: str
    request: Mapping[str, Any]
    channels: Sequence[Channel]
    notes: Sequence[str]


def _numbered(stem: str, attempt: int) -> str:
    return stem if attempt == 1 else f"{stem}-{attempt}"
