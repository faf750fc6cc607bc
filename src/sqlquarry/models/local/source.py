"""Find and check the files of a local model: a directory, a copy of an S3 prefix, or an adapter and its base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.aws.artifacts import fetch_model
from sqlquarry.checkpoints.foreign_model import refuse_foreign_code
from sqlquarry.checkpoints.model_files import check_model_files
from sqlquarry.errors import ConfigError, UnsupportedModelError
from sqlquarry.files.locations import S3Location, is_s3, located
from sqlquarry.manifests import base_digest
from sqlquarry.prompt import PromptFormatter

if TYPE_CHECKING:
    import boto3

_BASE_ADVICE = "Pass the directory of the base model that it was trained on: LocalModel(adapter, base_model=…)."


@dataclass(frozen=True, slots=True)
class LocalModelSource:
    """The parts of a local model.

    Args:
        directory: the directory with config, tokenizer and safetensors.
        adapter: the adapter to apply to these weights, if there is one.
        formatter: the formatter for records, if there is one.
    """

    directory: Path
    adapter: AdapterCheckpoint | None = None
    formatter: PromptFormatter | None = None

    @classmethod
    def of(
        cls,
        model: str | Path | MergedModel | AdapterCheckpoint,
        *,
        formatter: PromptFormatter | None,
        base_model: str | Path | None,
        session: boto3.Session | None,
    ) -> LocalModelSource:
        """Find the files of a model. The arguments are those of `LocalModel`.

        Raises:
            ConfigError: `formatter` or `base_model` is given, but cannot be used with this kind of model.
            IncompleteArtifactError: the directory of the merged model or adapter contains no prompt.
            UnsupportedModelError: the adapter's base model is missing or has other content.
        """
        if formatter is not None and isinstance(model, MergedModel | AdapterCheckpoint):
            raise ConfigError("LocalModel: formatter is given, but the model has its own prompt. Leave it out.")
        if base_model is not None and not isinstance(model, AdapterCheckpoint):
            raise ConfigError("LocalModel: base_model is given, but only an AdapterCheckpoint has one. Leave it out.")
        if isinstance(model, AdapterCheckpoint):
            return cls(_base_of(model, base_model, session), model, PromptFormatter.load(model.path))
        if isinstance(model, MergedModel):
            directory = _local_copy(model.location, session)
            return cls(directory, formatter=PromptFormatter.load(directory))
        return cls(_local_copy(model, session), formatter=formatter)

    def check(self) -> None:
        """Check the files without loading weights.

        Raises:
            UnsupportedModelError: the files are not a model, are malformed, or would run code of their own.
        """
        if not (self.directory / "config.json").is_file():
            is_adapter = (self.directory / "adapter_config.json").is_file()
            advice = ". Open an adapter with AdapterCheckpoint.load(…)" if is_adapter else ""
            raise UnsupportedModelError(f"{self.directory} has no config.json, so it is not a model directory{advice}")
        if not any(self.directory.glob("*.safetensors")):
            raise UnsupportedModelError(
                f"{self.directory} has no *.safetensors, and pickled weights are not safe to load. Save the model "
                "again as safetensors."
            )
        for directory in (self.directory, *([self.adapter.path] if self.adapter else ())):
            refuse_foreign_code(directory)
        check_model_files(self.directory)
        if self.adapter and not (self.adapter.path / "adapter_model.safetensors").is_file():
            # PEFT would unpickle a .bin.
            raise UnsupportedModelError(
                f"{self.adapter.path} has no adapter_model.safetensors. Train the adapter again."
            )


def _local_copy(location: str | Path | S3Location, session: boto3.Session | None) -> Path:
    """Return the directory of a model. Copy a model on S3 to ``~/.cache/sqlquarry`` unless it is there already.

    Raises:
        UnsupportedModelError: the S3 prefix cannot be read.
    """
    found = located(location)
    return fetch_model(found, UnsupportedModelError, session=session) if isinstance(found, S3Location) else found


def _base_of(adapter: AdapterCheckpoint, base_model: str | Path | None, session: boto3.Session | None) -> Path:
    """Return the directory of the adapter's base model. If `base_model` is None, use the location from training.

    Raises:
        UnsupportedModelError: the base model is missing or has other content.
    """
    location = adapter.base_model_path if base_model is None else base_model
    if base_model is None and is_s3(adapter.base_model) and not adapter.base_model_path.exists():
        location = adapter.base_model
    base = _local_copy(location, session)
    if not base.is_dir():
        raise UnsupportedModelError(f"the base model of the adapter in {adapter.path} is not at {base}. {_BASE_ADVICE}")
    origin = adapter.manifest.provenance.get("base_model")
    trained_on = str(origin.get("sha256")) if isinstance(origin, Mapping) else "unknown"
    if base_model is not None and (found := base_digest(base)) != trained_on:
        raise UnsupportedModelError(
            f"the base model at {base} (SHA-256 {found[:12]}…) is not the one that the adapter in {adapter.path} was "
            f"trained on ({trained_on[:12]}…, {adapter.base_model}). {_BASE_ADVICE}"
        )
    return base
