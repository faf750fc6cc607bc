"""Which token ids a model's files give: as transformers 5 reads them (training), and as 4.51.3 does (served imports).

Neither takes tokenizer.json as it is. Version 5 builds some classes anew from vocabulary and merges, 4.51.3 rebuilds
the post-processor of others, and both add tokens that tokenizer_config.json declares. What a version ends up with is
written here as the content of a tokenizer.json that the package `tokenizers` reads literally: a *reading*.

Sources: transformers 5.24 (models/auto/tokenization_auto.py, tokenization_utils_tokenizers.py,
tokenization_utils_base.py and models/*/tokenization_*.py) and 4.51.3 (tokenization_utils_fast.py,
models/*/tokenization_*_fast.py and convert_slow_tokenizer.py). Tests compare with the installed version 5 and with
answers recorded from 4.51.3.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlquarry.errors import MissingExtraError, UnsupportedModelError
from sqlquarry.files.metadata import parse_object, read_bytes
from sqlquarry.tokenizing.added_tokens import (
    CLASS_TOKENS,
    NAMED_TOKENS,
    AddedTokens,
    Declared,
    JsonObject,
    is_untyped,
    special_token,
    token_text,
)
from sqlquarry.tokenizing.readings import Reading

# In 4.51.3 these rebuild the post-processor: whether BOS is added where no option says so; EOS is not.
BOS_BY_OPTION = {"LlamaTokenizer": True, "CodeLlamaTokenizer": True, "GPTNeoXTokenizer": False}
# In 4.51.3 `add_prefix_space`, whatever its value, has these converted from the SentencePiece model.
SENTENCEPIECE_FILES = {"LlamaTokenizer": "tokenizer.model", "T5Tokenizer": "spiece.model"}
# The class that version 5 registers for a model; LlamaForCausalLM has none.
_REGISTERED = dict.fromkeys(("qwen2", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_moe"), "Qwen2Tokenizer")
_REGISTERED |= dict.fromkeys(("gpt_bigcode", "mistral", "mixtral"), "TokenizersBackend") | {"t5": "T5Tokenizer"}
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """The files that say how a model's text becomes tokens.

    Args:
        tokenizer: tokenizer.json.
        config: tokenizer_config.json.
        model: config.json.
        special: special_tokens_map.json.
        added: added_tokens.json.
        sentencepiece: whether the class's SentencePiece model is among the files.
    """

    tokenizer: JsonObject
    config: JsonObject
    model: JsonObject = field(default_factory=dict)
    special: JsonObject = field(default_factory=dict)
    added: JsonObject = field(default_factory=dict)
    sentencepiece: bool = False

    @classmethod
    def read(cls, content: Callable[[str], bytes | None], names: Iterable[str]) -> TokenizerFiles:
        """Read the files of a model.

        Args:
            content: the content of a file; None if there is no such file.
            names: the names of all files.

        Raises:
            OSError, ValueError: a file cannot be read.
        """

        def parsed(name: str) -> JsonObject:
            raw = content(name)
            return {} if raw is None else parse_object(raw, name)

        return cls(
            tokenizer=parsed("tokenizer.json"),
            config=parsed("tokenizer_config.json"),
            model=parsed("config.json"),
            special=parsed("special_tokens_map.json"),
            added=parsed("added_tokens.json"),
            sentencepiece=not {*SENTENCEPIECE_FILES.values()}.isdisjoint(names),
        )

    @classmethod
    def in_directory(cls, directory: Path, rewritten: Mapping[str, bytes] | None = None) -> TokenizerFiles:
        """Read the files in a directory, or what `rewritten` holds in their place.

        Raises:
            OSError, ValueError: a file cannot be read.
        """

        def content(name: str) -> bytes | None:
            if rewritten and name in rewritten:
                return rewritten[name]
            return read_bytes(directory / name) if (directory / name).is_file() else None

        return cls.read(content, [path.name for path in directory.iterdir()])

    @property
    def class_name(self) -> str:
        """Return the tokenizer's class without "Fast", "" if no file names one."""
        name = self.config.get("tokenizer_class") or self.model.get("tokenizer_class") or ""
        return str(name).removesuffix("Fast")


def named_tokens(files: TokenizerFiles) -> Mapping[str, str]:
    """Return the special tokens that 4.51.3 knows by name: bos_token, eos_token, …, each with its text."""
    by_name = Declared.of(files, files.class_name, version=4).by_name
    return {key: text for key, text in by_name.items() if key in NAMED_TOKENS}


