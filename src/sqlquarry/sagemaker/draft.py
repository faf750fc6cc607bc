"""A checked job whose inputs are not hashed yet, and the derivation of its name from its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from sqlquarry.sagemaker.container_job import MergeBase
from sqlquarry.sagemaker.environment import report_problems
from sqlquarry.sagemaker.inputs import Inputs, bootstrap_source
from sqlquarry.sagemaker.request import JobFiles
from sqlquarry.sagemaker.settings import Compute
from sqlquarry.sagemaker.staging import channel_key
from sqlquarry.training.planning.hardware import INSTANCES
from sqlquarry.training.planning.plan import TrainingPlan
from sqlquarry.training.trainer import QLoRAFSDPTrainer

ANY_DIGEST = "0" * 64  # stands for a digest that is not known yet


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDraft:
    """A checked job whose inputs are not hashed yet.

    Args:
        name: prefix of the job's name.
        image: URI of its container.
        inputs: the files that it reads.
        processes: number of processes on each machine. None starts one for each GPU.
        notes: remarks for the user before the job costs money.
    """

    name: str
    image: str
    inputs: Inputs
    processes: int | None
    notes: Sequence[str]

    def job_name(self, content_sha256: str) -> str:
        """Return the name of a job whose request has this SHA-256 (hex)."""
        return f"{self.name}-{content_sha256[:12]}"

    def hashed_files(self, place: str) -> JobFiles:
        """Hash the inputs, which takes minutes for a large base model, and return their locations below `place`."""
        return self._files(place, {one.name: one.digest for one in self.inputs.channels}, self.inputs.learnt)

    def unhashed_files(self, place: str) -> JobFiles:
        """Return the same locations with `ANY_DIGEST` instead of each digest."""
        return self._files(place, {one.name: ANY_DIGEST for one in self.inputs.channels}, ANY_DIGEST)

    def _files(self, place: str, digests: Mapping[str, str], learnt: str) -> JobFiles:
        sent = {name: place + channel_key(name, digest) for name, digest in digests.items()}
        return JobFiles(
            channels={**sent, **self.inputs.places},
            digests=digests,
            bootstrap_sha256=hashlib.sha256(bootstrap_source()).hexdigest(),
            checkpoints=f"{place}checkpoints/{learnt[:16]}",
            results=f"{place}jobs",
        )


def trainer_problems(
    trainer: QLoRAFSDPTrainer,
    merge: MergeBase | None,
    *,
    compute: Compute,
    environment: Mapping[str, str],
    secret_arns: Mapping[str, str],
) -> list[str]:
    """List the options of a trainer and a merge that cannot work in a job with these settings."""
    merges = (None, *get_args(MergeBase))
    problems = [] if merge in merges else [f"merge is {merge!r}, but must be one of {', '.join(map(repr, merges))}"]
    if trainer.callbacks:
        problems.append("the trainer has callbacks, which are objects of this process and cannot be sent to a job")
    device = trainer.config.device
    if device not in ("auto", {"gpu": "cuda", "cpu": "cpu"}[compute.processor]):
        problems.append(f"the trainer's device is {device!r}, but {compute.instance_type} has a {compute.processor}")
    return problems + report_problems(trainer.config.report_to, environment, secret_arns)


def processes_to_start(forecast: TrainingPlan, compute: Compute) -> int | None:
    """Return the number of processes per machine if a step has fewer rows than GPUs, otherwise None."""
    processes = forecast.processes // compute.instance_count
    instance = INSTANCES.get(compute.instance_type)
    return processes if instance and processes < instance.gpus else None
