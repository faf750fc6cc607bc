"""Read and write manifests, which list the files of a directory and mark it as finished."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlquarry.credentials import public_provenance
from sqlquarry.errors import CorruptArtifactError, IncompleteArtifactError, MetadataError, PromptMismatchError
from sqlquarry.files.digests import combined_digest, file_digests, files_below, sha256_file
from sqlquarry.files.metadata import json_bytes, parse_object, path_inside, read_bytes, relative_name
from sqlquarry.files.writing import write_atomically

MANIFEST = "manifest.json"
MERGE_STATE = ".merge.json"  # state of an unfinished merge
MANIFEST_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a finished directory and its provenance. The manifest is written after all other files.

    Args:
        kind: "adapter", "merged-model", …
        files: path relative to the directory -> SHA-256 (hex) and size in bytes.
        provenance: what the artifact was created from (base model, data hash, prompt fingerprint, configuration,
            parents).
    """

    kind: str
    files: Mapping[str, Mapping[str, str | int]]
    provenance: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the names and contents of all files. Copies of a directory have the same digest."""
        return combined_digest(list(self.files), [str(entry["sha256"]) for entry in self.files.values()])

    @classmethod
    def parse(cls, content: bytes, name: str) -> Self:
        """Parse a manifest and check that its file names stay inside the directory and its hashes and sizes are valid.

        Args:
            content: the content of the manifest file.
            name: name of the file, for messages.

        Raises:
            MetadataError: the content is not a valid manifest, or its format has another version.
        """
        fields = parse_object(content, name, lenient=True)
        kind, files, provenance = (fields.get(key) for key in ("kind", "files", "provenance"))
        if not isinstance(kind, str) or not isinstance(files, dict) or not isinstance(provenance, dict):
            raise MetadataError(f"{name} has no valid kind, files or provenance")
        if fields.get("version") != MANIFEST_VERSION:
            raise MetadataError(f"{name} has format version {fields.get('version')!r:.80}, not {MANIFEST_VERSION}")
        entries: dict[str, dict[str, str | int]] = {}
        for file, entry in files.items():
            sha256, size = (entry.get("sha256"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
            if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or type(size) is not int or size < 0:
                raise MetadataError(f"{name} has no valid SHA-256 and size for {file!r:.80}")
            entries[relative_name(file, name)] = {"sha256": sha256, "bytes": size}
        return cls(kind, entries, provenance)

    def content(self) -> bytes:
        """Return the manifest as JSON, which `parse` reads."""
        return json_bytes({"version": MANIFEST_VERSION, **dataclasses.asdict(self)})

    def require_prompt(self, fingerprint: str) -> None:
        """Check that `fingerprint` is the prompt that this artifact was trained with.

        Raises:
            PromptMismatchError: the fingerprints differ.
        """
        if (trained := self.provenance.get("prompt_fingerprint")) != fingerprint:
            raise PromptMismatchError(
                f"this {self.kind} was trained with prompt {trained!r}, not {fingerprint!r}. Another prompt would give "
                "worse answers. Load the right one with PromptFormatter.load() from the directory of the artifact."
            )


def base_digest(directory: Path) -> str:
    """Return the SHA-256 (hex) over a base model's config.json and safetensors, which links an adapter to its base."""
    names = [p.name for p in directory.iterdir() if p.name == "config.json" or p.suffix == ".safetensors"]
    return combined_digest(names, file_digests(directory, names))


def write_manifest(directory: Path, kind: str, provenance: Mapping[str, Any]) -> Manifest:
    """Hash every file below `directory` and write the manifest. From then on the directory counts as finished."""
    names = [name for name in files_below(directory) if Path(name).name != MANIFEST]
    digests = file_digests(directory, names)
    files: dict[str, dict[str, str | int]] = {
        name: {"sha256": digest, "bytes": (directory / name).stat().st_size}
        for name, digest in zip(names, digests, strict=True)
    }
    manifest = Manifest(kind, files, public_provenance(provenance))  # equal to the one that read_manifest returns
    write_atomically(directory / MANIFEST, manifest.content())
    return manifest


def read_manifest(directory: Path, kind: str, *, verify: bool = False) -> Manifest:
    """Read the manifest of a finished directory.

    Args:
        directory: the artifact's directory.
        kind: the kind of artifact that the caller needs.
        verify: also compare every file with its SHA-256. By default only names and sizes are checked.

    Raises:
        IncompleteArtifactError: there is no manifest.
        CorruptArtifactError: the manifest has another kind or version or lists a file outside the directory, or a file
            is missing or changed.
    """
    path = directory / MANIFEST
    if not path.is_file():
        unfinished = f"has no {MANIFEST}, so the stage that writes this {kind} did not finish. Run that stage again."
        missing = f"does not exist. Check the path of the {kind}."
        raise IncompleteArtifactError(f"{directory} {unfinished if directory.exists() else missing}")
    try:
        manifest = parse_manifest(read_bytes(path), str(path), kind)
        files = {path_inside(directory, name, path.name): entry for name, entry in manifest.files.items()}
    except (OSError, MetadataError) as error:
        raise CorruptArtifactError(f"{path} is not a valid manifest ({error}). Create the {kind} again.") from error
    for file, entry in files.items():
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise CorruptArtifactError(f"{file} is missing or differs in size from {path}. Create the {kind} again.")
        if verify and sha256_file(file) != entry["sha256"]:
            raise CorruptArtifactError(f"{file} differs from its SHA-256 in {path}. Create the {kind} again.")
    return manifest


def parse_manifest(content: bytes, name: str, kind: str) -> Manifest:
    """Parse the manifest `name`, which must describe an artifact of this kind.

    Raises:
        CorruptArtifactError: the content is not a valid manifest, or the manifest has another kind or version.
    """
    try:
        manifest = Manifest.parse(content, MANIFEST)
    except MetadataError as error:
        raise CorruptArtifactError(f"{name} is not a valid manifest ({error}). Create the {kind} again.") from error
    if manifest.kind != kind:
        raise CorruptArtifactError(
            f"{name} describes an artifact of kind {manifest.kind!r:.80}, but {kind!r} is needed. Pass the directory "
            "that the previous stage wrote."
        )
    return manifest
