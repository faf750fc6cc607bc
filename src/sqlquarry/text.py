"""Make text safe to show, so that it cannot hide characters, move the cursor or reverse the reading direction.

Records, answers, SQL, database values, file names and server messages come from outside. A terminal interprets escape
sequences in them, and an editor or browser interprets bidirectional controls (CVE-2021-42574).
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence

# Control, format, unassigned, private-use and surrogate characters, and line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
# Visible signs that Unicode classifies as format characters: Prepended_Concatenation_Mark.
_PRINTED = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
# Invisible characters that Unicode classifies as letters, marks or symbols: the rest of Default_Ignorable_Code_Point
# (https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt) and the blank Braille pattern.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_VARIATION_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_EMOJI_STYLES = ("\ufe0e", "\ufe0f")
_HAN = ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_NON_JOINER, _JOINER = "\u200c", "\u200d"
_PLAIN = re.compile(r"[\t\n -~]*")
_SPACED = str.maketrans("\t\n\r", "   ")
# Characters with a meaning in Markdown, HTML or GitHub (mentions, references).
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|~$&@]")
# Parts of a bare URL that GitHub turns into a link: https://github.github.com/gfm/#autolinks-extension-
_LINK = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_VIRAMA = 9  # canonical combining class


def visible(text: str, *, one_line: bool = False) -> str:
    r"""Escape each character that a reader cannot see or that a terminal interprets, as in ``\u{1b}``.

    Ordinary text in any script is unchanged. Joiners stay in emoji and where a script needs them (RFC 5892, appendix
    A), and variation selectors stay after an emoji or a Han character. Tabs and line feeds stay. A carriage return
    before a line feed is dropped. A second call changes nothing.

    Args:
        text: any text, including lone surrogates.
        one_line: replace each line end and each tab with a space.
    """
    text = text.replace("\r\n", "\n")
    if one_line:
        text = text.translate(_SPACED)
    if _PLAIN.fullmatch(text):
        return text
    shown: list[str] = []
    for place, character in enumerate(text):
        before = shown[-1][-1] if shown else ""
        if character in "\t\n" or _is_shown(before, character, text[place + 1 : place + 2]):
            shown.append(character)
        else:
            shown.append(f"\\u{{{ord(character):x}}}")
    return "".join(shown)


def lone_surrogate(text: str) -> str:
    r"""Return the first lone surrogate as a JSON escape, or "" if UTF-8 can encode the text."""
    found = _SURROGATE.search(text)
    return f"\\u{ord(found[0]):04x}" if found else ""


def as_markdown(text: str) -> str:
    """Escape text as one line of Markdown, so that it contains no link, image, HTML or mention."""
    text = _MARKDOWN.sub(r"\\\g<0>", " ".join(visible(text).split())).replace("\\@", "@\u200b")
    return _LINK.sub(lambda found: f"&#{ord(found[0])};", text)


def first_of(names: Sequence[str], most: int = 3) -> str:
    """Return the first names and the number of remaining ones, to keep a message short."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def visible_logger(name: str) -> logging.Logger:
    """Return the logger `name`, which passes its messages and text arguments through `visible`."""
    logger = logging.getLogger(name)
    if _make_record_visible not in logger.filters:
        logger.addFilter(_make_record_visible)
    return logger


def make_handlers_visible(name: str) -> None:
    """Pass all messages that reach the handlers of another library's logger through `visible`."""
    for handler in logging.getLogger(name).handlers:
        if _make_record_visible not in handler.filters:
            handler.addFilter(_make_record_visible)


def _is_shown(before: str, character: str, after: str) -> bool:
    if character.isascii():
        return character.isprintable()
    if character in (_NON_JOINER, _JOINER):
        return bool(before and after) and _joins(before, character, after)
    if _is_in(character, _VARIATION_SELECTORS):
        return bool(before) and _varies(before, character, after)
    return character not in _BLANK and (unicodedata.category(character) not in _INVISIBLE or character in _PRINTED)


def _joins(before: str, joiner: str, after: str) -> bool:
    """Return whether a joiner has a meaning between two characters, the first of which is visible."""
    if joiner == _JOINER and (before == _EMOJI_STYLES[1] or unicodedata.category(before) in ("So", "Sk")):
        return unicodedata.category(after) == "So" or after in "\u2194\u2195"
    is_cursive = unicodedata.bidirectional(before) in ("AL", "NSM") and unicodedata.bidirectional(after) == "AL"
    return unicodedata.combining(before) == _VIRAMA or is_cursive


def _varies(before: str, selector: str, after: str) -> bool:
    """Return whether a variation selector has a meaning after a visible character."""
    if selector in _EMOJI_STYLES and before in "#*0123456789":
        return after == "\u20e3"  # a keycap
    is_symbol = not before.isascii() and unicodedata.category(before)[0] in "SPN"
    return (is_symbol and selector in _EMOJI_STYLES) or _is_in(before, _HAN)


def _is_in(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= ord(character) <= last for first, last in ranges)


def _make_record_visible(record: logging.LogRecord) -> bool:
    """Change the record in place. Numbers stay numbers, so that ``%d`` and ``%.0f`` still work."""
    record.msg = visible(str(record.msg))
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument if isinstance(argument, int | float) else visible(str(argument), one_line=True)
            for argument in record.args
        )
    return True
