"""Predict how two versions of transformers read a model's tokenizer files: 5 in training, and 4.51.3 in served imports.

Neither version uses tokenizer.json unchanged. Version 5 rebuilds some classes from vocabulary and merges, 4.51.3
rebuilds the post-processor of others, and both add tokens that tokenizer_config.json declares. The result for a version
is called a *reading* here. It is the content of a tokenizer.json that the package `tokenizers` loads literally.

Sources: transformers 5.24 (models/auto/tokenization_auto.py, tokenization_utils_tokenizers.py,
tokenization_utils_base.py and models/*/tokenization_*.py) and 4.51.3 (tokenization_utils_fast.py,
models/*/tokenization_*_fast.py and convert_slow_tokenizer.py). Tests compare readings with the installed version 5 and
with recorded output of 4.51.3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.tokenizing.added_tokens import (
    CLASS_TOKENS,
    NAMED_TOKENS,
    AddedTokens,
    Declared,
    is_untyped,
    special_token,
)
from sqlquarry.tokenizing.reading_equality import Reading
from sqlquarry.tokenizing.tokenizer_files import SENTENCEPIECE_FILES, TokenizerFiles

# Classes that rebuild the post-processor in 4.51.3, and whether they add BOS by default. None adds EOS by default.
BOS_BY_OPTION = {"LlamaTokenizer": True, "CodeLlamaTokenizer": True, "GPTNeoXTokenizer": False}
# The class that version 5 registers for a model. There is none for LlamaForCausalLM.
_REGISTERED = dict.fromkeys(("qwen2", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_moe"), "Qwen2Tokenizer")
_REGISTERED |= dict.fromkeys(("gpt_bigcode", "mistral", "mixtral"), "TokenizersBackend") | {"t5": "T5Tokenizer"}
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def named_tokens(files: TokenizerFiles) -> Mapping[str, str]:
    """Return name -> text of the special tokens that have a name in 4.51.3, such as bos_token and eos_token."""
    by_name = Declared.of(files, files.class_name, version=4).by_name
    return {key: text for key, text in by_name.items() if key in NAMED_TOKENS}


def trained_reading(files: TokenizerFiles) -> Reading:
    """Return the reading of transformers 5, which this library uses in training.

    For a T5Tokenizer, which no causal model has, tokenizer.json is used unchanged.
    """
    name = _class_in_5(files)
    source = files.tokenizer
    reading: JsonObject = {**source, "truncation": None, "padding": None}
    rebuilt = _rebuild_in_5(reading, name, files.config)
    declared = Declared.of(files, name, version=5)
    vocabulary = AddedTokens(source.get("model"), () if rebuilt else source.get("added_tokens") or (), version=5)
    vocabulary.declare(declared)
    if name == "Qwen2Tokenizer":
        for token in declared.named:
            vocabulary.add(special_token(token["content"]))
    reading["added_tokens"] = vocabulary.listed()
    if name == "GPTNeoXTokenizer":
        reading["post_processor"] = None
    elif name == "CodeLlamaTokenizer":
        reading["post_processor"] = _template(vocabulary, declared, bos=True, eos=False)
    return reading


def _rebuild_in_5(reading: JsonObject, name: str, config: JsonObject) -> bool:
    """Rebuild a class from vocabulary and merges if version 5 does so, and return whether it does."""
    prefix_space = config.get("add_prefix_space")
    if name in ("LlamaTokenizer", "CodeLlamaTokenizer"):
        legacy = name == "LlamaTokenizer" and config.get("legacy", False)
        _rebuild_metaspace(reading, "never" if prefix_space is False else "always" if legacy else "first")
    elif name == "Qwen2Tokenizer":
        split = {"type": "Split", "pattern": {"Regex": _QWEN2_WORDS}, "behavior": "Isolated", "invert": False}
        steps = [split, _byte_level(add_prefix_space=bool(prefix_space), use_regex=False)]
        _rebuild(reading, {"type": "NFC"}, {"type": "Sequence", "pretokenizers": steps})
    elif name in ("GPT2Tokenizer", "GPTNeoXTokenizer"):
        normalizer = {"type": "NFC"} if name == "GPTNeoXTokenizer" else None
        _rebuild(reading, normalizer, _byte_level(add_prefix_space=bool(prefix_space)))
    else:
        return False
    return True


def served_reading(files: TokenizerFiles) -> Reading:
    """Return the reading of transformers 4.51.3, which Custom Model Import uses to serve models.

    If 4.51.3 converts a SentencePiece model, the vocabulary is taken from tokenizer.json, which was converted from it.

    Raises:
        UnsupportedModelError: 4.51.3 cannot load the tokenizer.
    """
    name, source, config = files.class_name, files.tokenizer, files.config
    _refuse_untyped_tokens(files)
    reading: JsonObject = {**source, "truncation": None, "padding": None}
    declared = Declared.of(files, name, version=4)
    converted = converts_sentencepiece(files)
    if converted:
        _require_sentencepiece(files)
        if name == "LlamaTokenizer":
            _convert_llama(reading, config)
            reading["model"]["unk_token"] = declared.text("unk_token")
    elif config.get("add_prefix_space") is not None or name not in SENTENCEPIECE_FILES:
        # In 4.51.3 the option, or its default False, overrides the file. With null it fails, so null is ignored here.
        pre = source.get("pre_tokenizer") or {}
        if "add_prefix_space" in pre and isinstance(wanted := config.get("add_prefix_space", False), bool):
            reading["pre_tokenizer"] = {**pre, "add_prefix_space": wanted}
    vocabulary = AddedTokens(source.get("model"), () if converted else source.get("added_tokens") or (), version=4)
    if converted:
        for key in ("bos_token", "eos_token"):
            vocabulary.add(special_token(declared.text(key)))
    vocabulary.declare(declared)
    reading["added_tokens"] = vocabulary.listed()
    if name in BOS_BY_OPTION:
        bos, eos = _added_ends(config, declared, bos_by_default=BOS_BY_OPTION[name])
        reading["post_processor"] = _template(vocabulary, declared, bos=bos, eos=eos)
    return reading


def _refuse_untyped_tokens(files: TokenizerFiles) -> None:
    config = files.config
    overridden = () if "added_tokens_decoder" in config else files.special
    for key in NAMED_TOKENS:
        if is_untyped(config.get(key)) and key not in overridden:
            raise UnsupportedModelError(
                f"{key} in tokenizer_config.json is {config[key]!r:.200}, which transformers cannot read without "
                '"__type": "AddedToken". Replace it by the text of the token.'
            )


def _require_sentencepiece(files: TokenizerFiles) -> None:
    if files.class_name in SENTENCEPIECE_FILES and files.sentencepiece:
        return
    config = files.config
    imposed = f"add_prefix_space with the value {config.get('add_prefix_space')!r} (any value has this effect)"
    missing = SENTENCEPIECE_FILES.get(files.class_name, "a SentencePiece model")
    raise UnsupportedModelError(
        f"tokenizer_config.json has {'from_slow' if config.get('from_slow') else imposed}, which makes transformers "
        f"4.51.3 convert {missing}, but that file is missing. Remove the key or add the file."
    )


def _convert_llama(reading: JsonObject, config: JsonObject) -> None:
    """Change a reading as 4.51.3 does when it converts Llama's SentencePiece model (convert_slow_tokenizer.py)."""
    adds_space = bool(config.get("add_prefix_space"))
    _rebuild_metaspace(reading, "first" if adds_space else "never")
    if config.get("legacy") in (None, True):
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        normalizers = [*([{"type": "Prepend", "prepend": "▁"}] if adds_space else []), replace]
        reading |= {"normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": None}


