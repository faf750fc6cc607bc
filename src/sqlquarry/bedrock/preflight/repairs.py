"""What is mechanical among the findings, mended: metadata, the chat template's place, dtype, index, large shards."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MANIFEST, write_atomically
from sqlquarry.aws.failures import aws_errors
from sqlquarry.bedrock.chat_template import TEMPLATE_FILES
from sqlquarry.bedrock.dialect import CARRIED_FILES, OPTIONAL_FILES, export_files
from sqlquarry.bedrock.preflight.checkpoint import read_files, read_weights
from sqlquarry.bedrock.preflight.config import QUANTIZATION_KEYS
from sqlquarry.bedrock.preflight.reshard import SHARD_BYTES, Plan, plan, replaced_leftovers, write_index, write_shards
from sqlquarry.bedrock.preflight.source import LocalSource, S3Source, Source, source_location
from sqlquarry.bedrock.preflight.tensors import duplicates, stored_dtype
from sqlquarry.bedrock.weights import ONE_SHARD, Weights, is_full
from sqlquarry.checkpoints.safetensors_header import INDEX
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.files.locations import S3Location, local_path
from sqlquarry.files.metadata import check_size, json_bytes
from sqlquarry.text import visible

_SMALL = ("config.json", "tokenizer_config.json", *OPTIONAL_FILES)


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that `repair` did.

    Args:
        where: the file.
        message: what was done to it.
    """

    where: str
    message: str

    def __str__(self) -> str:
        return visible(f"{self.where}: {self.message}")


def repair(
    directory: str | Path,
    *,
    output: str | Path | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    session: Any = None,
    endpoint_url: str | None = None,
) -> list[Repair]:
    """Make a checkpoint what Custom Model Import reads, as far as that is mechanical; weights keep every bit.

    Run again, it does nothing. In place, every file changes whole or not at all; what is not mentioned in the result
    is not touched. With `output`, the result is a new directory of only those files that an import needs. Below an
    ``s3://`` prefix, only small files are rewritten, and no weight is read.

    Args:
        directory: the checkpoint's directory or ``s3://`` prefix.
        output: a directory of this machine that does not exist yet, or is empty; None repairs in place.
        max_shard_bytes: shards that are larger are divided, which is done on this machine only.
        session: the boto3 session for S3; None takes the default credentials.
        endpoint_url: another address of S3.

    Raises:
        ConfigError: there is no such directory, `output` is not empty or cannot be used, or a finished merged model
            would be changed.
        BedrockError: the files cannot be read or written, or there is not enough space.
    """
    place = source_location(directory)
    if isinstance(place, S3Location):
        if output is not None:
            raise ConfigError(f"repair(…, output=…) copies directories of this machine; {place} is repaired in place.")
        return _repair_prefix(S3Source(place, session=session, endpoint_url=endpoint_url), max_shard_bytes)
    source = LocalSource(place)
    target = place if output is None else local_path(output, "output")
    if output is None and MANIFEST in source.sizes:
        raise _finished(place, "to have the files, pass output=… to repair.")
    if output is not None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty. Give repair(…, output=…) a new directory.")
    weights = _readable(source, place)
    metadata = _metadata(place, weights)
    division = plan(weights, max_shard_bytes)
    if output is None:
        return _apply(place, place, metadata, weights, division)
    # Beside the target, so that the last step is one rename.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        division_inputs = set(division.replaced) if division else set()
        for name in source.sizes:
            wanted = name in CARRIED_FILES or (name in weights.loaded and name not in division_inputs)
            if wanted or name in metadata or name in TEMPLATE_FILES:
                shutil.copyfile(place / name, temporary / name)
        done = _apply(place, temporary, metadata, weights, division)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return done


def _repair_prefix(source: S3Source, max_shard_bytes: int) -> list[Repair]:
    """Repair copies of the small files, and bring back those that changed: what names others goes last."""
    if MANIFEST in source.sizes:
        raise _finished(source.uri, "give the prefix to import_model.")
    weights = _readable(source, source.uri)
    if plan(weights, max_shard_bytes):
        raise BedrockError(
            f"{source.uri} holds shards above {max_shard_bytes / 1e9:g} GB, which are divided on this machine only. "
            "Merge again with a smaller max_shard_bytes, or download the model, repair it and upload it."
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
        f"{place} is a finished merged model, whose manifest would no longer hold. import_model rewrites it with its "
        f"manifest; {advice}"
    )


def _readable(source: Source, place: Path | str) -> Weights:
    """The weights of a checkpoint whose files can be read.

    Raises:
        BedrockError: some cannot.
    """
    _, _, unreadable = read_files(source)
    weights, bad_weights = read_weights(source)
    if weights is None or unreadable:
        problems = "\n".join(f"- {finding}" for finding in (*unreadable, *bad_weights))
        raise BedrockError(f"{place} cannot be repaired before its files can be read:\n{problems}")
    return weights


def _metadata(directory: Path, weights: Weights) -> dict[str, bytes]:
    """The small files as they should be.

    Raises:
        BedrockError: they are not those of a model.
    """
    try:
        return _rewritten(directory, weights)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BedrockError(
            f"{directory} cannot be repaired: its metadata is not that of a model ({type(error).__name__}: {error}). "
            "Restore the base model's files."
        ) from error


def _rewritten(directory: Path, weights: Weights) -> dict[str, bytes]:
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
    source: Path, target: Path, metadata: dict[str, bytes], weights: Weights, division: Plan | None
) -> list[Repair]:
    done = []
    for name, content in metadata.items():
        path = target / name
        old = path.read_bytes() if path.is_file() else None
        if old != content:
            write_atomically(path, content)
            done.append(Repair(name, "written" if old is None else "rewritten for transformers 4.51.3"))
    # Only now that tokenizer_config.json holds it.
    for name in TEMPLATE_FILES:
        if (target / name).is_file():
            (target / name).unlink()
            done.append(Repair(name, "moved into tokenizer_config.json"))
    if division is not None:
        write_shards(division, source, target)
        done.append(Repair(INDEX, f"weights divided into {len(division.shards)} shards"))
        return done
    for name in replaced_leftovers(source, weights) if source == target else ():
        (target / name).unlink(missing_ok=True)  # weights of a prefix are not copied here
        done.append(Repair(name, "removed: an earlier resharding had replaced it"))
    if weights.index is None and ONE_SHARD not in weights.shards and not duplicates(weights):
        write_index(weights, target)
        done.append(Repair(INDEX, "written from the shards"))
    return done
