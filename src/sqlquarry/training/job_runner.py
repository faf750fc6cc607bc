"""Run a training job: load its records and prompt, and train."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.prompt import DEFAULT_FORMATTER, PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training.job import TrainingJobSpec
from sqlquarry.training.trainer import QLoRAFSDPTrainer


def run_job(job: TrainingJobSpec, load_records: Callable[[str], Iterable[Record]]) -> AdapterCheckpoint:
    """Train the adapter that a job describes.

    Args:
        job: the job.
        load_records: loads the records. The program that runs the job passes this function, because `training` does
            not import `data`.

    Raises:
        SQLQuarryError: as `load_records` and `QLoRAFSDPTrainer.train`.
    """
    formatter = PromptFormatter.load(job.prompt) if job.prompt else DEFAULT_FORMATTER
    trainer = QLoRAFSDPTrainer(job.base_model, formatter=formatter, config=job.config)
    return trainer.train(
        load_records(job.train),
        load_records(job.evaluation) if job.evaluation else None,
        output_dir=job.output_dir,
        checkpoint_dir=job.checkpoint_dir,
    )
