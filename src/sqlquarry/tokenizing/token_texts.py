"""Find the text of each token, also if a character consists of several tokens.

`decode` of a single token gives U+FFFD for a part of a character. So tokens are first converted to their bytes.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlquarry.errors import ConfigError

_PRINTED_BYTES = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHER_BYTES = sorted({*range(0x100)} - {*_PRINTED_BYTES})
# Byte-level BPE writes each byte as a visible character. Source: `bytes_to_unicode` of GPT-2, openai/gpt-2 encoder.py.
_BYTE_OF = {chr(byte): byte for byte in _PRINTED_BYTES} | {chr(0x100 + n): byte for n, byte in enumerate(_OTHER_BYTES)}
_FALLBACK = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's name of a token for one byte
_WORD_START = "▁"  # SentencePiece's name of a space


class TokenText(NamedTuple):
    """Text of whole characters and the places of its tokens: `start` to before `end`."""

    text: str
    start: int
    end: int


def token_texts(ids: Sequence[int], tokenizer: object, ends: Sequence[int] = ()) -> Iterator[TokenText]:
    r"""Yield the text of each token. Tokens that are parts of the same character are yielded together.

    The text is what the tokenizer made of the input, for example after Unicode normalization. Bytes that are not UTF-8
    are written as in ``\xff``.

    Args:
        ids: token ids.
        tokenizer: a tokenizer of transformers.
        ends: places at which a text ends in any case.

    Raises:
        ConfigError: the tokenizer cannot name its tokens.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    pieces, start, text = _token_bytes(ids, tokenizer), 0, ""
    for place, piece in enumerate(pieces):
        is_end = place + 1 in (len(ids), *ends)
        text += decoder.decode(piece, final=is_end)
        if is_end or not decoder.getstate()[0]:
            yield TokenText(text, start, place + 1)
            start, text = place + 1, ""


def _token_bytes(ids: Sequence[int], tokenizer: object) -> list[bytes]:
    name_tokens = getattr(tokenizer, "convert_ids_to_tokens", None)
    if name_tokens is None:
        raise ConfigError(f"a {type(tokenizer).__name__} cannot name its tokens. Pass a tokenizer of transformers.")
    added = {number: str(token) for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}
    is_byte_level = _is_byte_level(tokenizer)
    pieces = []
    for number, name in zip(ids, name_tokens(list(ids)), strict=True):
        if number in added or name is None:  # an embedding without a token has no name
            pieces.append(added.get(number, f"<unused token {number}>").encode("utf-8", "backslashreplace"))
        elif is_byte_level:
            pieces.append(b"".join(bytes([_BYTE_OF[c]]) if c in _BYTE_OF else c.encode() for c in name))
        elif byte := _FALLBACK.fullmatch(name):
            pieces.append(bytes.fromhex(byte[1]))
        else:
            pieces.append(name.replace(_WORD_START, " ").encode())
    return pieces


def _is_byte_level(tokenizer: object) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = (getattr(backend, "pre_tokenizer", None), getattr(backend, "decoder", None))
    return any(b'"ByteLevel"' in part.__getstate__() for part in parts if part is not None)
