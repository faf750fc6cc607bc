"""Give a model the ids of another tokenizer's special tokens, so that it stops where its training ended answers."""

from __future__ import annotations

from sqlquarry.files.metadata import JsonObject
from sqlquarry.tokenizing.reading_equality import Reading
from sqlquarry.tokenizing.readings import named_tokens, trained_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

_NAMES = ("bos_token", "eos_token", "pad_token")


def token_ids(reading: Reading) -> dict[str, int]:
    """Return token -> id of a tokenizer: the vocabulary (a list of pairs for Unigram), then the added tokens."""
    words = (reading.get("model") or {}).get("vocab") or {}
    ids = dict(words) if isinstance(words, dict) else {str(pair[0]): id_ for id_, pair in enumerate(words)}
    return ids | {token["content"]: int(token["id"]) for token in reading.get("added_tokens") or ()}


def id_changes(config: JsonObject, rows: int, base: TokenizerFiles, own: TokenizerFiles | None) -> JsonObject:
    """Return the fields of config.json or generation_config.json that change with the tokenizer or its size.

    The tokenizer's own tokens come first, and a model still stops at its former ones, as in transformers' Trainer
    (trainer_utils.align_special_tokens, 5.24). Former ids are dropped if they now mean another token or have no row.

    Args:
        config: the content of the file.
        rows: number of rows of the embeddings.
        base: the tokenizer that the file was written for.
        own: the new tokenizer, or None if the tokenizer stays.
    """
    before = {id_: text for text, id_ in token_ids(trained_reading(base)).items()} if own else {}
    after = token_ids(trained_reading(own)) if own else {}
    named = named_tokens(own) if own else {}
    changes: JsonObject = {}
    for name in _NAMES:
        key = f"{name}_id"
        old = config.get(key)
        former = [id_ for id_ in (old if isinstance(old, list) else [old]) if isinstance(id_, int)]
        kept = [id_ for id_ in former if id_ < rows and (own is None or after.get(before.get(id_, "")) == id_)]
        first = after.get(named.get(name, ""))
        ids = list(dict.fromkeys([*([] if first is None else [first]), *kept]))
        several = name == "eos_token" and (len(ids) > 1 or isinstance(old, list))
        new = ids if several and ids else next(iter(ids), None)
        if new != old:
            changes[key] = new
    return changes
