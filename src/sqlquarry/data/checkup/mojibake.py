"""Recognize UTF-8 text that was decoded as Windows-1252 or Latin-1."""

from __future__ import annotations

import re

# Letters among the characters below, which follow another letter in correct text, as in: Úžas
_LETTERS = frozenset("ŠŒŽšœžŸƒµ")
# The characters that the bytes 0x80 to 0xBF become. Python leaves five of them undefined in Windows-1252.
_LATIN1 = {chr(byte): byte for byte in range(0x80, 0x100)}
_BYTES = _LATIN1 | {bytes([byte]).decode("cp1252", "replace"): byte for byte in range(0x80, 0x100)}
_BYTES.pop("\ufffd", None)
_AFTER = "[" + re.escape("".join(char for char, byte in _BYTES.items() if byte < 0xC0)) + "]"
_SEQUENCE = re.compile(f"[Â-ß]{_AFTER}|[à-ï]{_AFTER}{{2}}|[ð-ô]{_AFTER}{{3}}")
# Punctuation that can also follow a letter in correct text, as in: CAFÉ’s
_PUNCTUATION = frozenset("‘’“”–—…«»®™\xa0")
# White space and a byte order mark, which Python does not count as printable.
_NOT_PRINTED = dict.fromkeys(map(ord, "\t\r\n\xa0\ufeff"))


def mojibake(text: str) -> str:
    """Return the first part of a text that is UTF-8 decoded as Windows-1252 or Latin-1, such as "Ã©", or "".

    One sequence is enough if it begins with Â, Ã, â or ð, which are otherwise rare before a symbol, or if it is a byte
    order mark. Other letters need a second sequence in the same text.
    """
    if text.isascii():
        return ""
    found = [sequence[0] for sequence in _SEQUENCE.finditer(text) if _is_utf8(sequence[0])]
    # Correct text can have a letter before punctuation or, except Ã, before another letter.
    correct = _PUNCTUATION | _LETTERS
    wrong = [part for part in found if not (_PUNCTUATION if part[0] == "Ã" else correct).issuperset(part[1:])]
    certain = next((sequence for sequence in wrong if sequence[0] in "ÂÃâð" or sequence == "ï»¿"), "")
    return certain or (wrong[0] if wrong and len(found) > 1 else "")


def decoded(text: str) -> str:
    """Return what a text with `mojibake` was before, or the text itself if the whole text does not reverse exactly."""
    if not mojibake(text):
        return text
    try:
        found = bytes(_BYTES.get(character, ord(character)) for character in text).decode()
    except ValueError:  # a character of another encoding, or bytes that are not UTF-8
        return text
    return found if found.translate(_NOT_PRINTED).isprintable() else text


def _is_utf8(sequence: str) -> bool:
    try:
        bytes(_BYTES[character] for character in sequence).decode()
    except UnicodeDecodeError:
        return False
    return True
