"""The nouns that pass between phases, and the manifests that make a directory count as finished."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, get_args

from sqlquarry.credentials import public_provenance
from sqlquarry.dialects import dialect_name
from sqlquarry.errors import (
    CorruptArtifactError,
    IncompleteArtifactError,
    JudgingError,
    MetadataError,
    PromptMismatchError,
    RecordError,
)
from sqlquarry.files.digests import combined_digest, file_digests, files_below, sha256_file
from sqlquarry.files.locations import S3Location, local_path, located
from sqlquarry.files.metadata import json_bytes, parse_object, path_inside, read_bytes, relative_name

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Record:
    """One question about one database, with its gold SQL where it is known.

    Args:
        question: what the user asks, in words.
        schema: the CREATE TABLE statements that the model may use.
        sql: the gold query; None where only an answer is wanted.
        alternatives: other gold queries; an answer that is equal to any of them is right too.
        database: the name of the database that `sql` runs on; None where only the schema is known.
        dialect: the SQL dialect; other common names become sqlglot's, such as "PostgreSQL" or "pg" "postgres".
        id: the record's name in reports; None lets its place in the sequence stand for it.

    Raises:
        RecordError: a text is blank, a name no text, the dialect unknown, or there are alternatives without `sql`.
    """

    question: str
    schema: str
    sql: str | None = None
    database: str | None = None
    dialect: str = "sqlite"
    id: str | None = None
    alternatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given: object = self.alternatives
        if isinstance(given, str) or (given and self.sql is None):
            raise RecordError(f"{self._name}: alternatives is {given!r}, but must be queries, given with `sql`")
        object.__setattr__(self, "alternatives", tuple(self.alternatives))  # a list, where it was read from JSON
        object.__setattr__(self, "dialect", dialect_name(self.dialect, lambda why: RecordError(f"{self._name}: {why}")))
        texts = {"question": self.question, "schema": self.schema} | ({} if self.sql is None else {"sql": self.sql})
        for name, value in (*texts.items(), *(("alternatives", query) for query in self.alternatives)):
            if not isinstance(value, str) or not value.strip():
                hint = "; leave it out if it is unknown" if name == "sql" else ""
                raise RecordError(f"{self._name}: {name} is {value!r}, but must be text that is not empty{hint}")
        if not all(isinstance(name, str | None) for name in (self.id, self.database)):
            raise RecordError(f"{self._name}: id {self.id!r} and database {self.database!r} must be text or None")

    @property
    def golds(self) -> tuple[str, ...]:
        """Every accepted query, the record's own first; empty where none is known."""
        return () if self.sql is None else (self.sql, *self.alternatives)

    @property
    def asked(self) -> Self:
        """The record as a model may see it: without any gold query."""
        return dataclasses.replace(self, sql=None, alternatives=())

    @property
    def _name(self) -> str:
        return f"record {self.id or '(no id)'}"


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model answered to one prompt.

    Args:
        text: the completion, as it came.
        stop_reason: "stop" (the model ended its answer), "length" (cut at the limit) or another word of the service.
        prompt_tokens: tokens read, where the service says so.
        completion_tokens: tokens written, where the service says so.
        latency_s: seconds from request to answer, waits for a cold model included.
        logprobs: natural logarithm of the probability of each token written, where it was asked for and is offered.
        stop_text: which of the texts asked for ended the answer, where one did and the model or service says so.
    """

    text: str
    stop_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float | None = None
    logprobs: tuple[float, ...] | None = None
    stop_text: str | None = None


Verdict = Literal["correct", "wrong", "unjudged"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one grader says of one prediction; an answer that cannot be graded is "unjudged", never wrong.

    Args:
        grader: the grader's name.
        verdict: "correct", "wrong" or "unjudged".
        reason: why, in words for a reader of the report.
        details: what the grader saw (rows, error text), ready for JSON.

    Raises:
        JudgingError: another verdict, which no accuracy would count.
    """

    grader: str
    verdict: Verdict
    reason: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            known = ", ".join(get_args(Verdict))
            raise JudgingError(f"grader {self.grader!r} gave the verdict {self.verdict!r}; it must be one of {known}")


class TextGenerator(Protocol):
    """Anything that answers prompts: an imported model, local weights, a foundation model, a script in a test."""

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        """Answer each input, in order; a `Record` is rendered with the prompt that the model was trained with."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished directory holds and where it came from; written last.

    Args:
        kind: "adapter", "merged-model", …
        files: path below the directory -> SHA-256 (hex) and size in bytes.
        provenance: what it was made from (base model, data hash, prompt fingerprint, configuration, parents).
    """

    kind: str
    files: Mapping[str, Mapping[str, str | int]]
    provenance: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the names and contents of all files: the same content has the same digest anywhere."""
        return combined_digest(list(self.files), [str(entry["sha256"]) for entry in self.files.values()])

    @classmethod
    def parse(cls, content: bytes, name: str) -> Self:
        """Parse a manifest's content; every name in it stays inside the folder, every hash and size is one.

        Args:
            content: of the file.
            name: the file, for messages.

        Raises:
            MetadataError: it is not a manifest, or of another version.
        """
        fields = parse_object(content, name, lenient=True)
        kind, files, provenance = (fields.get(key) for key in ("kind", "files", "provenance"))
        if not isinstance(kind, str) or not isinstance(files, dict) or not isinstance(provenance, dict):
            raise MetadataError(f"{name} lacks kind, files or provenance")
        if fields.get("version") != MANIFEST_VERSION:
            raise MetadataError(f"{name} is of format {fields.get('version')!r:.80}, not {MANIFEST_VERSION}")
        entries: dict[str, dict[str, str | int]] = {}
        for file, entry in files.items():
            sha256, size = (entry.get("sha256"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
            if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or type(size) is not int or size < 0:
                raise MetadataError(f"{name} has no SHA-256 or no size for {file!r:.80}")
            entries[relative_name(file, name)] = {"sha256": sha256, "bytes": size}
        return cls(kind, entries, provenance)

    def content(self) -> bytes:
        """Return what `parse` reads."""
        return json_bytes({"version": MANIFEST_VERSION, **dataclasses.asdict(self)})

    def require_prompt(self, fingerprint: str) -> None:
        """Refuse a prompt other than the one that this artifact was made with.

        Raises:
            PromptMismatchError: the fingerprints differ.
        """
        if (trained := self.provenance.get("prompt_fingerprint")) != fingerprint:
            raise PromptMismatchError(
                f"this {self.kind} was made with prompt {trained!r}, not {fingerprint!r}: it would be served another "
                "prompt than it was trained with. Use PromptFormatter.load() on the artifact's own directory."
            )


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file, in a new folder if need be, so that a reader sees all of it or none: write aside, fsync, rename.

    Args:
        path: the file.
        content: all of it, or parts of it that need never be in memory together.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON, atomically."""
    write_atomically(path, json_bytes(content))


