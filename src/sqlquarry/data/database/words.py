"""Split questions, names and values into words that can be compared."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)")
# Scripts without blanks between words: each sign of Thai, Lao, Khmer, Kana and Han is compared like a word.
_WORD = re.compile(
    r"(?P<sign>[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])"
    r"|(?:(?![\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])[^\W_])+"
)
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")
# Both forms get the same stem: "goalie" and "goalies", "city" and "cities".
_PLURALS = (
    ("ies", "y"),
    ("ie", "y"),
    ("sses", "ss"),
    ("xes", "x"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("ss", "ss"),
    ("us", "us"),
)
_SHORTEST_PLURAL = 4  # characters, because "is", "as" and "bus" are not plurals
# Words of questions that name no value, column or table.
STOP_WORDS = frozenset(
    """a about above after all also am among an and any are as at be been before below between both but by can could did
    do does each either every find for from get give had has have having he her hers his how i if in into is it its
    less list many me more most much my name no none not number of off on once one only or other our out over per
    please return she should show so some such tell than that the their them there these they this those to total under
    up us very was we were what when where which while who whom whose why will with would you your""".split()  # noqa: SIM905 - a text of words is easier to read and to change
)


class Word(NamedTuple):
    """One word of a text: its stem, and where it is in the text."""

    stem: str
    start: int
    end: int


def words(text: str) -> list[Word]:
    """Return the words of a text in order. Case, accents, plural and possessive endings do not change a stem."""
    text = _POSSESSIVE.sub(lambda found: " " * len(found[0]), text)
    return [Word(stem(found[0]), *found.span()) for found in _WORD.finditer(text)]


def name_stems(name: str) -> list[str]:
    """Return the stems of the words in a name such as ``firstName`` or ``first_name``."""
    return [word.stem for word in words(_BREAK.sub(" ", name))]


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return a word in lower case, without accents and the ending of an English plural."""
    word = unicodedata.normalize("NFKD", word.casefold())
    word = "".join(sign for sign in word if not unicodedata.combining(sign))
    if len(word) < _SHORTEST_PLURAL:
        return word
    for ending, replacement in _PLURALS:
        if word.endswith(ending):
            return word.removesuffix(ending) + replacement
    return word.removesuffix("s")
