"""Collect the inputs of a job: records, base model, prompt, configuration, and the library itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.errors import RecordError
from sqlquarry.files.locations import is_hub_id
from sqlquarry.files.metadata import json_bytes
from sqlquarry.prompt import PROMPT_FILE
from sqlquarry.records import Record, json_lines
from sqlquarry.sagemaker import bootstrap, packaging
from sqlquarry.sagemaker.container_job import ContainerJob, MergeBase
from sqlquarry.sagemaker.staging import Channel
from sqlquarry.training.base.base_model import resolve_base_model
from sqlquarry.training.trainer import QLoRAFSDPTrainer

# Many repositories contain the same weights in other formats too, but training reads only safetensors.
_OTHER_WEIGHTS = {".bin", ".pth", ".pt", ".gguf", ".h5", ".msgpack", ".onnx"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of a job.

    Args:
        channels: the channels that are sent, beginning with the training records.
        places: channel -> ``s3://`` prefix of the channels that are already on S3.
        base: the base model's hub id or ``s3://`` prefix, or the channel that contains it.
        prompt_fingerprint: the formatter's fingerprint.
        config: `TrainingConfig.identity`.
    """

    channels: Sequence[Channel]
    places: Mapping[str, str]
    base: str | Channel
    prompt_fingerprint: str
    config: Mapping[str, object]

    @property
    def learnt(self) -> str:
        """SHA-256 (hex) of all that determines the adapter, except the machines. Reads all local weights."""
        base = self.base if isinstance(self.base, str) else self.base.digest
        return hashlib.sha256(
            json_bytes([base, self.prompt_fingerprint, self.channels[0].digest, self.config])
        ).hexdigest()


def gather(
    trainer: QLoRAFSDPTrainer,
    train: Sequence[Record],
    evaluation: Sequence[Record] | None,
    merge: MergeBase | None,
    *,
    requirements: str | Path,
) -> Inputs:
    """Collect the channels `train`, `evaluation` (optional), `model` (a base model without a hub id), `job` and `code`.

    Nothing is hashed yet, because the base model may have many gigabytes.

    Raises:
        RecordError: there are no records, or some have no SQL.
        UnsupportedModelError: the base model cannot be used.
        ConfigError: packages cannot be pinned or verified (see `packaging`).
    """
    channels = [Channel("train", {"train.jsonl": _lines(train, "train")})]
    if evaluation:
        channels.append(Channel("evaluation", {"evaluation.jsonl": _lines(evaluation, "evaluation")}))
    places: dict[str, str] = {}
    name = str(trainer.base_model)
    base: str | Channel = name
    if name.startswith("s3://"):
        places["model"] = f"{name.rstrip('/')}/"
    elif not is_hub_id(name):
        base = Channel("model", {path.name: path for path in _files(resolve_base_model(name))})
        channels.append(base)
    formatter = trainer.formatter
    job = ContainerJob(base_model=name if is_hub_id(name) else None, config=trainer.config, merge=merge)
    channels.append(Channel("job", {"job.json": job.to_json(), PROMPT_FILE: formatter.to_json()}))
    extras = ("trl",) if trainer.config.backend == "trl" else ()
    needed = packaging.job_requirements(requirements, trainer.config.report_to, extras)
    wheel, content = packaging.wheel()
    channels.append(
        Channel(
            "code",
            {
                "bootstrap.py": bootstrap_source(),
                "requirements.txt": needed.encode(),
                wheel: content,
            },
        )
    )
    return Inputs(channels, places, base, formatter.fingerprint, trainer.config.identity)


def bootstrap_source() -> bytes:
    """Return the source code of the job's first program."""
    return Path(bootstrap.__file__).read_bytes()


def _lines(records: Sequence[Record], what: str) -> bytes:
    without = [record.id or f"record {index}" for index, record in enumerate(records) if record.sql is None]
    if not records or without:
        problem = f"{len(without)} records have no sql: {', '.join(without[:5])}" if without else "there are none"
        raise RecordError(f"the records of {what!r} cannot be used for training: {problem}")
    return json_lines(records).encode()


def _files(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.suffix not in _OTHER_WEIGHTS
    )
