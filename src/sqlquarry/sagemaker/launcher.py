"""SageMakerLauncher: the same trainer and records, trained and merged by a SageMaker training job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws import Polling, aws_client
from sqlquarry.aws.failures import aws_errors
from sqlquarry.errors import ConfigError, TrainingError
from sqlquarry.extras import require
from sqlquarry.files.locations import BUCKET_NAME
from sqlquarry.options import check_options, check_rules
from sqlquarry.records import Record
from sqlquarry.sagemaker.attempts import last_name, newest_attempt, start
from sqlquarry.sagemaker.container_job import MergeBase
from sqlquarry.sagemaker.draft import ANY_DIGEST, JobDraft, processes_to_start, trainer_problems
from sqlquarry.sagemaker.environment import environment_problems, job_environment
from sqlquarry.sagemaker.images import image_for
from sqlquarry.sagemaker.inputs import gather
from sqlquarry.sagemaker.job import JOB_POLLING, TrainingJob
from sqlquarry.sagemaker.packaging import WITHOUT_HASHES
from sqlquarry.sagemaker.request import JobFiles, training_request
from sqlquarry.sagemaker.settings import Compute, Networking, StoppingCondition
from sqlquarry.sagemaker.staging import staging_prefix, upload
from sqlquarry.sagemaker.validation import check_request, credential_problems
from sqlquarry.text import visible_logger
from sqlquarry.training.arguments import as_records
from sqlquarry.training.planning.forecast import plan_run
from sqlquarry.training.planning.hardware import INSTANCES
from sqlquarry.training.planning.machines import Machines
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.tracking.reporting import check_report_to
from sqlquarry.training.trainer import QLoRAFSDPTrainer

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import CreateTrainingJobRequestTypeDef

logger = visible_logger(__name__)
_REQUEST_ATTEMPTS = 8  # a job is watched for hours
_PRICES = {name: found.usd_per_hour for name, found in INSTANCES.items() if found.usd_per_hour is not None}

# The SageMaker Python SDK's words, for "did you mean".
_ALSO_CALLED = {
    "image_uri": "image",
    "instance_count": "compute",
    "instance_type": "compute",
    "max_run": "stopping",
    "security_group_ids": "networking",
    "stopping_condition": "stopping",
    "subnets": "networking",
    "training_image": "image",
    "use_spot_instances": "compute",
}


@check_options(also_called=_ALSO_CALLED)
@dataclass(frozen=True, slots=True)
class SageMakerLauncher:
    """Runs training as a SageMaker job, on machines that exist only as long as it runs.

    Needs the extras aws, train and merge, because the job gets the versions installed here. Everything is checked
    before anything is sent. Nothing is sent twice, because the job's name is made of the content of all that it reads.

    Args:
        role_arn: the role that the job runs as; sagemaker.amazonaws.com must be allowed to assume it.
        bucket: the bucket for inputs, checkpoints and results, in the job's region.
        prefix: the folder in it.
        session: a boto3 session, which also has the job's region; None uses the default credentials.
        image: URI of the container; "auto" chooses an AWS Deep Learning Container by the torch that is installed here.
        compute: the machines.
        networking: the VPC that the job runs in; None uses SageMaker's own network.
        stopping: the job's time limits.
        polling: how often a running job is looked at, and how long `TrainingJob.wait` waits for its end.
        kms_key_arn: key for the volume, the inputs and the results; None uses keys of AWS.
        tags: of the job.
        environment: settings of the job's process, such as WANDB_PROJECT or MLFLOW_TRACKING_URI; no secrets, because
            everybody who may look at the job can read them.
        secret_arns: environment variable -> ARN of the Secrets Manager secret that holds its value, such as HF_TOKEN
            (gated models) or WANDB_API_KEY; the job is told the ARNs, never the values. Variables of pip, such as
            PIP_INDEX_URL with a private index and its password, are for the installation alone (the image needs boto3).
        requirements: what the job installs below this library. "locked" installs the versions that this release was
            tested with, each file by its SHA-256; a path is a requirements file of your own with ``==`` and ``--hash``
            for everything; "without-hashes" pins the versions installed here, and trusts the package index.
        usd_per_hour: instance type -> US dollars per hour, for `TrainingJob.cost_usd`; others as in `hardware`, whose
            prices are of us-east-1 and for orientation.

    Raises:
        ConfigError: options that cannot work, all at once.
    """

    role_arn: str
    _: KW_ONLY
    bucket: str
    prefix: str = "sqlquarry"
    session: boto3.Session | None = None
    image: str = "auto"
    compute: Compute = dataclasses.field(default_factory=Compute)
    networking: Networking | None = None
    stopping: StoppingCondition = dataclasses.field(default_factory=StoppingCondition)
    polling: Polling = JOB_POLLING
    kms_key_arn: str | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret_arns: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    requirements: str | Path = "locked"
    usd_per_hour: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_rules(
            self,
            {
                "bucket": (BUCKET_NAME.fullmatch(self.bucket) is not None, "a bucket's name, without s3://"),
                "prefix": ("s3:" not in self.prefix.lower(), "a folder in the bucket, without s3://"),
                "stopping": (
                    self.compute.spot or self.stopping.max_wait_s == "auto",
                    "without max_wait_s, which is for spot machines, or compute must be Compute(spot=True)",
                ),
            },
            *environment_problems(self.environment, self.secret_arns),
            *credential_problems({"tags": self.tags}),
        )

    def launch(
        self,
        trainer: QLoRAFSDPTrainer,
        train: Sequence[Record],
        evaluation: Sequence[Record] | None = None,
        *,
        name: str | None = None,
        merge: MergeBase | None = "auto",
        wait: bool = True,
    ) -> TrainingJob:
        """Start the job, or find the one with the same content, whether it is running or finished.

        A job that failed or was stopped is started again under another name, and resumes from its newest checkpoint,
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
        draft = self._checked_draft(trainer, train, evaluation, merge, name)
        self._check_bucket()
        request = self._hashed_request(draft)
        job, next_name = newest_attempt(request["TrainingJobName"], self._job)
        status = job.status if job else None
        if job is None or status in ("Failed", "Stopped"):
            self._start(draft, {**request, "TrainingJobName": next_name})
            job = self._job(next_name)
        return job.wait() if wait and status != "Completed" else job

    def dry_run(
        self,
        trainer: QLoRAFSDPTrainer,
        train: Sequence[Record],
        evaluation: Sequence[Record] | None = None,
        *,
        name: str | None = None,
        merge: MergeBase | None = "auto",
    ) -> CreateTrainingJobRequestTypeDef:
        """Return the CreateTrainingJob request of `launch`; nothing is sent, and no credentials are needed.

        Raises:
            ConfigError, RecordError, ModelError, MissingExtraError: as `launch`.
        """
        draft = self._checked_draft(trainer, train, evaluation, merge, name)
        request = self._hashed_request(draft)
        for note in draft.notes:
            logger.warning(note)
        return request

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
        instance_type, instances = self.compute.instance_type, self.compute.instance_count
        known = instance_type in INSTANCES
        plan = plan_run(
            train,
            evaluation,
            trainer.base_model,
            trainer.formatter,
            trainer.config,
            machines=Machines(
                instance_type=instance_type if known else None,
                gpu="auto" if known else "cpu",
                processes="auto" if known else instances,
                instances=instances,
                usd_per_hour=self.usd_per_hour.get(instance_type),
            ),
            s3=self._s3,
        )
        if not known and self.compute.processor == "gpu":
            note = f"{instance_type} is not in the table of instances: its memory and price are not checked"
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

    def _checked_draft(
        self,
        trainer: QLoRAFSDPTrainer,
        train: Sequence[Record],
        evaluation: Sequence[Record] | None,
        merge: MergeBase | None,
        name: str | None,
    ) -> JobDraft:
        """Check all that does not depend on the content of the inputs; nothing is hashed or sent."""
        for extra in ("aws", "train", "merge"):  # the job gets the versions that are installed here
            require(extra, "SageMakerLauncher")
        reporting = {"environment": self.environment, "secret_arns": self.secret_arns}
        if bad := trainer_problems(trainer, merge, compute=self.compute, **reporting):
            raise ConfigError(f"SageMakerLauncher: {'; '.join(bad)}")
        check_report_to(trainer.config.report_to, self.environment)
        train = as_records(train, "train")
        evaluation = None if evaluation is None else as_records(evaluation, "evaluation")
        inputs = gather(trainer, train, evaluation, merge, requirements=self.requirements)
        forecast = self.plan(trainer, train, evaluation)
        sagemaker = self._sagemaker()
        draft = JobDraft(
            name=name or "sqlquarry",
            image=image_for(sagemaker.meta.region_name, self.compute.processor) if self.image == "auto" else self.image,
            inputs=inputs,
            processes=processes_to_start(forecast, self.compute),
            notes=forecast.remarks,
        )
        # What the service would refuse does not depend on the digests, which take minutes for a large base.
        longest = last_name(draft.job_name(ANY_DIGEST))
        request = self._request(longest, draft.unhashed_files(self._place), draft.image)
        check_request(request, sagemaker.meta.service_model)
        return draft

    def _hashed_request(self, draft: JobDraft) -> CreateTrainingJobRequestTypeDef:
        """Return the request; the job's name is made of the content of all that it reads."""
        files = draft.hashed_files(self._place)
        # Processes do not change the name: if tokens are estimated, a later plan may start more.
        nameless = {**self._request("", files, draft.image)}
        del nameless["TrainingJobName"]
        content = hashlib.sha256(json.dumps(nameless, sort_keys=True).encode()).hexdigest()
        return self._request(draft.job_name(content), files, draft.image, draft.processes)

    def _request(
        self, name: str, files: JobFiles, image: str, processes: int | None = None
    ) -> CreateTrainingJobRequestTypeDef:
        return training_request(
            name,
            files,
            image=image,
            role_arn=self.role_arn,
            compute=self.compute,
            networking=self.networking,
            stopping=self.stopping,
            kms_key_arn=self.kms_key_arn,
            environment=job_environment(self.environment, self.secret_arns),
            tags=self.tags,
            has_hashes=self.requirements != WITHOUT_HASHES,
            processes=processes,
        )

    def _start(self, draft: JobDraft, request: CreateTrainingJobRequestTypeDef) -> None:
        """Send what S3 does not have yet, then start the job."""
        for note in draft.notes:
            logger.warning(note)
        staging = staging_prefix(self._s3(), self.bucket, self._folder, self.kms_key_arn)
        for channel in draft.inputs.channels:
            upload(staging, channel)
        start(self._sagemaker(), request, self.compute)
        machines = (self.compute.instance_count, self.compute.instance_type)
        logger.info("training job %s on %d x %s", request["TrainingJobName"], *machines)

    def _check_bucket(self) -> None:
        """Check that the bucket exists, may be used, and is in the job's region."""
        s3 = self._s3()
        with aws_errors(TrainingError, f"looking at the bucket {self.bucket}", service="sagemaker"):
            found = s3.head_bucket(Bucket=self.bucket)
        there, here = found.get("BucketRegion"), s3.meta.region_name
        if there and there != here:
            raise ConfigError(
                f"the bucket {self.bucket} is in {there}, but the job would run in {here}: use one region"
            )

    def _job(self, name: str) -> TrainingJob:
        return TrainingJob(
            name,
            sagemaker=self._sagemaker(),
            logs=aws_client("logs", self.session, attempts=_REQUEST_ATTEMPTS),
            usd_per_hour={**_PRICES, **self.usd_per_hour},
            polling=self.polling,
        )

    @property
    def _place(self) -> str:
        return f"s3://{self.bucket}/{self._folder}"

    @property
    def _folder(self) -> str:
        prefix = self.prefix.strip("/")
        return f"{prefix}/" if prefix else ""

    def _s3(self) -> S3Client:
        return aws_client("s3", self.session, attempts=_REQUEST_ATTEMPTS)

    def _sagemaker(self) -> SageMakerClient:
        return aws_client("sagemaker", self.session, attempts=_REQUEST_ATTEMPTS)