def trained_reading(files: TokenizerFiles) -> Reading:
    """Return what transformers 5 reads, which this library trains with.

    A T5Tokenizer, which no causal model has, is taken as its tokenizer.json says.
    """
    name = _class_in_5(files)
    source = files.tokenizer
    reading: JsonObject = {**source, "truncation": None, "padding": None}
    prefix_space = files.config.get("add_prefix_space")
    rebuilt = True
    if name == "LlamaTokenizer":
        legacy = files.config.get("legacy", False)
        _rebuild_metaspace(reading, "never" if prefix_space is False else "always" if legacy else "first")
    elif name == "CodeLlamaTokenizer":
        _rebuild_metaspace(reading, "never" if prefix_space is False else "first")
    elif name == "Qwen2Tokenizer":
        split = {"type": "Split", "pattern": {"Regex": _QWEN2_WORDS}, "behavior": "Isolated", "invert": False}
        steps = [split, _byte_level(add_prefix_space=bool(prefix_space), use_regex=False)]
        _rebuild(reading, {"type": "NFC"}, {"type": "Sequence", "pretokenizers": steps})
    elif name in ("GPT2Tokenizer", "GPTNeoXTokenizer"):
        normalizer = {"type": "NFC"} if name == "GPTNeoXTokenizer" else None
        _rebuild(reading, normalizer, _byte_level(add_prefix_space=bool(prefix_space)))
    else:
        rebuilt = False
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


def served_reading(files: TokenizerFiles) -> Reading:
    """Return what transformers 4.51.3 reads, with which Custom Model Import serves.

    Where that converts a SentencePiece model, this takes its vocabulary from tokenizer.json, which was made of it.

    Raises:
        UnsupportedModelError: 4.51.3 cannot load it.
    """
    name, source, config = files.class_name, files.tokenizer, files.config
    reading: JsonObject = {**source, "truncation": None, "padding": None}
    prefix_space = config.get("add_prefix_space")
    overridden = () if "added_tokens_decoder" in config else files.special
    if wrong := [key for key in NAMED_TOKENS if is_untyped(config.get(key)) and key not in overridden]:
        raise UnsupportedModelError(
            f"{wrong[0]} in tokenizer_config.json is {config[wrong[0]]!r:.200}, which no transformers reads without "
            '"__type": "AddedToken". Name the token by its text.'
        )
    declared = Declared.of(files, name, version=4)
    if slow := converts_sentencepiece(files):
        cause = "from_slow" if config.get("from_slow") else f"add_prefix_space ({prefix_space!r}, as any value would)"
        if name not in SENTENCEPIECE_FILES or not files.sentencepiece:
            missing = SENTENCEPIECE_FILES.get(name, "a SentencePiece model")
            raise UnsupportedModelError(
                f"tokenizer_config.json holds {cause}, for which transformers 4.51.3 converts {missing}, and that is "
                "not there. Remove the key, or add the file."
            )
        if name == "LlamaTokenizer":
            legacy, add = config.get("legacy") in (None, True), bool(prefix_space)
            _rebuild_metaspace(reading, "first" if add else "never")
            if legacy:
                replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
                normalizers = [*([{"type": "Prepend", "prepend": "▁"}] if add else []), replace]
                reading |= {"normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": None}
            reading["model"]["unk_token"] = declared.text("unk_token")
    elif prefix_space is not None or name not in SENTENCEPIECE_FILES:
        # 4.51.3 imposes the option, and its default False, on what the file says; null fails there, and is ignored.
        pre = source.get("pre_tokenizer") or {}
        if "add_prefix_space" in pre and isinstance(wanted := config.get("add_prefix_space", False), bool):
            reading["pre_tokenizer"] = {**pre, "add_prefix_space": wanted}
    vocabulary = AddedTokens(source.get("model"), [] if slow else source.get("added_tokens") or (), version=4)
    if slow:
        for key in ("bos_token", "eos_token"):
            vocabulary.add(special_token(declared.text(key)))
    vocabulary.declare(declared)
    reading["added_tokens"] = vocabulary.listed()
    if name in BOS_BY_OPTION:
        bos, eos = bool(config.get("add_bos_token", BOS_BY_OPTION[name])), bool(config.get("add_eos_token", False))
        for key, adds in (("bos_token", bos), ("eos_token", eos)):
            if adds and not declared.text(key):
                raise UnsupportedModelError(
                    f"tokenizer_config.json says add_{key} and names no {key}, at which transformers 4.51.3 fails. "
                    f"Name the token, or set add_{key} to false."
                )
        reading["post_processor"] = _template(vocabulary, declared, bos=bos, eos=eos)
    return reading


