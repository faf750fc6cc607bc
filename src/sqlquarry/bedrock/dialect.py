"""The export dialect: metadata of a merged model as the transformers version behind Custom Model Import reads it.

Custom Model Import documents transformers 4.51.3, while transformers 5 writes other keys. Read back with 4.51.3 those
lose `rope_theta` (10000 instead of, say, 500000) without any error, and the tokenizer does not load. Only small files
are rewritten, in memory; tokenizer.json among them where the two versions make other tokens of it.

Source: "Use Custom model import …", docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlquarry.bedrock.chat_template import special_tokens, templates, turn_end
from sqlquarry.bedrock.tokenizer_files import LOADING_KEYS, repaired, saved_by_5, wanted_reading
from sqlquarry.checkpoints.foreign_model import MODEL_TYPES
from sqlquarry.checkpoints.safetensors_header import INDEX
from sqlquarry.errors import ConfigError
from sqlquarry.files.metadata import json_bytes, parse_object, read_bytes, read_object
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter
from sqlquarry.tokenizing.added_tokens import NAMED_TOKENS, token_text
from sqlquarry.tokenizing.control_tokens import ending_token
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

TRANSFORMERS_VERSION = "4.51.3"
OPTIONAL_FILES = ("generation_config.json", "special_tokens_map.json")
# Besides *.safetensors and the files that `export_files` makes, what a server may read; nothing else need travel.
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
JsonObject = dict[str, Any]

# Without them GPT-OSS does not stop ("Use Custom model import …", as above).
GPT_OSS_EOS = [200002, 199999, 200012]

# Nested since 4.52; 4.51.3 fails at it: 'dict' object has no attribute 'to_dict'.
FLAT_IN_4_51 = ("qwen2_vl", "qwen2_5_vl")
_NESTED_CONFIGS = ("text_config", "vision_config")
# What a generation_config.json made from config.json takes over.
_GENERATION_KEYS = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")


def export_files(directory: Path, formatter: PromptFormatter | None = None) -> dict[str, bytes]:
    """The rewritten metadata files of a checkpoint: name -> content.

    A file that already speaks the dialect comes out byte for byte. The chat template stands in tokenizer_config.json,
    the one place that every Bedrock page accepts: the prompt's own where there is a prompt.json, else the checkpoint's.

    tokenizer.json is among the files only if it must change (see `tokenizer_files`).

    Args:
        directory: holds config.json, tokenizer_config.json and tokenizer.json; generation_config.json and
            special_tokens_map.json are made where they are missing.
        formatter: the prompt to serve where there is no prompt.json; None keeps the checkpoint's own template.

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
    """The index of shards, if it lacks the metadata without which 4.51.3 does not read it."""
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
    """Chat template, and what ends an answer."""
    template = formatter.chat_template
    assert formatter.tokens is not None  # noqa: S101 - chat_template refuses an unbound formatter
    return template, formatter.tokens.stop


def _own_prompt(directory: Path, source: JsonObject) -> tuple[str | None, str]:
    """As `_served`, for a checkpoint that is not rewritten."""

    def read(name: str) -> bytes | None:
        return read_bytes(directory / name) if (directory / name).is_file() else None

    own = next(iter(templates(read, source).values()), None)
    try:
        stop = turn_end(own, special_tokens(source)) if own else ""
    except ConfigError:
        stop = ""  # preflight says so; what answers end with is unknown then
    return own, stop


def model_config(config: Mapping[str, Any]) -> JsonObject:
    """config.json in the dialect: `rope_parameters` -> `rope_theta` + `rope_scaling`, `dtype` -> `torch_dtype`, …."""
    new = copy.deepcopy(dict(config))
    names = new.get("architectures")
    if new.get("model_type") is None and isinstance(names, list) and names and str(names[0]) in MODEL_TYPES:
        new["model_type"] = MODEL_TYPES[names[0]]
    _rewrite_level(new)
    if new.get("model_type") in FLAT_IN_4_51 and isinstance(new.get("text_config"), dict):
        text = new.pop("text_config")
        new = {key: value for key, value in text.items() if key not in ("architectures", "model_type")} | new
    if new != config:
        new["transformers_version"] = TRANSFORMERS_VERSION
    return new


