"""Define the artifacts that pass between phases: adapters and merged models with their manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from sqlquarry.aws.artifacts import opened
from sqlquarry.errors import CorruptArtifactError
from sqlquarry.files.locations import S3Location, local_path, located
from sqlquarry.manifests import MANIFEST, Manifest, read_manifest
from sqlquarry.provenance import MergeSummary, TrainingRun, read_part

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
        """Open what is finished in a directory or below ``s3://bucket/prefix``.

        Args:
            directory: where it is; an adapter on S3 is copied to ``~/.cache/sqlquarry`` and verified.
            verify: compare every file with its SHA-256; else only names and sizes.
            session: the boto3 session for S3; None uses the default credentials.

        Raises:
            ArtifactError: the stage that writes it did not finish, a file is missing or changed, or S3 refuses.
        """
        place = located(directory)
        if isinstance(place, Path):
            return cls(place, read_manifest(place, cls.kind, verify=verify))
        return cls(*opened(place, cls.kind, verify=verify, session=session))

    @property
    def path(self) -> Path:
        """The directory.

        Raises:
            ConfigError: it is on S3.
        """
        return local_path(self.location, f"the {self.kind}")

    @property
    def uri(self) -> str:
        """Where it is: ``s3://bucket/prefix``, or the directory as text."""
        return str(self.location)

    @property
    def prompt_fingerprint(self) -> str:
        """The fingerprint of the prompt that the weights were trained with."""
        return self._origin("prompt_fingerprint")

    def _origin(self, *keys: str) -> str:
        """What the provenance says under these keys.

        Raises:
            CorruptArtifactError: it does not say so.
        """
        value: object = self.manifest.provenance
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            raise CorruptArtifactError(
                f"{self.uri}/{MANIFEST} does not hold {'.'.join(keys)}. Make the {self.kind} again."
            )
        return value

    def _part(self, key: str, kind: type[_Part]) -> _Part:
        """Read a part of the provenance.

        Raises:
            CorruptArtifactError: it is not there, or not of this kind.
        """
        try:
            return read_part(kind, self.manifest.provenance.get(key))
        except ValueError as error:
            raise CorruptArtifactError(
                f"{self.uri}/{MANIFEST} does not hold {key} as this version writes it ({error}). Make the {self.kind} "
                "again."
            ) from error


@dataclass(frozen=True, slots=True)
class AdapterCheckpoint(_DirectoryArtifact):
    """A finished LoRA adapter: PEFT's two files, the prompt, and where it came from.

    Args:
        location: the directory.
        manifest: its files, and what they were made from.
    """

    kind: ClassVar[str] = "adapter"

    @property
    def base_model(self) -> str:
        """The path or hub id of the base model."""
        return self._origin("base_model", "name")

    @property
    def base_model_path(self) -> Path:
        """Where the base model was on the machine that trained the adapter."""
        return Path(self._origin("base_model", "path"))

    @property
    def run(self) -> TrainingRun:
        """What the training run took.

        Raises:
            CorruptArtifactError: the manifest does not say so.
        """
        return self._part("run", TrainingRun)


@dataclass(frozen=True, slots=True)
class MergedModel(_DirectoryArtifact):
    """A finished full model: safetensors, the base's tokenizer and config, and the prompt.

    Args:
        location: the directory, or the place on S3.
        manifest: its files, and what they were made from.
    """

    kind: ClassVar[str] = "merged-model"

    @property
    def merge(self) -> MergeSummary:
        """How the model was merged.

        Raises:
            CorruptArtifactError: the manifest does not say so; `package_base` merges nothing.
        """
        return self._part("merge", MergeSummary)

    @property
    def exported_from(self) -> str | None:
        """The digest of the merged model that this one was exported from for Bedrock; None if it was not exported."""
        origin = self.manifest.provenance.get("exported_from")
        return origin if isinstance(origin, str) else None
