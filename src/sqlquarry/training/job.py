"""A training job as data, loaded from a YAML or JSON file and checked."""

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
_LARGEST_JOB_BYTES = 64 * 2**10  # A job takes about 1 KiB. PyYAML needs a second for 200 KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJobSpec:
    """The arguments of `QLoRAFSDPTrainer` and its `train` as text that can be written to a file.

    Args:
        base_model: a directory, a ``.gguf`` file, an ``s3://`` prefix or a Hugging Face id.
        train: anything that `load_records` loads.
        output_dir: the directory for the adapter.
        evaluation: records whose loss is reported.
        checkpoint_dir: a directory or ``s3://`` prefix for checkpoints. None stores them below `output_dir`.
        prompt: a directory that `PromptFormatter.save` wrote. None uses the published wording.
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
            ConfigError: the file cannot be read, or fields are missing, unknown or invalid. The message lists them all.
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
        """Return the job with the fields of a file.

        Args:
            fields: the parsed content of the file.
            source: the file, for messages.

        Raises:
            ConfigError: fields are missing, unknown or invalid. The message lists them all.
        """
        if not isinstance(fields, Mapping):
            raise ConfigError(
                f"{source} contains {type(fields).__name__}, but needs the fields {', '.join(_NEEDED)}, …"
            )
        if bad := [*_problems(fields)]:
            raise ConfigError(f"{source}: {'; '.join(bad)}")
        texts = {name: fields[name] for name in (*_NEEDED, *_OPTIONAL) if fields.get(name)}
        return cls(**texts, config=config_of(fields.get("config"), source))

    def write(self, path: Path) -> None:
        """Write the job as a JSON file for `read`."""
        write_json(path, dataclasses.asdict(self))


def config_of(options: object, source: str) -> TrainingConfig:
    """Return the configuration of a job with the fields of its file. None gives the defaults.

    Raises:
        ConfigError: fields are unknown or invalid. The message lists them all.
    """
    options = options or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{source}: config is {options!r:.80}, but must contain fields of TrainingConfig")
    bad = [
        f"{name!r:.80} in config is not text, so it cannot be a name" for name in options if not isinstance(name, str)
    ]
    if bad:
        raise ConfigError(f"{source}: {'; '.join(bad)}")
    try:
        return TrainingConfig(**options)
    except ConfigError as error:
        raise ConfigError(f"{source}: config: {error}") from error


def _problems(fields: Mapping[object, object]) -> Iterator[str]:
    known = (*_NEEDED, *_OPTIONAL)
    allowed = (*known, "config")
    yield from (f"{name} is missing" for name in _NEEDED if not fields.get(name))
    yield from (f"{name!r} is not one of the fields {', '.join(allowed)}" for name in fields if name not in allowed)
    for name in known:
        if fields.get(name) and not isinstance(fields[name], str):
            yield f"{name} is {fields[name]!r:.80}, but must be text"


def _require_plain(content: bytes) -> None:
    """Check a YAML file before it is loaded. Aliases are refused, because they can make it much larger than it looks.

    Raises:
        ValueError: the file is too long or too deeply nested, or uses aliases.
    """
    import yaml

    if len(content) > _LARGEST_JOB_BYTES:
        raise ValueError(f"it has more than {_LARGEST_JOB_BYTES:,} bytes")
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it uses the alias *{event.anchor}. Repeat the value instead")  # noqa: TRY004 - one error for a bad file
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
