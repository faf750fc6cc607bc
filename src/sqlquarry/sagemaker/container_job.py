"""The file job.json, which the launcher writes and the job's container reads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sqlquarry.errors import ConfigError
from sqlquarry.files.metadata import json_bytes, read_object
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.job import TrainingJobSpec, config_of

MergeBase = Literal["auto", "original", "dequantized"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerJob:
    """The part of a job that does not follow from the container's layout.

    Args:
        base_model: a hub id, or None if the base model is in the channel `model`.
        config: see `TrainingConfig`.
        merge: the weights to merge into (see `AdapterMerger`), or None for no merge.
    """

    base_model: str | None
    config: TrainingConfig
    merge: MergeBase | None

    def to_json(self) -> bytes:
        """Return the content of job.json."""
        fields = dataclasses.asdict(self) | {"merge": {"base": self.merge} if self.merge else None}
        return json_bytes(fields)

    @classmethod
    def read(cls, path: Path) -> ContainerJob:
        """Read job.json.

        Raises:
            ConfigError: the file cannot be read, or has unknown or invalid fields.
        """
        source = f"the job {path}"
        try:
            fields = read_object(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{source} cannot be read: {error}") from error
        base, merge = fields.get("base_model"), fields.get("merge")
        chosen = merge.get("base", "auto") if isinstance(merge, dict) else merge
        bad = [f"{name!r} is not a field" for name in fields if name not in ("base_model", "config", "merge")]
        if not isinstance(base, str | None):
            bad.append(f"base_model is {base!r:.80}, but must be text")
        if chosen is not None and chosen not in get_args(MergeBase):
            bad.append(f"merge is {merge!r:.80}, but its base must be one of {', '.join(get_args(MergeBase))}")
        if bad:
            raise ConfigError(f"{source}: {'; '.join(bad)}")
        return cls(base_model=base, config=config_of(fields.get("config"), source), merge=chosen)

    def spec(self, root: Path, *, base_model: str, prompt: Path) -> TrainingJobSpec:
        """Return the training job with the container's paths for inputs and results.

        Args:
            root: ``/opt/ml``.
            base_model: a directory or hub id.
            prompt: the directory of ``prompt.json``.

        Raises:
            ConfigError: there is no base model, or a channel does not contain exactly one file of records.
        """
        channels = root / "input" / "data"
        evaluation = channels / "evaluation"
        if not base_model:
            raise ConfigError(f"the job has neither a base_model nor a channel {channels / 'model'}")
        return TrainingJobSpec(
            base_model=base_model,
            train=str(only_file(channels / "train")),
            evaluation=str(only_file(evaluation)) if evaluation.is_dir() else None,
            prompt=str(prompt),
            output_dir=str(root / "model" / "adapter"),
            checkpoint_dir=str(root / "checkpoints"),
            config=self.config,
        )


def only_file(channel: Path) -> Path:
    """Return the only file of a channel.

    Raises:
        ConfigError: the channel contains no file or several.
    """
    files = sorted(path for path in channel.iterdir() if path.is_file()) if channel.is_dir() else []
    if len(files) != 1:
        raise ConfigError(f"the channel {channel} must contain one file of records, but contains {len(files)}")
    return files[0]
