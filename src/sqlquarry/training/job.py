"""A training job as a file: read, checked as a whole, and run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ConfigError
from sqlquarry.files.metadata import MAX_DEPTH
from sqlquarry.prompt import PromptFormatter
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.trainer import QLoRAFSDPTrainer

_NEEDED = ("base_model", "train", "output_dir")
_OPTIONAL = ("evaluation", "checkpoint_dir", "prompt", "config")
_LARGEST_JOB_BYTES = 64 * 2**10  # the longest makes 1 KiB; YAML's reader takes a second for 200


def run_job(path: Path) -> AdapterCheckpoint:
    """Train as the file (YAML or JSON) says; its fields stand in `sqlquarry.training.__main__`.

    Raises:
        ConfigError: the file cannot be read, or has missing, unknown or bad fields; all are named.
        SQLQuarryError: as `QLoRAFSDPTrainer.train`.
    """
    return train_as(*read_job(path))


def train_as(job: Mapping[str, str], config: TrainingConfig) -> AdapterCheckpoint:
    """Train as a job says that `read_job` has read.

    Raises:
        SQLQuarryError: as `QLoRAFSDPTrainer.train`.
    """
    # Through the front door: phases do not import each other, and this file is where a user wires them.
    from sqlquarry import load_records

    trainer = QLoRAFSDPTrainer(
        job["base_model"], PromptFormatter.load(job["prompt"]) if job.get("prompt") else None, config
    )
    return trainer.train(
        load_records(job["train"]),
        load_records(job["evaluation"]) if job.get("evaluation") else None,
        output_dir=job["output_dir"],
        checkpoint_dir=job.get("checkpoint_dir"),
    )


def read_job(path: Path) -> tuple[Mapping[str, str], TrainingConfig]:
    """Read a training job; its fields other than `config`, which are all texts, and the configuration.

    Raises:
        ConfigError: the file cannot be read, or has missing, unknown or bad fields; all are named.
    """
    import yaml

    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_JOB_BYTES + 1)
        _require_plain(content)
        job = yaml.safe_load(content.decode())
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"the training job {path} cannot be read: {error}") from error
    if not isinstance(job, Mapping):
        raise ConfigError(f"the training job {path} holds {type(job).__name__}, not fields: {', '.join(_NEEDED)}, …")
    bad = [f"{name} is missing" for name in _NEEDED if not job.get(name)]
    bad += [f"{name!r} is not a field" for name in job if name not in (*_NEEDED, *_OPTIONAL)]
    bad += [
        f"{name} is {job[name]!r:.80}, but must be text"
        for name in (*_NEEDED, *_OPTIONAL)
        if name != "config" and job.get(name) and not isinstance(job[name], str)
    ]
    options = job.get("config") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"the training job {path}: config is {options!r:.80}, but must hold fields of TrainingConfig")
    bad += [f"config has {name!r:.80} for a name, but must have text" for name in options if not isinstance(name, str)]
    if bad:
        raise ConfigError(f"the training job {path}: {'; '.join(bad)}")
    try:
        return {name: job[name] for name in job if name != "config"}, TrainingConfig(**options)
    except ConfigError as error:
        raise ConfigError(f"the training job {path}: config: {error}") from error


def _require_plain(content: bytes) -> None:
    """Refuse YAML that is larger than it looks (aliases repeat what they name), before it is built.

    Raises:
        ValueError: it is too long or too deep, or uses aliases.
    """
    import yaml

    if len(content) > _LARGEST_JOB_BYTES:
        raise ValueError(f"it has more than {_LARGEST_JOB_BYTES:,} bytes")
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it uses the alias *{event.anchor}; write the value again instead")  # noqa: TRY004 - one error for a bad file
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
