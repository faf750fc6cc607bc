"""What a checkpoint looks like on S3: its own weights and tokenizer, and metadata in the service's dialect."""

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
    """A model as it is to be on S3.

    Args:
        files: name -> content, or the path of a file that is uploaded as it is.
        manifest: describes the files.
        formatter: the prompt that the model answers to; None if it is not known.
    """

    files: Mapping[str, bytes | Path]
    manifest: Manifest
    formatter: PromptFormatter | None = None

    @property
    def weight_bytes(self) -> int:
        """The size of the weights."""
        return sum(int(entry["bytes"]) for name, entry in self.manifest.files.items() if name.endswith(".safetensors"))

    @classmethod
    def of(cls, source: MergedModel | Path, formatter: PromptFormatter | None = None) -> ModelExport:
        """Rewrite the metadata and describe the result.

        Reads no weights of a merged model, whose manifest knows their hashes; hashes those of any other directory.
        The digest of the manifest is over the exported files, so it changes with the dialect.

        Raises:
            PromptMismatchError: the directory holds another prompt than `formatter`.
            CorruptArtifactError: weights of a directory without a manifest hold NaN or infinity.
            OSError, ValueError, ConfigError: the directory cannot be exported; a preflight says why.
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
    """Refuse to serve another prompt than the one that a model carries.

    Args:
        own: the model's prompt, if it has one.
        given: the prompt that the caller gave, if any.
        where: the file of the model's prompt.

    Raises:
        PromptMismatchError: the two differ.
    """
    if given is not None and own is not None and own.fingerprint != given.fingerprint:
        raise PromptMismatchError(
            f"{where} is prompt {own.fingerprint!r}, not {given.fingerprint!r}. Leave out `formatter` to serve the "
            "prompt that the weights were trained with."
        )


def _uploaded_as_is(directory: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the files that are uploaded as they are; everything else stays on this machine."""
    # Some repositories carry the same weights twice (Mistral's consolidated.safetensors). The index names one set, and
    # without an index only one name is read.
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
