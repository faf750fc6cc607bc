"""Adopt a model that was merged or fine-tuned elsewhere as a `MergedModel`, in place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.adoption.model_checks import check_model
from sqlquarry.adoption.model_contents import require_model
from sqlquarry.adoption.model_files import SERVED_FILES, FileState, ModelFiles, StoredModelFiles, open_model_files
from sqlquarry.adoption.model_hashing import hash_files, same_content
from sqlquarry.adoption.model_prompt import bound_formatter, require_same_formatter
from sqlquarry.adoption.source import named_errors
from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock.preflight.checkpoint import Checkpoint
from sqlquarry.checkpoints.model_files import weight_files
from sqlquarry.checkpoints.safetensors_header import Tensor
from sqlquarry.credentials import public_provenance
from sqlquarry.errors import (
    AdoptionError,
    ConfigError,
    IncompleteArtifactError,
    MetadataError,
    UnsupportedModelError,
)
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import JsonObject, leads_inside, read_bytes
from sqlquarry.manifests import MANIFEST, Manifest
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter
from sqlquarry.text import first_of

if TYPE_CHECKING:
    import boto3

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def adopt_model(
    directory: str | Path, *, formatter: PromptFormatter | None = None, session: boto3.Session | None = None
) -> MergedModel:
    """Turn a full model made elsewhere into a `MergedModel`, in place.

    The model is checked, every file that a server needs is hashed once, and ``prompt.json`` and ``manifest.json`` are
    added. No other file changes. The same call returns the finished artifact. An interrupted call can be repeated.

    Args:
        directory: the directory or ``s3://bucket/prefix`` with config.json, the tokenizer and 16-bit safetensors, for
            example from PEFT's ``merge_and_unload``, Unsloth, Axolotl, LLaMA-Factory, mergekit or a full fine-tune.
        formatter: the prompt that the model was trained with. It is bound to the model's own tokenizer unless it is
            bound already. None uses a ``prompt.json`` that is already there.
        session: the boto3 session for S3. None uses the default credentials.

    Raises:
        ConfigError: `formatter` is None and ``prompt.json`` is missing, or the prompt does not fit the tokenizer.
        PromptMismatchError: there is a ``prompt.json`` with another prompt.
        AdoptionError: no usable model was found, it differs from an earlier adoption, it cannot be read, or
            the directory is read-only. The message says what to do.
        OutputInUseError: another process is adopting the same model.
        MissingExtraError: an extra is not installed.
    """
    if formatter is not None and not isinstance(formatter, PromptFormatter):
        raise ConfigError(f"adopt_model: formatter is {formatter!r:.80}, but must be a PromptFormatter or None.")
    files = open_model_files(directory, session)
    with files.errors():
        present = files.states()
        require_model(present, files.location)
        with (
            nullcontext() if MANIFEST in present else files.reserve(),
            files.outline() as outline,
            _located_errors(outline, files.location),
        ):
            if (outline / MANIFEST).is_file():  # another process may have finished in the meantime
                return _finished(files, outline, formatter, session)
            return _adopted(files, present, outline, formatter)


@contextmanager
def _located_errors(outline: Path, location: Path | S3Location) -> Iterator[None]:
    """Name the model's own location in errors, because the outline of a model on S3 is temporary."""
    with named_errors(outline, location):
        try:
            yield
        except (UnsupportedModelError, IncompleteArtifactError) as error:
            raise AdoptionError(str(error)) from error


def _adopted(
    files: ModelFiles, before: Mapping[str, FileState], outline: Path, formatter: PromptFormatter | None
) -> MergedModel:
    """Check, hash and complete the files, whose states the caller has listed before."""
    checkpoint = check_model(outline)
    bound = bound_formatter(outline, formatter)
    names = _served(outline)
    shards = checkpoint.weights.shards if checkpoint.weights else {}
    tensors = {name: shards[name] for name in names if name in shards}
    _require_head(files, checkpoint, tensors)
    sizes = {name: before[name].size for name in names if name in before}
    digests = hash_files(files, sizes, tensors, name="adopting the model")
    after = files.states()
    if changed := [name for name in names if name not in before or after.get(name) != before[name]]:
        raise AdoptionError(
            f"{files.location}/{changed[0]} was changed while it was being read. Wait until the program that writes "
            "it has ended, then call adopt_model again."
        )
    entries: dict[str, dict[str, str | int]] = {
        name: {"sha256": digest, "bytes": sizes[name]} for name, digest in digests.items()
    }
    prompt = read_bytes(outline / PROMPT_FILE) if PROMPT_FILE in before else bound.to_json()
    entries[PROMPT_FILE] = {"sha256": hashlib.sha256(prompt).hexdigest(), "bytes": len(prompt)}
    provenance = {
        "prompt_fingerprint": bound.fingerprint,
        "adopted": _detected(files, checkpoint, {name: before[name] for name in tensors}),
    }
    manifest = Manifest(MergedModel.kind, dict(sorted(entries.items())), public_provenance(provenance))
    if PROMPT_FILE not in before:
        files.create(PROMPT_FILE, prompt)
    files.create(MANIFEST, manifest.content())
    return MergedModel(files.location, manifest)


