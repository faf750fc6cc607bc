"""The metadata files that an export rewrites in the dialect, and the names of the files that travel as they are.

Only small files are rewritten, in memory; tokenizer.json among them if the two versions of transformers make other
tokens of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from sqlquarry.bedrock.export.chat_template import special_tokens, templates, turn_end
from sqlquarry.bedrock.export.dialect import (
    generation_config,
    model_config,
    renamed_special_tokens,
    special_token_id,
    special_tokens_map,
    tokenizer_config,
)
from sqlquarry.bedrock.export.tokenizer_repair import repaired, saved_by_5, wanted_reading
from sqlquarry.checkpoints.safetensors_header import INDEX
from sqlquarry.errors import ConfigError
from sqlquarry.files.metadata import JsonObject, json_bytes, parse_object, read_bytes, read_object
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

OPTIONAL_FILES = ("generation_config.json", "special_tokens_map.json")
# What a server may read apart from *.safetensors and the files that `export_files` makes; nothing else is uploaded.
CARRIED_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    INDEX,
    PROMPT_FILE,
)


def export_files(directory: Path, formatter: PromptFormatter | None = None) -> dict[str, bytes]:
    """Rewrite the metadata files of a checkpoint: name -> content.

    A file that is in the dialect already comes out byte for byte. The chat template goes into tokenizer_config.json,
    the one place that every Bedrock page accepts: the prompt's own if there is a prompt.json, else the checkpoint's.
    tokenizer.json is among the files only if it must change (see `tokenizer_repair`).

    Args:
        directory: holds config.json, tokenizer_config.json and tokenizer.json; generation_config.json and
            special_tokens_map.json are made if they are missing.
        formatter: the prompt to serve if there is no prompt.json; None keeps the checkpoint's own template.

    Raises:
        OSError, ValueError: a file is missing or is not JSON.
        ConfigError, IncompleteArtifactError: the prompt is edited or not bound to a base model.
    """
    source = read_object(directory / "tokenizer_config.json")
    own = TokenizerFiles.in_directory(directory)
    if (directory / PROMPT_FILE).is_file():
        formatter = PromptFormatter.load(directory)
    template, stop = _served(formatter) if formatter else _own_prompt(directory, source)
    config = _rewrite(directory / "config.json", model_config)
    tokenizer = _rewrite(directory / "tokenizer_config.json", lambda content: tokenizer_config(content, template))
    stop_id, model = special_token_id(own.tokenizer, stop), parse_object(config, "config.json")
    generation = _rewrite(
        directory / "generation_config.json", lambda content: generation_config(content, stop_id, model)
    )
    special = _rewrite(
        directory / "special_tokens_map.json",
        lambda content: renamed_special_tokens(content) if content else special_tokens_map(json.loads(tokenizer)),
    )
    files = {
        "config.json": config,
        "generation_config.json": generation,
        "special_tokens_map.json": special,
        "tokenizer_config.json": tokenizer,
    }
    return files | _repaired_index(directory) | _repaired_tokenizer(own, files, by_5=formatter is not None)


def _repaired_index(directory: Path) -> dict[str, bytes]:
    """Return the index of shards, if it lacks the metadata without which 4.51.3 does not read it."""
    path = directory / INDEX
    try:
        index = read_object(path)
    except (OSError, ValueError):
        return {}  # there is none, or whoever reads the weights says what is wrong with it
    return {} if isinstance(index.get("metadata"), dict) else {INDEX: json_bytes({**index, "metadata": {}})}


def _repaired_tokenizer(own: TokenizerFiles, exported: Mapping[str, bytes], *, by_5: bool) -> dict[str, bytes]:
    """Return the tokenizer's files if 4.51.3 would make other ids of the exported ones than the training did."""
    by_5 = by_5 or saved_by_5(own)
    files = replace(
        own,
        config=parse_object(exported["tokenizer_config.json"], "tokenizer_config.json"),
        model=parse_object(exported["config.json"], "config.json"),
        special=parse_object(exported["special_tokens_map.json"], "special_tokens_map.json"),
    )
    changed = repaired(files, wanted_reading(own, by_5=by_5), by_5=by_5)
    if changed is files:
        return {}
    new = {"tokenizer_config.json": json_bytes(changed.config)}
    return new if changed.tokenizer is files.tokenizer else new | {"tokenizer.json": json_bytes(changed.tokenizer)}


def _served(formatter: PromptFormatter) -> tuple[str, str]:
    """Return the chat template, and what ends an answer."""
    template = formatter.chat_template
    assert formatter.tokens is not None  # noqa: S101 - chat_template refuses an unbound formatter
    return template, formatter.tokens.stop


def _own_prompt(directory: Path, source: JsonObject) -> tuple[str | None, str]:
    """Return the same as `_served` for a checkpoint that keeps its own prompt."""

    def read(name: str) -> bytes | None:
        return read_bytes(directory / name) if (directory / name).is_file() else None

    own = next(iter(templates(read, source).values()), None)
    try:
        stop = turn_end(own, special_tokens(source)) if own else ""
    except ConfigError:
        stop = ""  # preflight says so; what answers end with is unknown then
    return own, stop


def _rewrite(path: Path, change: Callable[[JsonObject], JsonObject]) -> bytes:
    """Return the file's content after `change`; its own bytes if nothing changes."""
    source = {} if path.name in OPTIONAL_FILES and not path.is_file() else read_object(path)
    new = change(source)
    if path.is_file() and new == source:
        return read_bytes(path)
    return json_bytes(new)
