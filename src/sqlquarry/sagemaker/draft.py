"""A job that was checked but not hashed: what it will read, and how it follows from that what it will be called."""

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

ANY_DIGEST = "0" * 64  # in the place of a digest that is not known yet


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDraft:
    """A job that was checked, and whose inputs are not hashed yet.

    Args:
        name: beginning of the job's name.
        image: URI of its container.
        inputs: what it reads.
        processes: number of processes on each machine; None starts one for each of its GPUs.
        notes: what is worth knowing before the job is paid for.
    """

    name: str
    image: str
    inputs: Inputs
    processes: int | None
    notes: Sequence[str]

    def job_name(self, content_sha256: str) -> str:
        """Return the job's name if its request has this SHA-256 (hex)."""
        return f"{self.name}-{content_sha256[:12]}"

    def hashed_files(self, place: str) -> JobFiles:
        """Hash the inputs, which takes minutes for a large base model, and return where they are below `place`."""
        return self._files(place, {one.name: one.digest for one in self.inputs.channels}, self.inputs.learnt)

    def unhashed_files(self, place: str) -> JobFiles:
        """Return the same with `ANY_DIGEST` in the place of each digest."""
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
    """Return what of a trainer and a merge cannot work in a job with these settings."""
    merges = (None, *get_args(MergeBase))
    problems = [] if merge in merges else [f"merge is {merge!r}, but must be one of {', '.join(map(repr, merges))}"]
    device = trainer.config.device
    if device not in ("auto", {"gpu": "cuda", "cpu": "cpu"}[compute.processor]):
        problems.append(f"the trainer's device is {device!r}, but {compute.instance_type} has a {compute.processor}")
    return problems + report_problems(trainer.config.report_to, environment, secret_arns)


def processes_to_start(forecast: TrainingPlan, compute: Compute) -> int | None:
    """Return how many processes each machine starts, if a step has no rows for all of its GPUs; None if it has."""
    processes = forecast.processes // compute.instance_count
    instance = INSTANCES.get(compute.instance_type)
    return processes if instance and processes < instance.gpus else None