def _rewrite_level(config: JsonObject) -> None:
    # 4.51.3 would build 128 experts, its default.
    if config.get("model_type") == "qwen3_moe" and "num_local_experts" in config:
        config.setdefault("num_experts", config.pop("num_local_experts"))
    if config.get("quantization_config", "") is None:  # 4.51.3 fails at null
        del config["quantization_config"]
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters", None)
    if rope:
        config["rope_theta"] = rope.pop("rope_theta", config.get("rope_theta", 10000.0))
        # A default rope can still carry a setting of its own (Qwen2-VL's mrope_section).
        config["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" or len(rope) > 1 else None
    for name in _NESTED_CONFIGS:
        if isinstance(config.get(name), dict):
            _rewrite_level(config[name])


def tokenizer_config(config: Mapping[str, Any], chat_template: str | None) -> JsonObject:
    """tokenizer_config.json in the dialect: a class of 4.51, no list-valued `extra_special_tokens`, template inline.

    None leaves the chat template out.
    """
    new = {key: value for key, value in config.items() if key not in LOADING_KEYS}
    if new.get("tokenizer_class") in ("TokenizersBackend", None):
        new["tokenizer_class"] = "PreTrainedTokenizerFast"
    new = renamed_special_tokens(new)
    if chat_template is not None:
        new["chat_template"] = chat_template
    return new


def renamed_special_tokens(config: Mapping[str, Any]) -> JsonObject:
    """The lists of special tokens under the names of 4.51.3, which fails at a list in `extra_special_tokens`."""
    new = dict(config)
    if isinstance(new.get("extra_special_tokens"), list):
        new["additional_special_tokens"] = new.pop("extra_special_tokens")
    # The dict of named tokens has the list's former name in 4.51.
    if isinstance(new.get("model_specific_special_tokens"), dict):
        new["extra_special_tokens"] = new.pop("model_specific_special_tokens")
    return new


def generation_config(
    config: Mapping[str, Any], stop_id: int | None, model: Mapping[str, Any] | None = None
) -> JsonObject:
    """generation_config.json whose `eos_token_id` includes the token that ends an answer.

    What is missing comes from `model`, the content of config.json.
    """
    model = model or {}
    new = dict(config)
    for key in ("eos_token_id",) if config else _GENERATION_KEYS:
        if new.get(key) is None and model.get(key) is not None:
            new[key] = model[key]
    eos = new.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if model.get("architectures") == ["GptOssForCausalLM"]:
        missing = [token for token in GPT_OSS_EOS if token not in ids]
    else:
        missing = [] if stop_id is None or stop_id in ids else [stop_id]
    if missing:
        ids = [*ids, *missing]
        new["eos_token_id"] = ids if len(ids) > 1 else ids[0]
        new["transformers_version"] = TRANSFORMERS_VERSION
    return new


def special_tokens_map(config: Mapping[str, Any]) -> JsonObject:
    """special_tokens_map.json, which transformers 5 no longer writes, from an exported tokenizer_config.json.

    It holds texts only: 4.51.3 imposes the flags of an object on those that the other files give a token.
    """
    named = {name: text for name in NAMED_TOKENS if (text := token_text(config.get(name)))}
    listed = [text for token in config.get("additional_special_tokens") or () if (text := token_text(token))]
    return named | ({"additional_special_tokens": listed} if listed else {})


def special_token_id(tokenizer: Mapping[str, Any], stop: str) -> int | None:
    """Id of the special token that `stop` ends with, read from tokenizer.json; None where it ends with none."""
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ()) if token.get("special")}
    return ending_token(stop, ids)


def _rewrite(path: Path, change: Callable[[JsonObject], JsonObject]) -> bytes:
    """The file's content after `change`; its own bytes where nothing changes."""
    source = {} if path.name in OPTIONAL_FILES and not path.is_file() else read_object(path)
    new = change(source)
    if path.is_file() and new == source:
        return read_bytes(path)
    return json_bytes(new)
