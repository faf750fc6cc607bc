"""Start SageMaker training jobs that train and merge with the same trainer and records."""

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

# Option names of the SageMaker Python SDK, for "did you mean" hints.
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
    """Starts training jobs on SageMaker, on machines that exist only while a job runs.

    Before it sends anything, it checks the complete job on this machine, which needs the extras aws, train and merge.
    Nothing is sent twice, because the job's name is derived from the content of all inputs.

    Args:
        role_arn: the job's role. sagemaker.amazonaws.com must be allowed to assume it.
        bucket: the bucket for inputs, checkpoints and results, in the job's region.
        prefix: the folder in the bucket.
        session: a boto3 session with the job's region. None uses the default credentials.
        image: URI of the container. "auto" chooses an AWS Deep Learning Container that fits the installed torch.
        compute: the machines.
        networking: the VPC that the job runs in. None uses SageMaker's own network.
        stopping: the job's time limits.
        polling: how often to look at a running job, and how long `TrainingJob.wait` waits for its end.
        kms_key_arn: the key for the volume, the inputs and the results. None uses keys that AWS owns.
        tags: the job's tags.
        environment: settings of the job's process, such as WANDB_PROJECT or MLFLOW_TRACKING_URI. Secrets are refused,
            because everybody who may describe the job can read them.
        secret_arns: environment variable -> ARN of the Secrets Manager secret with its value, such as HF_TOKEN (gated
            models) or WANDB_API_KEY. The job gets only the ARNs. pip's variables, such as PIP_INDEX_URL with the
            password of a private index, are used only for the installation (the image needs boto3).
        requirements: the packages that the job installs in addition to this library. "locked" installs the versions
            that this release was tested with, verified by SHA-256. A path is your own requirements file with ``==`` and
            ``--hash`` for every package. "without-hashes" pins the locally installed versions and trusts the package
            index.
        usd_per_hour: instance type -> US dollars per hour, for `TrainingJob.cost_usd`. Other types have the prices in
            `hardware`, which are approximate and for us-east-1.

    Raises:
        ConfigError: options are invalid (all are listed).
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
                "bucket": (BUCKET_NAME.fullmatch(self.bucket) is not None, "a bucket name without s3://"),
                "prefix": ("s3:" not in self.prefix.lower(), "a folder in the bucket without s3://"),
                "stopping": (
                    self.compute.spot or self.stopping.max_wait_s == "auto",
                    "a StoppingCondition without max_wait_s, unless compute is Compute(spot=True)",
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
        """Start a job, or return the running or finished job with the same content.

        A job that failed or was stopped is started again with another name. It resumes from its newest checkpoint, even
        on another instance type.

        Args:
            trainer: base model, prompt and configuration. Before anything is hashed or sent, it is checked in the same
                way as in the job. A local base model is then uploaded to S3 once.
            train: records with SQL.
            evaluation: records whose loss is reported after each epoch.
            name: prefix of the job's name. A part derived from the content follows.
            merge: the weights that the adapter is merged into (see `AdapterMerger`). None means no merge.
            wait: follow the job to its end (see `TrainingJob.wait`).

        Raises:
            MissingExtraError: an extra is not installed.
            ConfigError: the service would refuse an option, or the run cannot work (see `check_run`).
            RecordError: there are no records, some have no SQL, or some are longer than a row.
            DeviceError: the machine's GPUs lack memory or do not support bfloat16.
            ModelError: the base model cannot be used or reached.
            TrainingError: AWS refused a request (the message names the missing quota or permission), or with `wait`,
                the job failed.
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
        """Return the CreateTrainingJob request of `launch` without sending anything. This needs no credentials.

        Raises:
            ConfigError, RecordError, ModelError, MissingExtraError: as in `launch`.
        """
        draft = self._checked_draft(trainer, train, evaluation, merge, name)
        request = self._hashed_request(draft)
        for note in draft.notes:
            logger.warning(note)
        return request

    def plan(
        self, trainer: QLoRAFSDPTrainer, train: Sequence[Record], evaluation: Sequence[Record] | None = None
    ) -> TrainingPlan:
        """Forecast the steps, memory, time and price of a job on these machines, with the same checks as in the job.

        Each machine starts a process for each GPU, but not more than a step has rows. For CPUs and for instance types
        that are not in the library's table, only checks that do not depend on the machine are made.

        Raises:
            RecordError, ConfigError, DeviceError, ModelError: as in `QLoRAFSDPTrainer.plan`.
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
            note = (
                f"the memory and price of {instance_type} are not checked, because it is not in the table of instances"
            )
            return dataclasses.replace(plan, notes=(*plan.notes, note))
        return plan

    def attach(self, name: str) -> TrainingJob:
        """Return a job of the account, to wait for it, stop it, or get its results.

        Raises:
            TrainingError: the job does not exist, or a request to AWS failed.
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
        """Check everything that does not depend on the content of the inputs, without hashing or sending anything."""
        for extra in ("aws", "train", "merge"):  # with "without-hashes", the job gets their installed versions
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
        # The service's rules do not depend on the digests, which take minutes for a large base model.
        longest = last_name(draft.job_name(ANY_DIGEST))
        request = self._request(longest, draft.unhashed_files(self._place), draft.image)
        check_request(request, sagemaker.meta.service_model)
        return draft

    def _hashed_request(self, draft: JobDraft) -> CreateTrainingJobRequestTypeDef:
        """Return the request. The job's name is derived from the content of all inputs."""
        files = draft.hashed_files(self._place)
        # The name does not depend on processes, because a later plan may start more if tokens are estimated.
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
        """Send the inputs that are not on S3 yet, then start the job."""
        for note in draft.notes:
            logger.warning(note)
        staging = staging_prefix(self._s3(), self.bucket, self._folder, self.kms_key_arn)
        for channel in draft.inputs.channels:
            upload(staging, channel)
        start(self._sagemaker(), request, self.compute)
        machines = (self.compute.instance_count, self.compute.instance_type)
        logger.info("training job %s on %d x %s", request["TrainingJobName"], *machines)

    def _check_bucket(self) -> None:
        """Check that the bucket exists, is accessible, and is in the job's region."""
        s3 = self._s3()
        with aws_errors(TrainingError, f"looking at the bucket {self.bucket}", service="sagemaker"):
            found = s3.head_bucket(Bucket=self.bucket)
        there, here = found.get("BucketRegion"), s3.meta.region_name
        if there and there != here:
            raise ConfigError(
                f"the bucket {self.bucket} is in {there}, but the job would run in {here}. Use one region for both."
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