def _added_ends(config: JsonObject, declared: Declared, *, bos_by_default: bool) -> tuple[bool, bool]:
    """Return whether 4.51.3 adds BOS, and whether it adds EOS.

    Raises:
        UnsupportedModelError: it would add a token that no file names.
    """
    bos, eos = bool(config.get("add_bos_token", bos_by_default)), bool(config.get("add_eos_token", False))
    for key, adds in (("bos_token", bos), ("eos_token", eos)):
        if adds and not declared.text(key):
            raise UnsupportedModelError(
                f"transformers 4.51.3 fails, because add_{key} applies to this tokenizer, but no file names a {key}. "
                f"Add {key} to tokenizer_config.json, or set add_{key} to false."
            )
    return bos, eos


def converts_sentencepiece(files: TokenizerFiles) -> bool:
    """Return whether 4.51.3 converts a SentencePiece model instead of reading tokenizer.json."""
    imposed = files.class_name in SENTENCEPIECE_FILES and files.config.get("add_prefix_space") is not None
    return imposed or bool(files.config.get("from_slow"))


def _class_in_5(files: TokenizerFiles) -> str:
    """Return the class that AutoTokenizer chooses, or "" if it chooses one that uses tokenizer.json unchanged."""
    name, kind = files.class_name, str(files.model.get("model_type"))
    registered = _REGISTERED.get(kind, "")
    if name == "LlamaTokenizer" and kind != "qwen2" and _holds_byte_level(files.tokenizer):
        return ""
    if registered and registered != name:
        name = registered if kind == "qwen2" or not name else name
        return "" if registered == "TokenizersBackend" or name not in CLASS_TOKENS else name
    return name if name in CLASS_TOKENS else ""


