"""Collect the added and special tokens that a tokenizer's files declare, and give them ids.

Sources: those of `readings`. Ids and flags follow `tokenizers` 0.21 and 0.23 (added_vocabulary.rs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from sqlquarry.files.metadata import JsonObject
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_END = "<|endoftext|>"
_GPT = {"unk_token": _END, "bos_token": _END, "eos_token": _END}
# The named tokens of a class if tokenizer_config.json does not name them.
CLASS_TOKENS: dict[str, dict[str, str]] = {
    "LlamaTokenizer": _LLAMA,
    "CodeLlamaTokenizer": _LLAMA,
    "GPT2Tokenizer": _GPT,
    "GPTNeoXTokenizer": _GPT,
    "Qwen2Tokenizer": {"unk_token": _END, "eos_token": _END, "pad_token": _END},
}
_INFILLING = {f"{part.lower()}_token": f"▁<{part[:3].upper()}>" for part in ("prefix", "middle", "suffix")}
_INFILLING["eot_token"] = "▁<EOT>"  # noqa: S105 - the text of a token, not a password
_FORMER_LIST, _LIST = "additional_special_tokens", "extra_special_tokens"  # the names before and in transformers 5
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class Declared:
    """Tokens that the configuration declares.

    Args:
        decoder: the tokens with an id, in the order of their ids.
        named: the special tokens, each with its flags. If only the text is known, there is only `content`.
        by_name: attribute -> text, such as "bos_token" -> "<s>".
    """

    decoder: tuple[JsonObject, ...]
    named: tuple[JsonObject, ...]
    by_name: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return the text of the token with this name, or "" if the tokenizer has none."""
        return self.by_name.get(name, "")

    @classmethod
    def of(cls, files: TokenizerFiles, name: str, *, version: int) -> Declared:
        """Collect the declared tokens in the same way as transformers.

        Args:
            files: the model's files.
            name: the tokenizer's class, without "Fast".
            version: 4 for transformers 4.51.3, or 5 for transformers 5.
        """
        values = _configured(files, name, version)
        if isinstance(listed := values.get("added_tokens_decoder"), dict):
            decoder = {int(index): _with_flags(token) for index, token in listed.items()}
        else:
            decoder = _added_by_files(files, values, version)
        if version == 5 and not isinstance(values.get(_LIST, {}), dict):
            values.pop(_FORMER_LIST, None)  # the new name takes precedence
        names = [*NAMED_TOKENS, *(_INFILLING if name == "CodeLlamaTokenizer" else ())]
        if version == 5:
            names += [key for key in values if key.endswith("_token") and key not in names]
        by_name = {key: text for key in names if (text := token_text(values.get(key)))}
        # Only tokens that a file names take the flags of the decoder. The default tokens of the class do not.
        own = {**files.config, **({} if "added_tokens_decoder" in files.config else files.special)}
        by_content = {token["content"]: token for token in decoder.values() if token["content"]}
        named = _special(values, names, dict.fromkeys(own, by_content), version)
        if name == "Qwen2Tokenizer":  # this class gives flags to named tokens of which only the text is known
            wrapped = [{"content": by_name.get(key)} for key in ("bos_token", "eos_token", "unk_token", "pad_token")]
            named = [special_token(token["content"]) if token in wrapped else token for token in named]
        firsts: dict[str, JsonObject] = {}
        for token in named:
            firsts.setdefault(token["content"], token)
        return cls(tuple(token for _, token in sorted(decoder.items())), tuple(firsts.values()), by_name)


def _configured(files: TokenizerFiles, name: str, version: int) -> JsonObject:
    """Return tokenizer_config.json, completed with the default tokens of the class."""
    values: JsonObject = {**CLASS_TOKENS.get(name, {}), **files.config}
    if name == "GPTNeoXTokenizer" and version == 5:
        values.setdefault("pad_token", "<|padding|>")
    if name == "CodeLlamaTokenizer":
        values = {**_INFILLING, **({"fill_token": "<FILL_ME>"} if version == 5 else {}), **values}
    if version == 5 and _FORMER_LIST in values and not values.get(_LIST):
        values[_LIST] = values.pop(_FORMER_LIST)
    return values


def _added_by_files(files: TokenizerFiles, values: JsonObject, version: int) -> dict[int, JsonObject]:
    """Return the tokens that the other files add with an id, and add special_tokens_map.json to `values`.

    transformers does this only if the configuration has no `added_tokens_decoder`.
    """
    values |= {key: value for key, value in files.special.items() if not isinstance(value, list)}
    key = _FORMER_LIST if version == 4 else _LIST
    more, own_list = files.special.get(key), values.get(key) or []
    if isinstance(more, list) and isinstance(own_list, list):
        # If 4.51.3 finds a text and an object with the same content, it adds the object last.
        objects = [token_text(token) for token in more if isinstance(token, dict)]
        own_list = [token for token in own_list if token not in objects]
        values[key] = [*own_list, *(token for token in more if token not in own_list)]
    if version == 5 and isinstance(former := files.special.get(_FORMER_LIST), list):
        values[_FORMER_LIST] = former
    listed = values[key] if isinstance(values.get(key), list) else ()
    special = {token_text(token) for token in (*map(values.get, NAMED_TOKENS), *listed)}
    added = {int(id_): _plain(text, special=text in special) for text, id_ in files.added.items()}
    return added | {int(token["id"]): _with_flags(token) for token in files.tokenizer.get("added_tokens") or ()}


