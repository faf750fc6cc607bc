"""The export dialect: metadata of a merged model as the transformers version behind Custom Model Import reads it.

Custom Model Import documents transformers 4.51.3, while transformers 5 writes other keys. Read back with 4.51.3 those
lose `rope_theta` (10000 instead of, say, 500000) without any error, and the tokenizer does not load.

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

# Without them GPT-OSS does not stop ("Use Custom model import …", as above).
GPT_OSS_EOS = [200002, 199999, 200012]

# Nested since 4.52; 4.51.3 fails at it: 'dict' object has no attribute 'to_dict'.
FLAT_IN_4_51 = ("qwen2_vl", "qwen2_5_vl")
_NESTED_CONFIGS = ("text_config", "vision_config")
# What a generation_config.json made from config.json takes over.
_GENERATION_KEYS = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")


def model_config(config: JsonObject) -> JsonObject:
    """Write config.json in the dialect, `rope_theta` and `rope_scaling` instead of `rope_parameters` and so on."""
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


def tokenizer_config(config: JsonObject, chat_template: str | None) -> JsonObject:
    """Write tokenizer_config.json in the dialect: a class of 4.51, no list `extra_special_tokens`, the template inline.

    A `chat_template` of None leaves the template out.
    """
    new = {key: value for key, value in config.items() if key not in LOADING_KEYS}
    if new.get("tokenizer_class") in ("TokenizersBackend", None):
        new["tokenizer_class"] = "PreTrainedTokenizerFast"
    new = renamed_special_tokens(new)
    if chat_template is not None:
        new["chat_template"] = chat_template
    return new


def renamed_special_tokens(config: JsonObject) -> JsonObject:
    """Call the lists of special tokens as 4.51.3 does, which fails at a list in `extra_special_tokens`."""
    new = dict(config)
    if isinstance(new.get("extra_special_tokens"), list):
        new["additional_special_tokens"] = new.pop("extra_special_tokens")
    # The dict of named tokens has the list's former name in 4.51.
    if isinstance(new.get("model_specific_special_tokens"), dict):
        new["extra_special_tokens"] = new.pop("model_specific_special_tokens")
    return new


def generation_config(config: JsonObject, stop_id: int | None, model: JsonObject | None = None) -> JsonObject:
    """Write generation_config.json with an `eos_token_id` that includes the token which ends an answer.

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


def special_tokens_map(config: JsonObject) -> JsonObject:
    """Make special_tokens_map.json, which transformers 5 no longer writes, from an exported tokenizer_config.json.

    It holds texts only: 4.51.3 imposes the flags of an object on those that the other files give a token.
    """
    named = {name: text for name in NAMED_TOKENS if (text := token_text(config.get(name)))}
    listed = [text for token in config.get("additional_special_tokens") or () if (text := token_text(token))]
    return named | ({"additional_special_tokens": listed} if listed else {})


def special_token_id(tokenizer: JsonObject, stop: str) -> int | None:
    """Return the id of the special token that `stop` ends with, by tokenizer.json; None if it ends with none."""
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ()) if token.get("special")}
    return ending_token(stop, ids)