def converts_sentencepiece(files: TokenizerFiles) -> bool:
    """Whether 4.51.3 converts a SentencePiece model in the place of reading tokenizer.json."""
    imposed = files.class_name in SENTENCEPIECE_FILES and files.config.get("add_prefix_space") is not None
    return imposed or bool(files.config.get("from_slow"))


class FileTokenizer:
    """One reading of a model's files, called as transformers' tokenizers are.

    Raises:
        MissingExtraError: the package `tokenizers` is not installed.
        UnsupportedModelError: the package cannot read it.
    """

    def __init__(self, reading: Reading, config: Mapping[str, Any], chat_template: Any = None) -> None:
        if find_spec("tokenizers") is None:
            raise MissingExtraError(
                "counting tokens needs tokenizers, which is not installed. Run: pip install 'sqlquarry[merge]'",
                name="tokenizers",
            )
        from tokenizers import Tokenizer

        try:
            self.backend: Any = Tokenizer.from_str(json.dumps({"version": "1.0", **reading}))
        except Exception as error:  # whatever the Rust side finds wrong with it
            raise UnsupportedModelError(
                f"tokenizer.json cannot be read ({error}). Save the base with a fast tokenizer."
            ) from error
        self.backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
        self.bos_token = token_text(config.get("bos_token")) or None
        self.eos_token = token_text(config.get("eos_token")) or None
        self.bos_token_id, self.eos_token_id = self._id(self.bos_token), self._id(self.eos_token)
        self.chat_template = config.get("chat_template") if chat_template is None else chat_template

    def _id(self, token: str | None) -> int | None:
        found: int | None = None if token is None else self.backend.token_to_id(token)
        return found

    def __call__(self, text: str | Sequence[str], *, add_special_tokens: bool = True) -> dict[str, Any]:
        """Token ids of one text, or of each of several, under "input_ids".

        Raises:
            UnsupportedModelError: the tokenizer has no token for a part of a text, and none for what is unknown.
        """
        try:
            if isinstance(text, str):
                return {"input_ids": self.backend.encode(text, add_special_tokens=add_special_tokens).ids}
            encoded = self.backend.encode_batch(list(text), add_special_tokens=add_special_tokens)
        except Exception as error:  # all that the Rust side raises
            raise UnsupportedModelError(f"the tokenizer cannot encode a text: {error}") from error
        return {"input_ids": [one.ids for one in encoded]}


def _class_in_5(files: TokenizerFiles) -> str:
    """Return the class that AutoTokenizer takes, "" for one that reads tokenizer.json as it is."""
    name, kind = files.class_name, str(files.model.get("model_type"))
    registered = _REGISTERED.get(kind, "")
    if name == "LlamaTokenizer" and kind != "qwen2" and _holds_byte_level(files.tokenizer):
        return ""
    if registered and registered != name:
        name = registered if kind == "qwen2" or not name else name
        return "" if registered == "TokenizersBackend" or name not in CLASS_TOKENS else name
    return name if name in CLASS_TOKENS else ""


def _holds_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    parts = {key: value for key, value in tokenizer.items() if key not in ("model", "added_tokens")}
    return '"ByteLevel"' in json.dumps(parts)


def _rebuild(reading: JsonObject, normalizer: Any, pre_tokenizer: Any) -> None:
    """Keep the vocabulary and merges of a BPE model, and nothing else."""
    model = reading.get("model") or {}
    kept = {key: model[key] for key in ("vocab", "merges") if key in model}
    options = {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "dropout": None}
    reading["model"] = {"type": "BPE", **options, **kept}
    reading |= {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": _byte_level(add_prefix_space=True)}


def _rebuild_metaspace(reading: JsonObject, scheme: str) -> None:
    """As `_rebuild`, for vocabularies that come from SentencePiece."""
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
    """Return the post-processor that puts BOS in front of a text, or EOS behind it."""
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
