"""Decide whether a value is mentioned in the texts that a model sees."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property, lru_cache

_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:st|nd|rd|th|s|k|m|bn|b)?(?![\w])|(?<!\w)\.\d+", re.IGNORECASE
)
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_PLAIN_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)")
_TYPE_LENGTH = re.compile(r"\b[A-Za-z]+\s*\(\s*\d+\s*(?:,\s*\d+\s*)?\)")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")
_ISO_DATE = re.compile(r"(\d{4})-(\d{1,2})(?:-(\d{1,2}))?(?:[ T][\d:.]+)?Z?")
_SHORT = 3  # characters of a value that may be part of another word by accident

_TEENS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINAL_WORDS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_UNITS = {word: number for number, word in enumerate(_TEENS.split())}
_UNITS |= {word: 10 * number for number, word in enumerate(_TENS.split(), 2)}
_ORDINALS = {word: number for number, word in enumerate(_ORDINAL_WORDS.split(), 1)}
_OTHER_WORDS = {
    "single": 1,
    "once": 1,
    "only": 1,
    "twice": 2,
    "double": 2,
    "both": 2,
    "pair": 2,
    "couple": 2,
    "thrice": 3,
    "half": 0.5,
    "quarter": 0.25,
    "dozen": 12,
    "multiple": 2,
    "several": 2,
    "no": 0,
    "none": 0,
    "triple": 3,
}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000, "percent": 0.01}
_SUFFIXES = {"k": 1_000, "m": 1_000_000, "bn": 1_000_000_000, "b": 1_000_000_000}
_MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905 - easier to read
_MONTH_NUMBERS = {name[:length]: number for number, name in enumerate(_MONTHS, 1) for length in (3, 4, len(name))}
_ENDINGS = (
    *(("ies", ("y", "ie")), ("es", ("", "e")), ("s", ("",)), ("ed", ("", "e")), ("ing", ("", "e"))),
    *(("ian", ("ia", "a", "y")), ("an", ("a", ""))),
)
_MONTH_ENDS = {28, 29, 30, 31}


class Mentions:
    """The values that some texts mention.

    Args:
        stated: the question and the notes.
        schema: the schema, which may contain example values.
    """

    def __init__(self, stated: str, schema: str) -> None:
        self._stated, self._schema = stated, schema
        self._folded = f"{stated}\n{schema}".casefold()

    def has_text(self, value: str) -> bool:
        """Return whether a text is mentioned, in any case, number, punctuation or order of words."""
        value = value.strip()
        if len(value) > _SHORT and value.casefold() in self._folded:
            return True
        if _PLAIN_NUMBER.fullmatch(value):
            return self.has_number(float(value.replace(",", "")))
        words = _words(value)
        if all(_stems(word) & self._stems or (word.isdecimal() and self.has_number(float(word))) for word in words):
            return True
        if len("".join(words)) > _SHORT and "".join(words) in self._compact:
            return True
        found = _ISO_DATE.fullmatch(value)
        return self._has_date(*found.groups("1")) if found else self._has_initials(value)

    def has_number(self, value: float, *, near: bool = False) -> bool:
        """Return whether a number is mentioned in digits or words.

        Args:
            value: the number.
            near: also accept the whole numbers next to it, because "more than 2" is also "at least 3".
        """
        percent = 100 * value if abs(value) < 1 else value / 100  # 45% is 0.45
        wanted = {value, percent} | ({value - 1, value + 1} if near else set())
        return any(round(abs(one), 6) in self._numbers for one in wanted)

    @cached_property
    def _stems(self) -> frozenset[str]:
        words = _words(self._folded)
        short_months = (word[:3] for word in words if word in _MONTHS)
        return frozenset(stem for word in (*words, *short_months) for stem in _stems(word))

    @cached_property
    def _compact(self) -> str:
        return "".join(_words(self._folded))

    @cached_property
    def _numbers(self) -> frozenset[float]:
        schema = _TYPE_LENGTH.sub(" ", self._schema)  # VARCHAR(20) mentions no value
        return frozenset(round(abs(number), 6) for text in (self._stated, schema) for number in _numbers(text))

    def _has_date(self, year: str, month: str, day: str) -> bool:
        """Return whether a date is mentioned. The ends of a month or year may be left out.

        The first day of a month may also be the end of the month before: day < '2024-04-01' means until March.
        """
        dates = [(int(year), int(month), int(day))]
        if dates[0][2] == 1:
            dates.append((int(year), int(month) - 1, 31) if int(month) > 1 else (int(year) - 1, 12, 31))
        return any(self._has_day(*date) for date in dates)

    def _has_day(self, year: int, month: int, day: int) -> bool:
        if year not in self._numbers and year % 100 not in self._numbers:
            return False
        is_edge = day == 1 or day in _MONTH_ENDS
        if (month, day) in ((1, 1), (12, 31)):
            return True
        return month in self._numbers and (is_edge or day in self._numbers)

    def _has_initials(self, value: str) -> bool:
        """Return whether the value is the first letters of consecutive words, such as USA."""
        if not (value.isalpha() and value.isupper() and len(value) > 1):
            return False
        return value.casefold() in "".join(word[0] for word in _words(self._stated) if word not in ("of", "the", "and"))


def _words(text: str) -> list[str]:
    decomposed = unicodedata.normalize("NFKD", _POSSESSIVE.sub("", text.casefold()))
    return _WORD.findall("".join(sign for sign in decomposed if not unicodedata.combining(sign)))


@lru_cache(maxsize=65_536)
def _stems(word: str) -> frozenset[str]:
    """Return the word and what it may be a form of: a plural, past tense or adjective of a country."""
    found = {word}
    for ending, replacements in _ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 2:
            found |= {word.removesuffix(ending) + replacement for replacement in replacements}
    return frozenset(found)


def _numbers(text: str) -> Iterator[float]:
    """Yield the numbers in a text, in digits and in words."""
    for found in _NUMBER.finditer(text):
        yield from _in_digits(found[0].lower(), text[found.end() : found.end() + 12].lower())
    for found in _DIGITS.finditer(text):  # 2nd, U21, 3-1, 2000s
        yield float(found[0])
    words = [word for word in _words(text) if not word.isdigit()]
    yield from (_MONTH_NUMBERS[word] for word in words if word in _MONTH_NUMBERS)
    yield from _in_words(words)


def _in_digits(text: str, after: str) -> Iterator[float]:
    digits = re.match(r"[-+]?[\d,.]+", text)
    if digits is None or not (plain := digits[0].replace(",", "").strip(".")):
        return
    number, suffix = float(plain), text[digits.end() :]
    yield number
    if suffix == "s" and number % 10 == 0:  # the 1990s
        yield from ((number + 9, number + 10) if number >= 100 else (1900 + number, 1909 + number, 1910 + number))
    yield number * _SUFFIXES.get(suffix, 1)
    scale = _WORD.search(after)
    if scale and not after[: scale.start()].strip(" -"):
        yield number * _SCALES.get(scale[0].removesuffix("s"), 1)


def _in_words(words: list[str]) -> Iterator[float]:
    """Yield the numbers that words spell, such as "twenty five" and "two hundred thousand"."""
    total, current, is_open = 0.0, 0.0, False
    for word in (*words, ""):
        if (unit := _UNITS.get(word)) is not None:
            current, is_open = current + unit, True
            yield unit
        elif is_open and word in _SCALES:
            scale = _SCALES[word]
            current *= scale
            if scale >= 1_000:
                total, current = total + current, 0.0
        elif not (is_open and word == "and"):
            if is_open:
                yield total + current
            total, current, is_open = 0.0, 0.0, False
            for known in (_ORDINALS, _OTHER_WORDS, _SCALES):
                if word in known:
                    yield known[word]
