"""Rewrite the metadata files of an export in the dialect, and list the files that are uploaded unchanged.

Only small files are rewritten, in memory. tokenizer.json is one of them if the two versions of transformers read
different tokens from it.
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
from sqlquarry.bedrock.export.tokenizer_repair import prompted_reading, repaired, saved_by_5, wanted_reading
from sqlquarry.checkpoints.safetensors_header import INDEX
from sqlquarry.errors import ConfigError
from sqlquarry.files.metadata import JsonObject, json_bytes, parse_object, read_bytes, read_object
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

OPTIONAL_FILES = ("generation_config.json", "special_tokens_map.json")
# A server may read these files, *.safetensors and the files from `export_files`. Nothing else is uploaded.
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
    """Rewrite the metadata files of a checkpoint and return name -> content.

    A file that is already in the dialect keeps every byte. The chat template moves into tokenizer_config.json, because
    every Bedrock page accepts it there. With a prompt.json it is the prompt's template, otherwise the checkpoint's.
    tokenizer.json is included only if it must change (see `tokenizer_repair`).

    Args:
        directory: contains config.json, tokenizer_config.json and tokenizer.json. If generation_config.json or
            special_tokens_map.json is missing, it is created.
        formatter: the prompt to serve if there is no prompt.json. None keeps the checkpoint's own template.

    Raises:
        OSError, ValueError: a file is missing or is not JSON.
        ConfigError, IncompleteArtifactError: the prompt was edited or is not bound to a base model.
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
    return files | _repaired_index(directory) | _repaired_tokenizer(own, files, formatter)


def _repaired_index(directory: Path) -> dict[str, bytes]:
    """Return the index of shards with "metadata" if it lacks that key, because 4.51.3 cannot read it without."""
    path = directory / INDEX
    try:
        index = read_object(path)
    except (OSError, ValueError):
        return {}  # there is no index, or the code that reads the weights reports the problem
    return {} if isinstance(index.get("metadata"), dict) else {INDEX: json_bytes({**index, "metadata": {}})}


def _repaired_tokenizer(
    own: TokenizerFiles, exported: Mapping[str, bytes], formatter: PromptFormatter | None
) -> dict[str, bytes]:
    """Return repaired tokenizer files if 4.51.3 would read other ids from the exported files than the training did."""
    by_5 = formatter is not None or saved_by_5(own)
    files = replace(
        own,
        config=parse_object(exported["tokenizer_config.json"], "tokenizer_config.json"),
        model=parse_object(exported["config.json"], "config.json"),
        special=parse_object(exported["special_tokens_map.json"], "special_tokens_map.json"),
    )
    wanted = prompted_reading(wanted_reading(own, by_5=by_5), formatter)
    changed = repaired(files, wanted, by_5=by_5)
    if changed is files:
        return {}
    new = {"tokenizer_config.json": json_bytes(changed.config)}
    return new if changed.tokenizer is files.tokenizer else new | {"tokenizer.json": json_bytes(changed.tokenizer)}


def _served(formatter: PromptFormatter) -> tuple[str, str]:
    """Return a prompt's chat template and the text that ends an answer."""
    template = formatter.chat_template
    assert formatter.tokens is not None  # noqa: S101 - `chat_template` has refused an unbound formatter
    return template, formatter.tokens.stop


def _own_prompt(directory: Path, source: JsonObject) -> tuple[str | None, str]:
    """Return a checkpoint's own chat template (or None) and the text that ends an answer."""

    def read(name: str) -> bytes | None:
        return read_bytes(directory / name) if (directory / name).is_file() else None

    own = next(iter(templates(read, source).values()), None)
    try:
        stop = turn_end(own, special_tokens(source)) if own else ""
    except ConfigError:
        stop = ""  # preflight reports the broken template, and the end of an answer stays unknown
    return own, stop


def _rewrite(path: Path, change: Callable[[JsonObject], JsonObject]) -> bytes:
    """Return the file's content after `change`, or its original bytes if nothing changes."""
    source = {} if path.name in OPTIONAL_FILES and not path.is_file() else read_object(path)
    new = change(source)
    if path.is_file() and new == source:
        return read_bytes(path)
    return json_bytes(new)
