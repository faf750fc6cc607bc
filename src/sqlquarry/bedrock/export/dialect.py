"""The export dialect: metadata that the transformers version behind Custom Model Import can read.

Custom Model Import documents transformers 4.51.3, but transformers 5 writes other keys. If 4.51.3 reads these files, it
loses `rope_theta` (10000 instead of, for example, 500000) without an error, and the tokenizer does not load.

Source: "Use Custom model import …", docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html
"""

from __future__ import annotations

import copy

from sqlquarry.bedrock.export.tokenizer_repair import LOADING_KEYS
from sqlquarry.checkpoints.foreign_model import MODEL_TYPES
from sqlquarry.files.metadata import JsonObject
from sqlquarry.tokenizing.added_tokens import NAMED_TOKENS, token_text
from sqlquarry.tokenizing.control_tokens import ending_token

TRANSFORMERS_VERSION = "4.51.3"

# Without these ids, GPT-OSS does not stop ("Use Custom model import …", as above).
GPT_OSS_EOS = [200002, 199999, 200012]

# The configs of these models are nested since 4.52. 4.51.3 fails with: 'dict' object has no attribute 'to_dict'.
FLAT_IN_4_51 = ("qwen2_vl", "qwen2_5_vl")
_NESTED_CONFIGS = ("text_config", "vision_config")
# Copied from config.json into a new generation_config.json.
_GENERATION_KEYS = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")


def model_config(config: JsonObject) -> JsonObject:
    """Convert config.json to the dialect, for example `rope_parameters` to `rope_theta` and `rope_scaling`."""
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
    # Without num_experts, 4.51.3 would build its default of 128 experts.
    if config.get("model_type") == "qwen3_moe" and "num_local_experts" in config:
        config.setdefault("num_experts", config.pop("num_local_experts"))
    if config.get("quantization_config", "") is None:  # 4.51.3 fails at null
        del config["quantization_config"]
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters", None)
    if rope:
        config["rope_theta"] = rope.pop("rope_theta", config.get("rope_theta", 10000.0))
        # A default rope can still have its own setting (Qwen2-VL's mrope_section).
        config["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" or len(rope) > 1 else None
    for name in _NESTED_CONFIGS:
        if isinstance(config.get(name), dict):
            _rewrite_level(config[name])


def tokenizer_config(config: JsonObject, chat_template: str | None) -> JsonObject:
    """Convert tokenizer_config.json to the dialect: a class of 4.51, no list `extra_special_tokens`, inline template.

    If `chat_template` is None, no template is added.
    """
    new = {key: value for key, value in config.items() if key not in LOADING_KEYS}
    if new.get("tokenizer_class") in ("TokenizersBackend", None):
        new["tokenizer_class"] = "PreTrainedTokenizerFast"
    new = renamed_special_tokens(new)
    if chat_template is not None:
        new["chat_template"] = chat_template
    return new


def renamed_special_tokens(config: JsonObject) -> JsonObject:
    """Rename the lists of special tokens for 4.51.3, which fails if `extra_special_tokens` is a list."""
    new = dict(config)
    if isinstance(new.get("extra_special_tokens"), list):
        new["additional_special_tokens"] = new.pop("extra_special_tokens")
    # In 4.51, the dict of named tokens is called `extra_special_tokens`.
    if isinstance(new.get("model_specific_special_tokens"), dict):
        new["extra_special_tokens"] = new.pop("model_specific_special_tokens")
    return new


def generation_config(config: JsonObject, stop_id: int | None, model: JsonObject | None = None) -> JsonObject:
    """Convert generation_config.json so that `eos_token_id` includes the token that ends an answer.

    Missing values come from `model`, the content of config.json.
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


def special_tokens_map(config: JsonObject) -> JsonObject:
    """Create special_tokens_map.json, which transformers 5 no longer writes, from an exported tokenizer_config.json.

    The map contains only texts. If it contained objects, 4.51.3 would prefer their flags to those in the other files.
    """
    named = {name: text for name in NAMED_TOKENS if (text := token_text(config.get(name)))}
    listed = [text for token in config.get("additional_special_tokens") or () if (text := token_text(token))]
    return named | ({"additional_special_tokens": listed} if listed else {})


def special_token_id(tokenizer: JsonObject, stop: str) -> int | None:
    """Return the id in tokenizer.json of the special token at the end of `stop`, or None if there is none."""
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ()) if token.get("special")}
    return ending_token(stop, ids)
