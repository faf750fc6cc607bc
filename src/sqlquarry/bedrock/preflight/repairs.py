"""What is mechanical among the findings, mended: metadata, the chat template's place, dtype, index, large shards."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.artifacts import MANIFEST, write_atomically
from sqlquarry.bedrock.chat_template import TEMPLATE_FILES
from sqlquarry.bedrock.dialect import CARRIED_FILES, export_files
from sqlquarry.bedrock.preflight.checkpoint import read_files, read_weights
from sqlquarry.bedrock.preflight.config import QUANTIZATION_KEYS
from sqlquarry.bedrock.preflight.reshard import SHARD_BYTES, Plan, plan, replaced_leftovers, write_index, write_shards
from sqlquarry.bedrock.preflight.source import LocalSource
from sqlquarry.bedrock.preflight.tensors import duplicates, stored_dtype
from sqlquarry.bedrock.weights import ONE_SHARD, Weights, is_full
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.safetensors_header import INDEX
from sqlquarry.text import visible


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
    directory: str | Path, *, output: str | Path | None = None, max_shard_bytes: int = SHARD_BYTES
) -> list[Repair]:
    """Make a local checkpoint what Custom Model Import reads, as far as that is mechanical; weights keep every bit.

    Run again, it does nothing. In place, every file changes whole or not at all; what is not mentioned in the result
    is not touched. With `output`, the result is a new directory of only those files that an import needs.

    Args:
        directory: the checkpoint.
        output: a directory that does not exist yet, or is empty; None repairs in place.
        max_shard_bytes: shards that are larger are divided.

    Raises:
        ConfigError: there is no such directory, `output` is not empty, or a finished merged model would be changed.
        BedrockError: the files cannot be read, or there is not enough space.
    """
    directory = Path(directory)
    source = LocalSource(directory)
    target = directory if output is None else Path(output)
    if output is None and MANIFEST in source.sizes:
        raise ConfigError(
            f"{directory} is a finished merged model, whose manifest would no longer hold. import_model rewrites it at "
            "upload; to have the files, pass output=… to repair."
        )
    if output is not None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty. Give repair(…, output=…) a new directory.")
    _, _, unreadable = read_files(source)
    weights, bad_weights = read_weights(source)
    if weights is None or unreadable:
        problems = "\n".join(f"- {finding}" for finding in (*unreadable, *bad_weights))
        raise BedrockError(f"{directory} cannot be repaired before its files can be read:\n{problems}")
    try:
        metadata = _metadata(directory, weights)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BedrockError(
            f"{directory} cannot be repaired: its metadata is not that of a model ({type(error).__name__}: {error}). "
            "Restore the base model's files."
        ) from error
    division = plan(weights, max_shard_bytes)
    if output is None:
        return _apply(directory, directory, metadata, weights, division)
    # Beside the target, so that the last step is one rename.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        division_inputs = set(division.replaced) if division else set()
        for name in source.sizes:
            wanted = name in CARRIED_FILES or (name in weights.loaded and name not in division_inputs)
            if wanted or name in metadata or name in TEMPLATE_FILES:
                shutil.copyfile(directory / name, temporary / name)
        done = _apply(directory, temporary, metadata, weights, division)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return done


def _metadata(directory: Path, weights: Weights) -> dict[str, bytes]:
    """The small files as they should be."""
    files = export_files(directory)
    config, stored = json.loads(files["config.json"]), stored_dtype(weights)
    left_over = [key for key in QUANTIZATION_KEYS if key in config] if is_full(weights) else []
    for key in left_over:
        del config[key]
    level = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    named = level.get("torch_dtype") or config.get("torch_dtype")
    if stored is not None and named != stored:
        level["torch_dtype"] = stored
    if left_over or (stored is not None and named != stored):
        files["config.json"] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
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
        (target / name).unlink()
        done.append(Repair(name, "removed: an earlier resharding had replaced it"))
    if weights.index is None and ONE_SHARD not in weights.shards and not duplicates(weights):
        write_index(weights, target)
        done.append(Repair(INDEX, "written from the shards"))
    return done