def _special(
    values: JsonObject, names: Iterable[str], known: Mapping[str, Mapping[str, JsonObject]], version: int
) -> list[JsonObject]:
    """Return the special tokens in the order in which a version adds them.

    Args:
        values: the configuration.
        names: the attributes that name one token each.
        known: attribute -> text -> the token whose flags are used.
        version: 4 or 5.
    """

    def attributes(pairs: Iterable[tuple[str, object]]) -> list[JsonObject]:
        return [
            known.get(key, {}).get(text) or (_with_flags(token) if _is_object(token) else {"content": text})
            for key, token in pairs
            if (text := token_text(token))
        ]

    lists = [values.get(_FORMER_LIST), values.get(_LIST)]
    mappings = [one for one in (*lists, values.get("model_specific_special_tokens")) if _is_object(one)]
    listed: list[JsonObject] = [
        _with_flags(token) if _is_object(token) else {"content": str(token)}
        for one in lists
        for token in (one if isinstance(one, list) else ())
    ]
    named = attributes((key, values.get(key)) for key in names)
    further = attributes(pair for mapping in mappings for pair in mapping.items())
    return [*named, *listed, *further] if version == 4 else [*named, *further, *listed]


class AddedTokens:
    """Added tokens by text, with the rules of the package `tokenizers`. New tokens get the next free id.

    If a token is added again, its last flags count, but a special token stays special. In version 0.21, which
    transformers 4.51.3 requires, such a token is still searched for in text that is not normalized, and a new value of
    `normalized` is ignored for a special token.
    """

    def __init__(self, model: JsonObject | None, tokens: Iterable[JsonObject], *, version: int) -> None:
        words = (model or {}).get("vocab") or {}
        self._words = words if isinstance(words, dict) else {str(pair[0]): id_ for id_, pair in enumerate(words)}
        self._tokens: dict[str, JsonObject] = {}
        self._version = version
        for token in tokens:
            self.add(_with_flags(token))

    def id(self, text: str) -> int | None:
        """Return the id of a token, or None if the vocabulary does not contain it."""
        return self._tokens[text]["id"] if text in self._tokens else self._words.get(text)

    def add(self, token: JsonObject) -> None:
        """Add one token. All of its flags must be given."""
        text = token["content"]
        if not text:
            return
        known = self.id(text)
        if known is None:
            largest = max((one["id"] for one in self._tokens.values()), default=-1)
            known = max(len(self._words), largest + 1)
        old = self._tokens.get(text, token)
        normalized = token["normalized"]
        if self._version == 4:
            normalized = old["normalized"] and (old["special"] or normalized)
        special = old["special"] or token["special"]
        self._tokens[text] = {"id": known, **token, "normalized": normalized, "special": special}

    def declare(self, declared: Declared) -> None:
        """Add the tokens of the configuration that the file does not contain with the same flags."""
        new = [token for token in declared.decoder if not self._has(token)]
        known = {*self._tokens, *(token["content"] for token in new)}
        for token in new:
            self.add(token)
        for token in declared.named:
            text, text_alone = token["content"], len(token) == 1
            if text not in known:
                self.add(special_token(text) if text_alone else {**token, "special": True})
            elif self._version == 4:  # 4.51.3 applies an object to the existing token of the same text
                self.add({**self._tokens[text], **token, "special": True})

    def listed(self) -> list[JsonObject]:
        """Return the tokens in the order of tokenizer.json."""
        return sorted(self._tokens.values(), key=lambda token: int(token["id"]))

    def _has(self, token: JsonObject) -> bool:
        known = self._tokens.get(token["content"])
        return known is not None and all(known[flag] == token[flag] for flag in FLAGS)


def token_text(token: object) -> str:
    """Return the text of a special token that is given as text or as transformers' AddedToken, or "" otherwise."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else ""


def is_untyped(token: object) -> bool:
    """Return whether a special token of tokenizer_config.json is an object that transformers cannot read."""
    return isinstance(token, dict) and token.get("__type") != "AddedToken"


def _is_object(value: object) -> TypeGuard[JsonObject]:
    return isinstance(value, dict)


def _with_flags(token: JsonObject) -> JsonObject:
    special = bool(token.get("special", False))
    given = {flag: bool(token.get(flag, False)) for flag in ("single_word", "lstrip", "rstrip")}
    return {
        "content": token["content"],
        **given,
        "normalized": bool(token.get("normalized", not special)),
        "special": special,
    }


def _plain(text: str, *, special: bool) -> JsonObject:
    return _with_flags({"content": text, "special": special})


def special_token(text: str) -> JsonObject:
    """Return a special token with this text and the default flags."""
    return _plain(text, special=True)