def _holds_byte_level(tokenizer: JsonObject) -> bool:
    parts = {key: value for key, value in tokenizer.items() if key not in ("model", "added_tokens")}
    return '"ByteLevel"' in json.dumps(parts)


def _rebuild(reading: JsonObject, normalizer: JsonObject | None, pre_tokenizer: JsonObject) -> None:
    """Reduce a BPE model to its vocabulary and merges, with new steps before and after."""
    model = reading.get("model") or {}
    kept = {key: model[key] for key in ("vocab", "merges") if key in model}
    options = {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "dropout": None}
    reading["model"] = {"type": "BPE", **options, **kept}
    reading |= {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": _byte_level(add_prefix_space=True)}


def _rebuild_metaspace(reading: JsonObject, scheme: str) -> None:
    """Do the same as `_rebuild`, for vocabularies that come from SentencePiece."""
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    _rebuild(reading, None, metaspace)
    reading["model"] |= {"fuse_unk": True, "byte_fallback": True}
    steps: list[JsonObject] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if scheme != "never":
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    reading["decoder"] = {"type": "Sequence", "decoders": steps}


def _byte_level(*, add_prefix_space: bool, use_regex: bool = True) -> JsonObject:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _template(vocabulary: AddedTokens, declared: Declared, *, bos: bool, eos: bool) -> JsonObject | None:
    """Return the post-processor that adds BOS before a text or EOS after it, or None if neither is added."""
    wanted = [("bos_token", bos), ("eos_token", eos)]
    tokens = {key: declared.text(key) for key, adds in wanted if adds and declared.text(key)}
    if not tokens:
        return None
    pieces: dict[str, list[JsonObject]] = {
        key: [{"SpecialToken": {"id": tokens[key], "type_id": 0}}] if key in tokens else [] for key, _ in wanted
    }
    single = [*pieces["bos_token"], {"Sequence": {"id": "A", "type_id": 0}}, *pieces["eos_token"]]
    pair = [*single, *pieces["bos_token"], {"Sequence": {"id": "B", "type_id": 1}}, *pieces["eos_token"]]
    ids = {text: vocabulary.id(text) for text in tokens.values()}
    special = {text: {"id": text, "ids": [id_], "tokens": [text]} for text, id_ in ids.items()}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