def _served(outline: Path) -> list[str]:
    """Return the names of the files that a server needs.

    Raises:
        AdoptionError: a file is a link that leads out of the directory.
    """
    names = [path.name for path in weight_files(outline)]
    names += [name for name in SERVED_FILES if (outline / name).is_file()]
    if outside := [name for name in names if not leads_inside(outline / name, outline)]:
        raise AdoptionError(
            f"{outline / outside[0]} is a link that leads out of the directory, so its content could change unnoticed. "
            "Replace the link by a copy."
        )
    return names


def _require_head(files: ModelFiles, checkpoint: Checkpoint, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse a trained output head that servers ignore because config.json says that it is the embedding."""
    if not checkpoint.config.get("tie_word_embeddings"):
        return
    found = {
        name: (shard, held[name]) for shard, held in tensors.items() for name in (_EMBEDDING, _HEAD) if name in held
    }
    if len(found) == 2 and not same_content(files, found[_EMBEDDING], found[_HEAD]):
        raise AdoptionError(
            f"tie_word_embeddings is true in {files.location}/config.json, but {_HEAD} differs from "
            f"{_EMBEDDING}. Servers would ignore the head that was trained. Set tie_word_embeddings to false there."
        )


def _detected(files: ModelFiles, checkpoint: Checkpoint, weights: Mapping[str, FileState]) -> JsonObject:
    """Return where the model was found, and what its files say about it."""
    location, config = files.location, checkpoint.config
    stored = checkpoint.weights.tensors if checkpoint.weights else {}
    detected: JsonObject = {
        "from": str(location.resolve() if isinstance(location, Path) else location),
        "architecture": checkpoint.architecture,
        "dtypes": sorted({tensor.dtype for tensor in stored.values()}),
        "token_rows": checkpoint.token_rows,
        "chat_template": bool(checkpoint.templates),
    }
    detected |= {key: config[key] for key in ("transformers_version", "unsloth_version") if key in config}
    if isinstance(files, StoredModelFiles):  # so that a later call need not read the weights again
        detected["etags"] = {name: state.version for name, state in weights.items()}
    return detected


def _finished(
    files: ModelFiles, outline: Path, formatter: PromptFormatter | None, session: boto3.Session | None
) -> MergedModel:
    """Return the artifact of an earlier call, after a check that model and prompt are the same."""
    where = f"{files.location}/{MANIFEST}"
    try:
        manifest = Manifest.parse(read_bytes(outline / MANIFEST), MANIFEST)
    except MetadataError as error:
        raise AdoptionError(
            f"{where} is not a manifest of this library ({error}), and adopt_model would have to replace it. Move the "
            "file away if it belongs to another program."
        ) from error
    if manifest.kind != MergedModel.kind or not isinstance(manifest.provenance.get("prompt_fingerprint"), str):
        raise AdoptionError(
            f"{where} describes a {manifest.kind!r:.80} without a prompt. Delete it, then call adopt_model again with "
            "formatter=…."
        )
    if not (outline / PROMPT_FILE).is_file():
        raise AdoptionError(f"{files.location} has no {PROMPT_FILE}. Restore it, or delete {MANIFEST} and call again.")
    own = PromptFormatter.load(outline)
    manifest.require_prompt(own.fingerprint)
    if formatter is not None:
        require_same_formatter(own, formatter, f"{files.location}/{PROMPT_FILE}", f"{PROMPT_FILE} and {MANIFEST}")
    if not isinstance(adopted := manifest.provenance.get("adopted"), dict):
        return MergedModel.load(str(files.location), session=session)  # merged by this library
    if changes := _changes(files, outline, manifest, adopted.get("etags")):
        raise AdoptionError(
            f"the model in {files.location} has changed since it was adopted: {first_of(changes)}. If "
            f"this is the model that you want, delete {MANIFEST} (and {PROMPT_FILE}, if its prompt is another one), "
            "then call adopt_model again. Otherwise restore the files."
        )
    return MergedModel(files.location, manifest)


def _changes(files: ModelFiles, outline: Path, manifest: Manifest, etags: object) -> list[str]:
    """Return the differences between the files and a manifest.

    Weights on S3 whose ETag is still the one of the adoption are not read again.
    """
    states, known = files.states(), etags if isinstance(etags, dict) else {}
    names = {*_served(outline), PROMPT_FILE}
    changes = [f"{name} is new" for name in sorted(names - manifest.files.keys())]
    unsure = {}
    for name, entry in manifest.files.items():
        if name not in states:
            changes.append(f"{name} is missing")
        elif states[name].size != entry["bytes"]:
            changes.append(f"{name} has {states[name].size:,} bytes instead of {entry['bytes']:,}")
        elif not (isinstance(files, StoredModelFiles) and known.get(name) == states[name].version):
            unsure[name] = states[name].size
    digests = hash_files(files, unsure, {}, name="comparing the model") if not changes else {}
    return changes + [
        f"{name} has other content" for name, digest in digests.items() if digest != manifest.files[name]["sha256"]
    ]
