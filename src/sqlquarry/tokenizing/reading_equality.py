"""Compare two readings of a tokenizer without encoding any text: do they give the same ids?

A reading is the content of a tokenizer.json that the package `tokenizers` loads literally (see `readings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlquarry.files.metadata import JsonObject
from sqlquarry.tokenizing.added_tokens import FLAGS

Reading = Mapping[str, Any]


def same_tokens(one: Reading, other: Reading) -> bool:
    """Return whether two readings give the same ids for every text, as far as their parts show."""
    merges = [(reading.get("model") or {}).get("merges") for reading in (one, other)]
    return _parts(one) == _parts(other) and (merges[0] is merges[1] or _pairs(merges[0]) == _pairs(merges[1]))


def special_ids(reading: Reading) -> tuple[list[int], list[int]]:
    """Return the ids that the post-processor adds before and after a text."""
    front: list[int] = []
    behind: list[int] = []
    post = reading.get("post_processor") or {}
    for step in post.get("processors") or [post]:
        kind = step.get("type")
        if kind in ("BertProcessing", "RobertaProcessing"):
            front, behind = [int(step["cls"][1]), *front], [*behind, int(step["sep"][1])]
        elif kind == "TemplateProcessing":
            known, before = step.get("special_tokens") or {}, True
            outer: tuple[list[int], list[int]] = ([], [])
            for piece in step.get("single") or ():
                token = piece.get("SpecialToken")
                if token is None:
                    before = False
                else:
                    outer[not before].extend(known.get(token["id"], {}).get("ids", ()))
            front, behind = [*outer[0], *front], [*behind, *outer[1]]
    return front, behind


def _parts(reading: Reading) -> JsonObject:
    """Return the parts of a reading that determine ids, in a normal form. The many merges are left out."""
    model = dict(reading.get("model") or {})
    vocab = model.get("vocab") or {}
    byte_fallback = bool(model.get("byte_fallback"))
    # If every byte has a token, no text is unknown.
    every_byte = byte_fallback and isinstance(vocab, dict) and all(f"<0x{byte:02X}>" in vocab for byte in range(256))
    # `special` only determines which tokens are left out of a decoded answer.
    tokens = [
        {key: token.get(key) for key in ("content", "id", *FLAGS) if key != "special"}
        for token in reading.get("added_tokens") or ()
    ]
    return {
        "type": model.get("type") or "BPE",
        "vocab": vocab,
        "byte_fallback": byte_fallback,
        "unknown": None if every_byte else (model.get("unk_token"), model.get("unk_id"), bool(model.get("fuse_unk"))),
        "affixes": [model.get(affix) or "" for affix in ("continuing_subword_prefix", "end_of_word_suffix")],
        "ignore_merges": bool(model.get("ignore_merges")),
        "dropout": model.get("dropout") or None,
        "normalizer": _steps(reading.get("normalizer"), "normalizers"),
        "pre_tokenizer": _steps(reading.get("pre_tokenizer"), "pretokenizers"),
        "added_tokens": tokens,
        "special_ids": special_ids(reading),
    }


def _pairs(merges: Any) -> list[tuple[str, ...]]:
    return [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges or ()]


def _steps(part: Any, key: str) -> list[JsonObject]:
    """Return the steps of a normalizer or pre-tokenizer, completed with the defaults of `tokenizers`."""
    if not part:
        return []
    if part.get("type") == "Sequence":
        return [step for inner in part.get(key) or () for step in _steps(inner, key)]
    step = {name: value for name, value in part.items() if name != "trim_offsets"}
    if step.get("type") == "ByteLevel":
        return [{"add_prefix_space": True, "use_regex": True, **step}]
    return [{"split": True, **step}] if step.get("type") == "Metaspace" else [step]
