"""The artifacts that phases exchange: adapters and merged models, each with a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from sqlquarry.aws.artifacts import opened
from sqlquarry.errors import ArtifactError, CorruptArtifactError
from sqlquarry.files.locations import S3Location, local_path, located
from sqlquarry.manifests import MANIFEST, Manifest, read_manifest
from sqlquarry.provenance import MergeSummary, TrainingRun, read_part
from sqlquarry.tokenizing.tokenizer_files import is_tokenizer_file

if TYPE_CHECKING:
    import boto3

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class _DirectoryArtifact:
    location: Path | S3Location
    manifest: Manifest
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", located(self.location))

    @classmethod
    def load(cls, directory: str | Path, *, verify: bool = False, session: boto3.Session | None = None) -> Self:
        """Open a finished artifact in a directory or under ``s3://bucket/prefix``.

        Args:
            directory: the directory or S3 prefix. An adapter on S3 is copied to ``~/.cache/sqlquarry`` and verified.
            verify: compare every file with its SHA-256. By default only names and sizes are checked.
            session: the boto3 session for S3. None uses the default credentials.

        Raises:
            ArtifactError: the stage that writes it did not finish, a file is missing or changed, or S3 refuses access.
        """
        location = located(directory)
        if isinstance(location, Path):
            return cls(location, read_manifest(location, cls.kind, verify=verify))
        return cls(*opened(location, cls.kind, verify=verify, session=session))

    @property
    def path(self) -> Path:
        """Local directory of the artifact.

        Raises:
            ConfigError: the artifact is on S3.
        """
        return local_path(self.location, f"the {self.kind}")

    @property
    def uri(self) -> str:
        """Location of the artifact as text: ``s3://bucket/prefix`` or a local path."""
        return str(self.location)

    @property
    def prompt_fingerprint(self) -> str:
        """Fingerprint of the prompt that the weights were trained with."""
        return self._origin("prompt_fingerprint")

    def _origin(self, *keys: str) -> str:
        """Return the text at `keys` in the provenance.

        Raises:
            CorruptArtifactError: the value is missing or not text.
        """
        value: object = self.manifest.provenance
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            raise CorruptArtifactError(
                f"{self.uri}/{MANIFEST} has no {'.'.join(keys)} in its provenance. Create the {self.kind} again."
            )
        return value

    def _part(self, key: str, kind: type[_Part]) -> _Part:
        """Return the part of the provenance at `key` as an object of class `kind`.

        Raises:
            CorruptArtifactError: the part is missing or does not have the fields of `kind`.
        """
        try:
            return read_part(kind, self.manifest.provenance.get(key))
        except ValueError as error:
            raise CorruptArtifactError(
                f"{self.uri}/{MANIFEST} has no usable {key!r} in its provenance ({error}). Another version may have "
                f"written it. Create the {self.kind} again with this version."
            ) from error


@dataclass(frozen=True, slots=True)
class AdapterCheckpoint(_DirectoryArtifact):
    """A finished LoRA adapter: PEFT's two files, the prompt, a manifest, and a tokenizer if it has its own.

    Args:
        location: the directory.
        manifest: its files and their provenance.
    """

    kind: ClassVar[str] = "adapter"

    @property
    def base_model(self) -> str:
        """Path or hub id of the base model."""
        return self._origin("base_model", "name")

    @property
    def base_model_path(self) -> Path:
        """Path of the base model on the machine that trained the adapter."""
        return Path(self._origin("base_model", "path"))

    @property
    def tokenizer_files(self) -> Mapping[str, Path]:
        """Name -> path of the files of the adapter's own tokenizer, or {} if it uses the tokenizer of the base.

        Raises:
            CorruptArtifactError: some files of a tokenizer are here, but no tokenizer.json.
        """
        names = sorted(filter(is_tokenizer_file, self.manifest.files))
        if names and "tokenizer.json" not in names:
            raise CorruptArtifactError(
                f"{self.uri} has {names[0]}, but no tokenizer.json. Save the complete tokenizer with the adapter."
            )
        return {name: self.path / name for name in names}

    @property
    def run(self) -> TrainingRun:
        """Metrics of the training run: records, steps, loss, time and memory.

        Raises:
            ArtifactError: the adapter was adopted, so it has no training run, or the manifest does not contain one.
        """
        if "adopted" in self.manifest.provenance:
            raise ArtifactError(
                f"the adapter in {self.uri} was trained elsewhere and adopted, so it has no training run. Read the "
                "metrics in the output of the tool that trained it."
            )
        return self._part("run", TrainingRun)


@dataclass(frozen=True, slots=True)
class MergedModel(_DirectoryArtifact):
    """A finished full model: safetensors, tokenizer and config, the prompt and a manifest.

    Args:
        location: the directory or S3 prefix.
        manifest: its files and their provenance.
    """

    kind: ClassVar[str] = "merged-model"

    @property
    def merge(self) -> MergeSummary:
        """Summary of the merge.

        Raises:
            CorruptArtifactError: the manifest has no summary. `package_base` and `adopt_model` merge nothing, so they
                write none.
        """
        return self._part("merge", MergeSummary)

    @property
    def exported_from(self) -> str | None:
        """Digest of the merged model that this Bedrock export was made from, or None if this is not an export."""
        origin = self.manifest.provenance.get("exported_from")
        return origin if isinstance(origin, str) else None
