"""A training job as data: what a YAML or JSON file says, read and checked as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlquarry.errors import ConfigError
from sqlquarry.files.metadata import MAX_DEPTH
from sqlquarry.files.writing import write_json
from sqlquarry.training.config import TrainingConfig

_NEEDED = ("base_model", "train", "output_dir")
_OPTIONAL = ("evaluation", "checkpoint_dir", "prompt")
_LARGEST_JOB_BYTES = 64 * 2**10  # the longest makes 1 KiB; YAML's reader takes a second for 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJobSpec:
    """What `QLoRAFSDPTrainer` and its `train` are to be called with, as texts that fit into a file.

    Args:
        base_model: a directory, a ``.gguf`` file, an ``s3://`` prefix or a Hugging Face id.
        train: anything that `load_records` reads.
        output_dir: receives the adapter.
        evaluation: records whose loss is reported.
        checkpoint_dir: a directory or ``s3://`` prefix for checkpoints; None puts them below `output_dir`.
        prompt: a directory that `PromptFormatter.save` wrote; None uses the published wording.
        config: see `TrainingConfig`.
    """

    base_model: str
    train: str
    output_dir: str
    evaluation: str | None = None
    checkpoint_dir: str | None = None
    prompt: str | None = None
    config: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def read(cls, path: Path) -> TrainingJobSpec:
        """Read a job from a YAML or JSON file.

        Raises:
            ConfigError: the file cannot be read, or has missing, unknown or bad fields; all are named.
        """
        import yaml

        try:
            with path.open("rb") as file:
                content = file.read(_LARGEST_JOB_BYTES + 1)
            _require_plain(content)
            fields: object = yaml.safe_load(content.decode())
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"the training job {path} cannot be read: {error}") from error
        return cls.of(fields, f"the training job {path}")

    @classmethod
    def of(cls, fields: object, source: str) -> TrainingJobSpec:
        """Make a job of what a file holds.

        Args:
            fields: what YAML or JSON made of the file.
            source: the file, for messages.

        Raises:
            ConfigError: fields are missing, unknown or bad; all are named.
        """
        if not isinstance(fields, Mapping):
            raise ConfigError(f"{source} holds {type(fields).__name__}, not fields: {', '.join(_NEEDED)}, …")
        if bad := [*_problems(fields)]:
            raise ConfigError(f"{source}: {'; '.join(bad)}")
        texts = {name: fields[name] for name in (*_NEEDED, *_OPTIONAL) if fields.get(name)}
        return cls(**texts, config=config_of(fields.get("config"), source))

    def write(self, path: Path) -> None:
        """Write the job as a JSON file that `read` reads."""
        write_json(path, dataclasses.asdict(self))


def config_of(options: object, source: str) -> TrainingConfig:
    """Make the configuration of a job from the fields that its file holds; None for the defaults.

    Raises:
        ConfigError: some cannot be used; all are named.
    """
    options = options or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{source}: config is {options!r:.80}, but must hold fields of TrainingConfig")
    bad = [f"config has {name!r:.80} for a name, but must have text" for name in options if not isinstance(name, str)]
    if bad:
        raise ConfigError(f"{source}: {'; '.join(bad)}")
    try:
        return TrainingConfig(**options)
    except ConfigError as error:
        raise ConfigError(f"{source}: config: {error}") from error


def _problems(fields: Mapping[object, object]) -> Iterator[str]:
    known = (*_NEEDED, *_OPTIONAL)
    yield from (f"{name} is missing" for name in _NEEDED if not fields.get(name))
    yield from (f"{name!r} is not a field" for name in fields if name not in (*known, "config"))
    for name in known:
        if fields.get(name) and not isinstance(fields[name], str):
            yield f"{name} is {fields[name]!r:.80}, but must be text"


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