def base_digest(directory: Path) -> str:
    """SHA-256 (hex) over a base model's config.json and safetensors: which base an adapter belongs to."""
    names = [p.name for p in directory.iterdir() if p.name == "config.json" or p.suffix == ".safetensors"]
    return combined_digest(names, file_digests(directory, names))


def write_manifest(directory: Path, kind: str, provenance: Mapping[str, Any]) -> Manifest:
    """Hash every file below `directory` and write the manifest; from now on the directory counts as finished."""
    names = [name for name in files_below(directory) if Path(name).name != MANIFEST]
    digests = file_digests(directory, names)
    files: dict[str, dict[str, str | int]] = {
        name: {"sha256": digest, "bytes": (directory / name).stat().st_size}
        for name, digest in zip(names, digests, strict=True)
    }
    manifest = Manifest(kind, files, public_provenance(provenance))  # equal to what read_manifest returns
    write_atomically(directory / MANIFEST, manifest.content())
    return manifest


def read_manifest(directory: Path, kind: str, *, verify: bool = False) -> Manifest:
    """Read the manifest of a finished directory.

    Args:
        directory: the artifact's directory.
        kind: the kind that the caller can use.
        verify: also compare every file with its SHA-256; else only names and sizes.

    Raises:
        IncompleteArtifactError: there is no manifest.
        CorruptArtifactError: the manifest is of another kind or version, names a file outside the directory, or a file
            is missing or changed.
    """
    path = directory / MANIFEST
    if not path.is_file():
        unfinished = f"has no {MANIFEST}: the stage that writes this {kind} did not finish there. Run it again."
        missing = f"does not exist. Check the path of the {kind}."
        raise IncompleteArtifactError(f"{directory} {unfinished if directory.exists() else missing}")
    try:
        manifest = parse_manifest(read_bytes(path), str(path), kind)
        files = {path_inside(directory, name, path.name): entry for name, entry in manifest.files.items()}
    except (OSError, MetadataError) as error:
        raise CorruptArtifactError(f"{path} is not a manifest ({error}). Make the {kind} again.") from error
    for file, entry in files.items():
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise CorruptArtifactError(f"{file} is missing or has another size than in {path}. Make the {kind} again.")
        if verify and sha256_file(file) != entry["sha256"]:
            raise CorruptArtifactError(f"{file} differs from its SHA-256 in {path}. Make the {kind} again.")
    return manifest


def parse_manifest(content: bytes, name: str, kind: str) -> Manifest:
    """Parse the manifest `name` of an artifact that must be of this kind.

    Raises:
        CorruptArtifactError: it is not a manifest, or of another kind or version.
    """
    try:
        manifest = Manifest.parse(content, MANIFEST)
    except MetadataError as error:
        raise CorruptArtifactError(f"{name} is not a manifest ({error}). Make the {kind} again.") from error
    if manifest.kind != kind:
        raise CorruptArtifactError(
            f"{name} describes a {manifest.kind!r:.80}, where a {kind!r} is needed. Give the directory that the "
            "earlier stage wrote."
        )
    return manifest


@dataclass(frozen=True, slots=True)
class _DirectoryArtifact:
    location: Path | S3Location
    manifest: Manifest
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", located(self.location))

    @classmethod
    def load(cls, directory: str | Path, *, verify: bool = False, session: Any = None) -> Self:
        """Open what is finished in a directory or below ``s3://bucket/prefix``.

        Args:
            directory: where it is; an adapter on S3 is copied to ``~/.cache/sqlquarry`` and verified.
            verify: compare every file with its SHA-256; else only names and sizes.
            session: the boto3 session for S3; None takes the default credentials.

        Raises:
            ArtifactError: the stage that writes it did not finish, a file is missing or changed, or S3 refuses.
        """
        place = located(directory)
        if isinstance(place, Path):
            return cls(place, read_manifest(place, cls.kind, verify=verify))
        # By name, since the layers below AWS do not import it.
        return cls(*import_module("sqlquarry.aws.artifacts").opened(place, cls.kind, verify=verify, session=session))

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
        value: Any = self.manifest.provenance
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            raise CorruptArtifactError(
                f"{self.uri}/{MANIFEST} does not hold {'.'.join(keys)}. Make the {self.kind} again."
            )
        return value


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


@dataclass(frozen=True, slots=True)
class MergedModel(_DirectoryArtifact):
    """A finished full model: safetensors, the base's tokenizer and config, and the prompt.

    Args:
        location: the directory, or the place on S3.
        manifest: its files, and what they were made from.
    """

    kind: ClassVar[str] = "merged-model"
