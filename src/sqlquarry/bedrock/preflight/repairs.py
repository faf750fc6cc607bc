"""Repair findings with a mechanical fix: metadata, the chat template's file, dtype, index, large shards."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import aws_errors
from sqlquarry.bedrock.export.chat_template import TEMPLATE_FILES
from sqlquarry.bedrock.export.metadata_files import CARRIED_FILES, OPTIONAL_FILES, export_files
from sqlquarry.bedrock.export.weights import CheckpointWeights, is_full
from sqlquarry.bedrock.preflight.checkpoint import read_files, read_weights
from sqlquarry.bedrock.preflight.config import QUANTIZATION_KEYS
from sqlquarry.bedrock.preflight.reshard import (
    SHARD_BYTES,
    ReshardPlan,
    plan_shards,
    replaced_leftovers,
    write_index,
    write_shards,
)
from sqlquarry.bedrock.preflight.source import LocalSource, S3Source, Source, source_location
from sqlquarry.bedrock.preflight.tensors import duplicates, stored_dtype
from sqlquarry.checkpoints.safetensors_header import INDEX, ONE_SHARD
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.files.locations import S3Location, local_path
from sqlquarry.files.metadata import check_size, json_bytes
from sqlquarry.files.writing import write_atomically
from sqlquarry.manifests import MANIFEST
from sqlquarry.text import visible

if TYPE_CHECKING:
    import boto3

_SMALL = ("config.json", "tokenizer_config.json", *OPTIONAL_FILES)


@dataclass(frozen=True, slots=True)
class FileRepair:
    """A change that `repair` made.

    Args:
        where: the file.
        message: what was changed.
    """

    where: str
    message: str

    def __str__(self) -> str:
        return visible(f"{self.where}: {self.message}")


def repair(
    source: str | Path,
    *,
    output_dir: str | Path | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    session: boto3.Session | None = None,
) -> list[FileRepair]:
    """Rewrite a checkpoint so that Custom Model Import can read it, as far as possible. Weights keep every bit.

    A second run changes nothing. In place, files are replaced atomically, and only files in the result are changed.
    With `output_dir`, the result is a new directory with only the files that an import needs. Below an ``s3://``
    prefix, only small files are rewritten, and no weights are read.

    Args:
        source: the checkpoint's directory or ``s3://`` prefix.
        output_dir: a directory on this machine that is empty or does not exist yet. None repairs in place.
        max_shard_bytes: larger shards are divided. This works on this machine only.
        session: a boto3 session for S3. None uses the default credentials.

    Raises:
        ConfigError: the directory does not exist, `output_dir` is not empty or cannot be used, or the repair would
            change a finished merged model.
        BedrockError: the files cannot be read or written, or there is not enough space.
    """
    place = source_location(source)
    if isinstance(place, S3Location):
        if output_dir is not None:
            raise ConfigError(
                f"repair(…, output_dir=…) copies directories of this machine only. Leave output_dir out to repair "
                f"{place} in place."
            )
        return _repair_prefix(S3Source(place, session=session), max_shard_bytes)
    files = LocalSource(place)
    if output_dir is None:
        if MANIFEST in files.sizes:
            raise _finished(place, "To get repaired files, pass output_dir=… to repair.")
        return _repair_in_place(files, max_shard_bytes)
    target = local_path(output_dir, "output_dir")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty. Pass a new directory to repair(…, output_dir=…).")
    return _repair_copy(files, target, max_shard_bytes)


def _repair_in_place(source: LocalSource, max_shard_bytes: int) -> list[FileRepair]:
    directory = source.directory
    weights = _readable(source, directory)
    return _apply(directory, directory, _metadata(directory, weights), weights, plan_shards(weights, max_shard_bytes))


def _repair_copy(source: LocalSource, target: Path, max_shard_bytes: int) -> list[FileRepair]:
    """Repair a copy of the files that an import needs. `target` appears when it is complete."""
    weights = _readable(source, source.directory)
    metadata = _metadata(source.directory, weights)
    division = plan_shards(weights, max_shard_bytes)
    divided = set(division.replaced) if division else set()
    # In the target's parent directory, so that the last step is one rename.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        for name in source.sizes:
            is_weight = name in weights.loaded and name not in divided
            if is_weight or name in CARRIED_FILES or name in metadata or name in TEMPLATE_FILES:
                shutil.copyfile(source.directory / name, temporary / name)
        done = _apply(source.directory, temporary, metadata, weights, division)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return done


def _repair_prefix(source: S3Source, max_shard_bytes: int) -> list[FileRepair]:
    """Repair copies of the small files, write the changed ones back, and delete template files last."""
    if MANIFEST in source.sizes:
        raise _finished(source.uri, "Pass the prefix to import_model.")
    weights = _readable(source, source.uri)
    if plan_shards(weights, max_shard_bytes):
        raise BedrockError(
            f"{source.uri} contains shards above {max_shard_bytes / 1e9:g} GB, which cannot be divided on S3. Merge "
            "again with a smaller max_shard_bytes, or download the model, repair it and upload it."
        )
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for file, size in source.sizes.items():
            if "/" not in file and (file in (*_SMALL, *CARRIED_FILES, *TEMPLATE_FILES)):
                check_size(file, size)
                (copy / file).write_bytes(source.read(file))
        done = _apply(copy, copy, _metadata(copy, weights), weights, None)
        with aws_errors(BedrockError, f"repairing {source.uri}"):
            for file in sorted({item.where for item in done}, key=lambda file: file in TEMPLATE_FILES):
                if (copy / file).is_file():
                    source.prefix.write(file, (copy / file).read_bytes())
                else:
                    source.prefix.delete(file)
    return done


def _finished(place: Path | str, advice: str) -> ConfigError:
    return ConfigError(
        f"{place} is a finished merged model, and a repair would make its manifest wrong. import_model rewrites its "
        f"files together with the manifest. {advice}"
    )


def _readable(source: Source, place: Path | str) -> CheckpointWeights:
    """Read the shard headers of a checkpoint.

    Raises:
        BedrockError: a file of the checkpoint cannot be read.
    """
    _, _, unreadable = read_files(source)
    weights, bad_weights = read_weights(source)
    if weights is None or unreadable:
        problems = "\n".join(f"- {finding}" for finding in (*unreadable, *bad_weights))
        raise BedrockError(f"{place} cannot be repaired, because some of its files cannot be read:\n{problems}")
    return weights


def _metadata(directory: Path, weights: CheckpointWeights) -> dict[str, bytes]:
    """Return the small files after the repair.

    Raises:
        BedrockError: they are not the files of a model.
    """
    try:
        return _rewritten(directory, weights)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BedrockError(
            f"{directory} cannot be repaired, because its metadata does not describe a model ({type(error).__name__}: "
            f"{error}). Restore the base model's files."
        ) from error


def _rewritten(directory: Path, weights: CheckpointWeights) -> dict[str, bytes]:
    files = export_files(directory)
    config, stored = json.loads(files["config.json"]), stored_dtype(weights)
    level = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    marked = [(place, key) for key in QUANTIZATION_KEYS for place in (config, level) if key in place]
    left_over = marked if is_full(weights) else []
    for place, key in left_over:
        place.pop(key, None)
    named = level.get("torch_dtype") or config.get("torch_dtype")
    if stored is not None and named != stored:
        level["torch_dtype"] = stored
    if left_over or (stored is not None and named != stored):
        files["config.json"] = json_bytes(config)
    return files


def _apply(
    source: Path, target: Path, metadata: dict[str, bytes], weights: CheckpointWeights, division: ReshardPlan | None
) -> list[FileRepair]:
    done = []
    for name, content in metadata.items():
        path = target / name
        old = path.read_bytes() if path.is_file() else None
        if old != content:
            write_atomically(path, content)
            done.append(FileRepair(name, "written" if old is None else "rewritten for transformers 4.51.3"))
    # tokenizer_config.json contains the template now.
    for name in TEMPLATE_FILES:
        if (target / name).is_file():
            (target / name).unlink()
            done.append(FileRepair(name, "moved into tokenizer_config.json"))
    if division is not None:
        write_shards(division, source, target)
        done.append(FileRepair(INDEX, f"weights divided into {len(division.shards)} shards"))
        return done
    for name in replaced_leftovers(source, weights) if source == target else ():
        (target / name).unlink(missing_ok=True)  # weights of an S3 prefix are not copied here
        done.append(FileRepair(name, "removed, because an earlier resharding had replaced it"))
    if weights.index is None and ONE_SHARD not in weights.shards and not duplicates(weights):
        write_index(weights, target)
        done.append(FileRepair(INDEX, "written from the shards"))
    return done
