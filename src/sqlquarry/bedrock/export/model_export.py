"""The files to upload for a checkpoint: its own weights and tokenizer, and metadata in the service's dialect."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock.export.metadata_files import CARRIED_FILES, export_files
from sqlquarry.bedrock.export.non_finite import sha256_of_finite
from sqlquarry.checkpoints.safetensors_header import INDEX, ONE_SHARD, parse_index
from sqlquarry.errors import PromptMismatchError
from sqlquarry.files.digests import sha256_file
from sqlquarry.files.metadata import read_bytes
from sqlquarry.manifests import Manifest
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter


@dataclass(frozen=True, slots=True)
class ModelExport:
    """The files of a model in the form that is uploaded.

    Args:
        files: name -> content, or the path of a file that is uploaded unchanged.
        manifest: describes the files.
        formatter: the prompt that the model answers to, or None if unknown.
    """

    files: Mapping[str, bytes | Path]
    manifest: Manifest
    formatter: PromptFormatter | None = None

    @property
    def weight_bytes(self) -> int:
        """The size of the weights in bytes."""
        return sum(int(entry["bytes"]) for name, entry in self.manifest.files.items() if name.endswith(".safetensors"))

    @classmethod
    def of(cls, source: MergedModel | Path, formatter: PromptFormatter | None = None) -> ModelExport:
        """Rewrite the metadata and describe the result.

        The weights of a merged model are not read, because its manifest contains their hashes. Those of any other
        directory are hashed. The manifest's digest covers the exported files, so it changes with the dialect.

        Raises:
            PromptMismatchError: the directory contains another prompt than `formatter`.
            CorruptArtifactError: weights of a directory without a manifest contain NaN or infinity.
            OSError, ValueError, ConfigError: the directory cannot be exported. `preflight` reports why.
        """
        directory = source.path if isinstance(source, MergedModel) else source
        own = PromptFormatter.load(directory) if (directory / PROMPT_FILE).is_file() else None
        require_same_prompt(own, formatter, directory / PROMPT_FILE)
        prompt = own or formatter
        rewritten = dict(export_files(directory) if own else export_files(directory, formatter))
        if formatter is not None and own is None:
            rewritten[PROMPT_FILE] = formatter.to_json()
        if isinstance(source, MergedModel):
            known: Mapping[str, Mapping[str, str | int]] = source.manifest.files
            verbatim = _uploaded_as_is(directory, known)
            provenance = {**source.manifest.provenance, "exported_from": source.manifest.digest}
        else:
            names = sorted(path.name for path in directory.iterdir() if path.is_file())
            verbatim = _uploaded_as_is(directory, names)
            known = _hashed(verbatim)
            provenance = {"prompt_fingerprint": prompt.fingerprint} if prompt else {}
        verbatim = {name: path for name, path in verbatim.items() if name not in rewritten}
        entries = {name: known[name] for name in verbatim} | {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in rewritten.items()
        }
        manifest = Manifest(MergedModel.kind, dict(sorted(entries.items())), provenance)
        return cls({**rewritten, **verbatim}, manifest, prompt)


def require_same_prompt(own: PromptFormatter | None, given: PromptFormatter | None, where: str | Path) -> None:
    """Refuse to serve a model with a prompt that differs from its own.

    Args:
        own: the model's prompt, if it has one.
        given: the caller's prompt, if any.
        where: the file with the model's prompt.

    Raises:
        PromptMismatchError: the two differ.
    """
    if given is not None and own is not None and own.fingerprint != given.fingerprint:
        raise PromptMismatchError(
            f"{where} contains prompt {own.fingerprint!r}, but `formatter` is {given.fingerprint!r}. Leave out "
            "`formatter` to serve the prompt that the weights were trained with."
        )


def _uploaded_as_is(directory: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the files that are uploaded unchanged. All other files stay on this machine."""
    # Some repositories contain the same weights twice (Mistral's consolidated.safetensors). The index lists one set,
    # and without an index only one file name is read.
    index = directory / INDEX
    names = list(names)
    shards = set(parse_index(read_bytes(index)).values()) if index.is_file() else None
    if shards is None and ONE_SHARD in names:
        shards = {ONE_SHARD}
    return {
        name: directory / name
        for name in names
        if (
            "/" not in name and (shards is None or name in shards)
            if name.endswith(".safetensors")
            else name in CARRIED_FILES
        )
    }


def _hashed(files: Mapping[str, Path]) -> dict[str, Mapping[str, str | int]]:
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_sha256, files.values()))
    return {
        name: {"sha256": digest, "bytes": path.stat().st_size}
        for (name, path), digest in zip(files.items(), digests, strict=True)
    }


def _sha256(path: Path) -> str:
    return sha256_of_finite(path) if path.suffix == ".safetensors" else sha256_file(path)
