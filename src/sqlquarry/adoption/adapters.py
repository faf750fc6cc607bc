"""Adopt a LoRA adapter that another tool has trained, so that it can be merged and served like our own."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.adoption.adapter_files import AdapterFiles
from sqlquarry.adoption.base import AdapterBase
from sqlquarry.adoption.fit import require_fit, require_one_head, require_same_tables
from sqlquarry.adoption.source import CONFIG, SAFETENSORS, fetch_adapter, named_errors
from sqlquarry.adoption.tensors import AdapterTensors
from sqlquarry.adoption.tokenizers import AdapterTokenizers
from sqlquarry.adoption.training_settings import Quantization, decide, detected
from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ArtifactError
from sqlquarry.extras import require
from sqlquarry.files.digests import sha256_file
from sqlquarry.files.locations import S3Location, cache_folder, local_path, located
from sqlquarry.files.writing import write_json
from sqlquarry.manifests import MANIFEST, Manifest, read_manifest, write_manifest
from sqlquarry.merging.plan import MergePlan
from sqlquarry.merging.trained_adapters import vocabulary_rows
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import PromptFormatter
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    import boto3

logger = visible_logger(__name__)


def adopt_adapter(
    adapter: str | Path,
    *,
    base_model: str | Path,
    formatter: PromptFormatter | None = None,
    quantization: Quantization = "auto",
    output_dir: str | Path | None = None,
    session: boto3.Session | None = None,
) -> AdapterCheckpoint:
    """Check a LoRA adapter made elsewhere, and write it as an artifact that can be merged, run and imported.

    The original files are not changed. No pickle is executed. The same call returns the same artifact.

    Args:
        adapter: the adapter's directory, hub id or ``s3://`` prefix, as PEFT, TRL, Unsloth, Axolotl or LLaMA-Factory
            saved it.
        base_model: the 16-bit model that it was trained on: a directory, a hub id in the local hub cache, or an
            ``s3://`` prefix.
        formatter: the prompt that it was trained with. A formatter that is not bound is bound to the adapter's
            tokenizer, or to the base's if the adapter has none.
        quantization: how the base was quantized in training. "auto" reads it from the adapter's files, if they say it.
            "nf4" and "fp4" are QLoRA with double quantization, and None is training on 16-bit weights. Other settings
            are given as transformers' `BitsAndBytesConfig`, or as the ``quantization_config`` of a config.json.
        output_dir: a new or empty directory. None uses ``~/.cache/sqlquarry``.
        session: the boto3 session for S3. None uses the default credentials.

    Raises:
        ConfigError: the formatter or the quantization is missing, invalid, or contradicts the adapter's files.
        AdoptionError: the files are not an adapter, are damaged, contain code, or do not fit the base.
        UnsupportedAdapterError: this kind of adapter cannot be merged.
        UnsupportedModelError: the base or a configuration is not supported.
        GatedModelError: the hub repository of the adapter does not exist, or requires a token.
        ArtifactError: S3 or the output directory cannot be used.
    """
    require("merge", "adopt_adapter")
    output = None if output_dir is None else local_path(output_dir, "output_dir")
    directory, origin = fetch_adapter(adapter, session), located(adapter)
    with named_errors(directory, origin):
        files = AdapterFiles.open(directory)
        base = AdapterBase.open(base_model, session)
        return _adopted(files, base, origin=origin, formatter=formatter, quantization=quantization, output=output)


def _adopted(
    files: AdapterFiles,
    base: AdapterBase,
    *,
    origin: Path | S3Location,
    formatter: PromptFormatter | None,
    quantization: Quantization,
    output: Path | None,
) -> AdapterCheckpoint:
    """Check and write an adapter whose files are on this machine. `origin` is the place that the caller gave."""
    settings = decide(quantization, detected(files))
    recipe = settings.recipe(base.tensors) if settings else None
    tokenizers = AdapterTokenizers.read(files, base)
    formatter = tokenizers.bind(formatter)
    tensors = AdapterTensors.read(files.weights)
    folder = cache_folder() if output is None else output.absolute().parent
    with _draft(folder) as draft:
        if output is not None:
            _require_free(output)
        write_json(draft / CONFIG, files.config)
        tensors.write(draft / SAFETENSORS)
        plan = require_fit(draft, tensors, base)
        tokenizers.require_rows(*(vocabulary_rows(base.checkpoint, one) for one in (plan, MergePlan({}))))
        require_one_head(base)
        require_same_tables(files.config, tensors, base)
        tokenizers.copy_to(draft)
        formatter.save(draft)
        with phase("hashing the base"):
            sha256 = base.checkpoint.digest({})
        provenance = {
            "base_model": {"name": base.name, "path": base.path, "sha256": sha256},
            "prompt_fingerprint": formatter.fingerprint,
            "quantization": dataclasses.asdict(recipe) if recipe else None,
            "adopted": {
                "from": str(origin),
                "weights_sha256": sha256_file(files.weights),
                "tokenizer": tokenizers.origin,
            },
        }
        manifest = write_manifest(draft, AdapterCheckpoint.kind, provenance)
        target = output or folder / f"adopted-{hashlib.sha256(manifest.content()).hexdigest()[:16]}"
        if output is None:
            _remove_damaged(target, manifest)
        _publish(draft, manifest, target)
    kind = "DoRA" if files.config.get("use_dora") else "LoRA"
    double = " with double quantization" if recipe and recipe.double_quantization else ""
    weights = f"{recipe.quant_type}{double} ({len(recipe.modules)} modules)" if recipe else "16-bit weights"
    logger.info("Adopted a %s adapter of rank %s into %s.", kind, files.config.get("r"), target)
    logger.info("It was trained on %s of %s. Its tokenizer is %s.", weights, base.name, tokenizers.origin)
    return AdapterCheckpoint(target, manifest)


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Yield a new directory in `folder`. It is removed afterwards unless it was renamed.

    Raises:
        ArtifactError: the disk is full or cannot be written.
    """
    draft = folder / f".adopted-{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        yield draft
    except OSError as error:
        raise ArtifactError(
            f"writing the adapter to {folder} failed: {error.strerror or error}. Free some space, or choose another "
            "output_dir."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _require_free(output: Path) -> None:
    """Check that a directory is new or empty, or contains an artifact, which is compared at the end.

    Raises:
        ArtifactError: the directory contains something else.
    """
    if os.path.lexists(output) and not (
        output.is_dir() and (not any(output.iterdir()) or (output / MANIFEST).is_file())
    ):
        raise _occupied(output)


def _occupied(output: Path) -> ArtifactError:
    return ArtifactError(f"{output} contains other files than this adapter. Choose a new or empty output_dir.")


def _remove_damaged(target: Path, manifest: Manifest) -> None:
    """Remove an artifact from the cache that was damaged after it had been written."""
    if target.exists() and not _contains(target, manifest):
        shutil.rmtree(target)


def _publish(draft: Path, manifest: Manifest, target: Path) -> None:
    """Rename the finished draft to `target`, unless the same artifact is already there.

    Raises:
        ArtifactError: the directory contains something else.
    """
    try:
        draft.replace(target)  # also replaces an empty directory
    except OSError as error:
        if not _contains(target, manifest):
            raise _occupied(target) from error


def _contains(directory: Path, manifest: Manifest) -> bool:
    """Return whether a directory contains this artifact, undamaged."""
    try:
        return read_manifest(directory, manifest.kind, verify=True) == manifest
    except (ArtifactError, OSError):
        return False
