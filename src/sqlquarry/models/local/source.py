"""Find and check the files of a local model: a directory, a copy of an S3 prefix, or an adapter and its base model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.aws.artifacts import fetch_model
from sqlquarry.checkpoints.adapter_tables import vocabulary_rows
from sqlquarry.checkpoints.foreign_model import refuse_foreign_code
from sqlquarry.checkpoints.model_files import check_model_files
from sqlquarry.errors import ConfigError, UnsupportedModelError
from sqlquarry.files.locations import S3Location, is_s3, located
from sqlquarry.files.metadata import read_object
from sqlquarry.manifests import base_digest
from sqlquarry.pretrained import load_tokenizer, reading_model
from sqlquarry.prompt import PromptFormatter
from sqlquarry.tokenizing.readings import trained_reading
from sqlquarry.tokenizing.special_ids import id_changes, token_ids
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    import boto3
    from transformers import PreTrainedTokenizerFast

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
        if self._own_tokenizer:
            self._require_rows()

    def load_tokenizer(self) -> PreTrainedTokenizerFast:
        """Load the adapter's own tokenizer, or that of the model if there is none.

        Raises:
            UnsupportedModelError: a file is missing or malformed.
        """
        with self._tokenizer_directory() as directory:
            return load_tokenizer(directory)

    def _require_rows(self) -> None:
        """Check that each token of the adapter's tokenizer has a row in the embeddings.

        Raises:
            UnsupportedModelError: there are more tokens than rows, or a file of the tokenizer is malformed.
        """
        with self._tokenizer_directory() as directory, reading_model(directory, "a valid tokenizer.json"):
            ids = token_ids(trained_reading(TokenizerFiles.in_directory(directory)))
            rows = self.resized_rows or read_object(self.directory / "config.json").get("vocab_size")
        assert self.adapter is not None  # noqa: S101 - it has a tokenizer
        if isinstance(rows, int) and (unknown := [text for text, id_ in ids.items() if id_ >= rows]):
            raise UnsupportedModelError(
                f"the tokenizer in {self.adapter.path} has {max(ids.values()) + 1} ids, but the embeddings have only "
                f"{rows} rows, so {unknown[0]!r:.80} has none. Save the adapter with its resized embeddings (PEFT: "
                "save_embedding_layers=True), or with the tokenizer of the training."
            )

    def stops(self, base_ids: object, rows: int) -> object:
        """Return the `eos_token_id` of the model with its tokenizer, as in a merged model.

        Args:
            base_ids: the `eos_token_id` of the base.
            rows: number of rows of the embeddings.
        """
        if not self._own_tokenizer:
            return base_ids
        with self._tokenizer_directory() as directory:
            own, base = TokenizerFiles.in_directory(directory), TokenizerFiles.in_directory(self.directory)
        return id_changes({"eos_token_id": base_ids}, rows, base, own).get("eos_token_id", base_ids)

    @property
    def resized_rows(self) -> int | None:
        """The number of rows of the adapter's embedding and head, or None if the adapter contains neither."""
        return vocabulary_rows(self.adapter.path / "adapter_model.safetensors") if self.adapter else None

    @property
    def _own_tokenizer(self) -> Mapping[str, Path]:
        return self.adapter.tokenizer_files if self.adapter else {}

    @contextmanager
    def _tokenizer_directory(self) -> Iterator[Path]:
        """Yield a directory with the tokenizer as in a merged model: the adapter's files with the base's config.json.

        transformers reads a tokenizer differently without the config.json.
        """
        if not self._own_tokenizer:
            yield self.directory
            return
        with TemporaryDirectory() as folder:
            for name, path in {**self._own_tokenizer, "config.json": self.directory / "config.json"}.items():
                shutil.copyfile(path, Path(folder) / name)
            yield Path(folder)


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
