"""A training job as a file: read, checked as a whole, and run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ConfigError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.trainer import QLoRAFSDPTrainer

_NEEDED = ("base_model", "train", "output_dir")
_OPTIONAL = ("evaluation", "checkpoint_dir", "prompt", "config")


def run_job(path: Path) -> AdapterCheckpoint:
    """Train as the file (YAML or JSON) says; its fields stand in `sqlquarry.training.__main__`.

    Raises:
        ConfigError: the file cannot be read, or has missing, unknown or bad fields; all are named.
        SQLQuarryError: as `QLoRAFSDPTrainer.train`.
    """
    import yaml

    # Through the front door: phases do not import each other, and this file is where a user wires them.
    from sqlquarry import load_records

    try:
        job = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"the training job {path} cannot be read: {error}") from error
    if not isinstance(job, Mapping):
        raise ConfigError(f"the training job {path} holds {type(job).__name__}, not fields: {', '.join(_NEEDED)}, …")
    bad = [f"{name} is missing" for name in _NEEDED if not job.get(name)]
    bad += [f"{name} is no field" for name in job if name not in (*_NEEDED, *_OPTIONAL)]
    options = dict(job.get("config") or {})
    known = {field.name for field in dataclasses.fields(TrainingConfig)}
    bad += [f"config.{name} is no field of TrainingConfig" for name in options if name not in known]
    if bad:
        raise ConfigError(f"the training job {path}: {'; '.join(bad)}")
    options |= {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    trainer = QLoRAFSDPTrainer(
        job["base_model"],
        PromptFormatter.load(job["prompt"]) if job.get("prompt") else None,
        TrainingConfig(**options),
    )
    return trainer.train(
        load_records(job["train"]),
        load_records(job["evaluation"]) if job.get("evaluation") else None,
        output_dir=job["output_dir"],
        checkpoint_dir=job.get("checkpoint_dir"),
    )
