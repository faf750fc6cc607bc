"""The export dialect: metadata of a merged model as the transformers version behind Custom Model Import reads it.

Custom Model Import documents transformers 4.51.3, while transformers 5 writes other keys. Read back with 4.51.3 those
lose `rope_theta` (10000 instead of, say, 500000) without any error, and the tokenizer does not load. Only small files
are rewritten, in memory; weights and tokenizer.json are the same in both versions.

Source: "Use Custom model import …", docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlquarry.prompt import PromptFormatter

TRANSFORMERS_VERSION = "4.51.3"
OPTIONAL_FILES = ("generation_config.json", "special_tokens_map.json")
JsonObject = dict[str, Any]

# Keys of transformers 5 that say how the tokenizer was loaded, not what it is.
_LOADING_KEYS = ("backend", "is_local", "local_files_only")
_NESTED_CONFIGS = ("text_config", "vision_config")
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# In 4.51 these rebuild the post-processor from `add_bos_token`, whose default is True, whatever tokenizer.json says.
_BOS_BY_OPTION = ("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast")


def export_files(directory: Path) -> dict[str, bytes]:
    """The rewritten metadata files of a merged model: name -> content.

    A file that already speaks the dialect comes out byte for byte. The chat template is the prompt's own and stands in
    tokenizer_config.json, the one place that every Bedrock page accepts.

    Args:
        directory: holds config.json, tokenizer_config.json, tokenizer.json and prompt.json; generation_config.json and
            special_tokens_map.json are made where they are missing.

    Raises:
        OSError, ValueError: a file is missing or is not JSON.
        ConfigError, IncompleteArtifactError: the prompt is missing, edited or not bound to a base model.
    """
    formatter = PromptFormatter.load(directory)
    template = formatter.chat_template
    assert formatter.tokens is not None  # noqa: S101 - chat_template refuses an unbound formatter
    adds_bos = formatter.tokens.adds_bos
    stop_id = special_token_id(read_json(directory / "tokenizer.json"), formatter.tokens.stop)

    config = _rewrite(directory / "config.json", model_config)
    tokenizer = _rewrite(
        directory / "tokenizer_config.json", lambda source: tokenizer_config(source, template, adds_bos=adds_bos)
    )
    eos = json.loads(config).get("eos_token_id")
    generation = _rewrite(
        directory / "generation_config.json",
        lambda source: generation_config({"eos_token_id": eos} | source, stop_id),
    )
    special = _rewrite(
        directory / "special_tokens_map.json", lambda source: source or special_tokens_map(json.loads(tokenizer))
    )
    return {
        "config.json": config,
        "generation_config.json": generation,
        "special_tokens_map.json": special,
        "tokenizer_config.json": tokenizer,
    }


def model_config(config: Mapping[str, Any]) -> JsonObject:
    """config.json in the dialect: `rope_parameters` -> `rope_theta` + `rope_scaling`, `dtype` -> `torch_dtype`."""
    new = copy.deepcopy(dict(config))
    _rewrite_level(new)
    if new != config:
        new["transformers_version"] = TRANSFORMERS_VERSION
    return new


def _rewrite_level(config: JsonObject) -> None:
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


def tokenizer_config(config: Mapping[str, Any], chat_template: str, *, adds_bos: bool) -> JsonObject:
    """tokenizer_config.json in the dialect: a class of 4.51, no list-valued `extra_special_tokens`, template inline."""
    new = {key: value for key, value in config.items() if key not in _LOADING_KEYS}
    if new.get("tokenizer_class") in ("TokenizersBackend", None):
        new["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(new.get("extra_special_tokens"), list):
        new["additional_special_tokens"] = new.pop("extra_special_tokens")
    if new["tokenizer_class"] in _BOS_BY_OPTION and new.get("add_bos_token", True) != adds_bos:
        new["add_bos_token"] = adds_bos
    new["chat_template"] = chat_template
    return new


def generation_config(config: Mapping[str, Any], stop_id: int | None) -> JsonObject:
    """generation_config.json whose `eos_token_id` includes the token that ends an answer."""
    new = dict(config)
    eos = new.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if stop_id is not None and stop_id not in ids:
        new["eos_token_id"] = [*ids, stop_id] if ids else stop_id
        new["transformers_version"] = TRANSFORMERS_VERSION
    return new


def special_tokens_map(config: Mapping[str, Any]) -> JsonObject:
    """special_tokens_map.json, which transformers 5 no longer writes, from an exported tokenizer_config.json."""
    names = (*_NAMED_TOKENS, "additional_special_tokens")
    return {name: config[name] for name in names if config.get(name)}


def special_token_id(tokenizer: Mapping[str, Any], stop: str) -> int | None:
    """Id of the special token that `stop` ends with, read from tokenizer.json; None where it ends with none."""
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ()) if token.get("special")}
    matches = [content for content in ids if content and stop.endswith(content)]
    return int(ids[max(matches, key=len)]) if matches else None


def read_json(path: Path) -> JsonObject:
    """A JSON object from a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, or not an object.
    """
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds a JSON {type(content).__name__}, not an object")  # noqa: TRY004 - one error for a bad file
    return content


def _rewrite(path: Path, change: Callable[[JsonObject], JsonObject]) -> bytes:
    source = {} if path.name in OPTIONAL_FILES and not path.is_file() else read_json(path)
    new = change(source)
    if path.is_file() and new == source:
        return path.read_bytes()
    return (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode()
