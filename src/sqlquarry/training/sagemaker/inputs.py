"""What a job reads: records, base model, prompt, configuration, and the library itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlquarry.artifacts import Record
from sqlquarry.errors import RecordError
from sqlquarry.prompt import PROMPT_FILE
from sqlquarry.training.base_model import resolve_base_model
from sqlquarry.training.sagemaker import bootstrap, packaging
from sqlquarry.training.sagemaker.staging import Channel
from sqlquarry.training.trainer import QLoRAFSDPTrainer

# Many repositories carry the same weights again in another format; training reads safetensors.
_OTHER_WEIGHTS = {".bin", ".pth", ".pt", ".gguf", ".h5", ".msgpack", ".onnx"}
Base = Literal["auto", "original", "dequantized"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of a job.

    Args:
        channels: those that are sent.
        places: channel -> ``s3://`` prefix of those that lie on S3 already.
        learnt: SHA-256 (hex) of what the adapter depends on; the machines are no part of it.
    """

    channels: Sequence[Channel]
    places: Mapping[str, str]
    learnt: str


def gather(
    trainer: QLoRAFSDPTrainer,
    train: Sequence[Record],
    evaluation: Sequence[Record] | None,
    merge: Base | None,
    *,
    requirements: str | Path,
) -> Inputs:
    """The channels `train`, `evaluation` (optional), `model` (a base model that is no hub id), `job` and `code`.

    Raises:
        RecordError: there are no records, or some without SQL.
        UnsupportedModelError: the base model cannot be used.
        ConfigError: packages cannot be pinned or verified (see `packaging`).
    """
    channels = [Channel("train", {"train.jsonl": _lines(train, "train")})]
    if evaluation:
        channels.append(Channel("evaluation", {"evaluation.jsonl": _lines(evaluation, "evaluation")}))
    places = {}
    base = hub_id = str(trainer.base_model)
    if base.startswith("s3://"):
        places["model"] = f"{base.rstrip('/')}/"
        hub_id = ""
    elif not _is_hub_id(base):
        channels.append(Channel("model", {path.name: path for path in _files(resolve_base_model(base))}))
        base, hub_id = channels[-1].digest, ""
    formatter = trainer.formatter
    job = {
        "base_model": hub_id or None,
        "config": dataclasses.asdict(trainer.config),
        "merge": {"base": merge} if merge else None,
    }
    prompt = dataclasses.asdict(formatter) | {"fingerprint": formatter.fingerprint}
    channels.append(Channel("job", {"job.json": _json(job), PROMPT_FILE: _json(prompt)}))
    wheel, content = packaging.wheel()
    channels.append(
        Channel(
            "code",
            {
                "bootstrap.py": bootstrap_source(),
                "requirements.txt": packaging.job_requirements(requirements, trainer.config.report_to).encode(),
                wheel: content,
            },
        )
    )
    learnt = [base, formatter.fingerprint, channels[0].digest, trainer.config.identity]
    return Inputs(channels, places, hashlib.sha256(_json(learnt)).hexdigest())


def bootstrap_source() -> bytes:
    """Return the first program of the job."""
    return Path(bootstrap.__file__).read_bytes()


def _lines(records: Sequence[Record], what: str) -> bytes:
    without = [record.id or f"record {index}" for index, record in enumerate(records) if record.sql is None]
    if not records or without:
        problem = f"{len(without)} records have no sql: {', '.join(without[:5])}" if without else "there are none"
        raise RecordError(f"the records of {what!r} cannot be learnt from: {problem}")
    return "".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records).encode()


def _is_hub_id(base: str) -> bool:
    return base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).exists()


def _files(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.suffix not in _OTHER_WEIGHTS
    )


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
