"""Find the values of a database that a question mentions.

The index is a dictionary in memory. Each value is stored under its words in a normal form, so a question is answered by
one look-up for each group of consecutive words. An SQLite full-text index would rank many values that share a common
word, while a prompt needs the few that are meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlquarry.data.database.tables import DatabaseColumn, DatabaseTable
from sqlquarry.data.database.words import STOP_WORDS, Word, name_stems, words

_MOST_WORDS = 12  # of a value, because questions do not quote longer texts
_MOST_PLACES = 6  # parts of values that more values share are not specific
_SHORT = 2  # characters of a value, such as a code, that must be written in the same case
_SHORTEST_PART = 4
_SHORTEST_MISSPELLED = 6  # characters, because shorter words have many neighbors
_MOST_MISSPELLED_WORDS = 3
_QUOTED = re.compile(r"\"([^\"]+)\"|(?<!\w)'(.+?)'(?!\w)|“([^”]+)”|‘([^’]+)’|`([^`]+)`")
# Adjectives of countries and other forms of a word -> endings of the value.
_FORMS = (("ian", ("y", "ia", "a")), ("an", ("a", "")), ("ese", ("", "a")), ("ish", ("en", "land")), ("ed", ("", "e")))
_WHOLE, _PART, _MISSPELLED = range(3)


@dataclass(frozen=True, slots=True)
class MatchedValue:
    """A value of a database that a question mentions.

    Args:
        table: the table, by its name in `Database.tables`.
        column: the column.
        value: the value in its stored form.
        text: the part of the question that mentions it.
    """

    table: str
    column: str
    value: str
    text: str


class _Found(NamedTuple):
    level: int
    first: int
    last: int
    match: MatchedValue


class ValueIndex:
    """An index of the values of text columns.

    Args:
        values: (table, column, value) of each distinct value, in a fixed order.
    """

    def __init__(self, values: Iterable[tuple[str, str, str]]) -> None:
        self._whole: dict[str, list[tuple[str, str, str]]] = {}
        self._parts: dict[str, list[tuple[str, str, str]]] = {}
        self._halves: dict[tuple[int, str], list[str]] = {}
        self._names: dict[tuple[str, str], frozenset[str]] = {}
        for place in values:
            stems = [word.stem for word in words(place[2])]
            if 0 < len(stems) <= _MOST_WORDS:
                self._add(place, stems)

    def __len__(self) -> int:
        return sum(map(len, self._whole.values()))

    def find(self, question: str, *, most: int) -> tuple[MatchedValue, ...]:
        """Return the values that a question mentions, the surest first. The same question has the same values.

        Args:
            question: the question.
            most: the maximum of values.
        """
        asked = words(question)
        quoted = {text for found in _QUOTED.findall(question) for text in found if text}
        found: list[_Found] = []
        for level in (self._wholes, self._partly, self._misspelled):
            # A value inside the text of a surer one is not meant, such as York in New York.
            covered = [(one.first, one.last) for one in found]
            found += level(question, asked, quoted, covered)
        stems = {word.stem for word in asked}
        ranked = sorted(found, key=lambda one: self._rank(one, stems))
        kept: dict[tuple[str, str, str], MatchedValue] = {}
        for match in (one.match for one in ranked):
            kept.setdefault((match.table, match.column, match.value), match)
        return tuple(kept.values())[:most]

    def _add(self, place: tuple[str, str, str], stems: list[str]) -> None:
        table, column, _ = place
        if (table, column) not in self._names:
            self._names[table, column] = frozenset([*name_stems(table), *name_stems(column)])
        key = "".join(stems)
        known = self._whole.setdefault(key, [])
        known.append(place)
        if len(known) == 1 and len(key) >= _SHORTEST_MISSPELLED and key.isalpha():
            for half in _halves(key):
                self._halves.setdefault((len(key), half), []).append(key)
        for part in _parts(stems):
            places = self._parts.setdefault(part, [])
            if len(places) < _MOST_PLACES:
                places.append(place)

    def _wholes(
        self, question: str, asked: list[Word], quoted: set[str], covered: list[tuple[int, int]]
    ) -> Iterator[_Found]:
        for first, last, text, stems in _uncovered(question, asked, _MOST_WORDS, covered):
            places = [
                place
                for key in _keys(stems)
                for place in self._whole.get(key, ())
                if _is_meant(text, stems, place[2], quoted)
            ]
            if places:
                covered.append((first, last))
            for place in places:
                yield _Found(_WHOLE, first, last, MatchedValue(*place, text))

    def _partly(
        self, question: str, asked: list[Word], quoted: set[str], covered: list[tuple[int, int]]
    ) -> Iterator[_Found]:
        for first, last, text, stems in _uncovered(question, asked, _MOST_WORDS, covered):
            if len(stems) == 1 and not _is_name(text, first, quoted):
                continue
            places = self._parts.get("".join(stems), ())
            if 0 < len(places) < _MOST_PLACES:
                covered.append((first, last))
                for place in places:
                    yield _Found(_PART, first, last, MatchedValue(*place, text))

    def _misspelled(
        self, question: str, asked: list[Word], quoted: set[str], covered: list[tuple[int, int]]
    ) -> Iterator[_Found]:
        for first, last, text, stems in _uncovered(question, asked, _MOST_MISSPELLED_WORDS, covered):
            key = "".join(stems)
            if not _is_name(text, first, quoted) or len(key) < _SHORTEST_MISSPELLED - 1:
                continue
            for near in self._near(key):
                for place in self._whole[near]:
                    yield _Found(_MISSPELLED, first, last, MatchedValue(*place, text))

    def _near(self, key: str) -> list[str]:
        """Return the stored keys that differ by one character. One of their halves is then unchanged."""
        found: dict[str, None] = {}
        for length in (len(key) - 1, len(key), len(key) + 1):
            half = length // 2
            for part in ("^" + key[:half], key[-(length - half) :] + "$"):
                found |= {near: None for near in self._halves.get((length, part), ()) if _is_near(key, near)}
        return list(found)

    def _rank(self, found: _Found, stems: AbstractSet[str]) -> tuple[int, int, bool, int, int]:
        match = found.match
        named = len(self._names[match.table, match.column] & stems)
        return found.level, found.first - found.last, match.text != match.value, -named, found.first


def with_matches(
    tables: Iterable[DatabaseTable], matches: Iterable[MatchedValue], examples: int
) -> list[DatabaseTable]:
    """Return tables whose columns have the matched values before their first `examples` examples."""
    found: dict[tuple[str, str], list[str]] = {}
    for match in matches:
        found.setdefault((match.table, match.column), []).append(match.value)

    def matched(table: DatabaseTable, column: DatabaseColumn) -> DatabaseColumn:
        values = (*found.get((table.full_name, column.name), ()), *column.examples[:examples])
        return replace(column, examples=tuple(dict.fromkeys(values)))

    return [replace(table, columns=tuple(matched(table, one) for one in table.columns)) for table in tables]


def _spans(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last place (exclusive) of groups of consecutive words, the longest first."""
    for length in range(min(count, most), 0, -1):
        for first in range(count - length + 1):
            yield first, first + length


def _uncovered(
    question: str, asked: list[Word], most: int, covered: list[tuple[int, int]]
) -> Iterator[tuple[int, int, str, list[str]]]:
    """Yield the groups of words outside of the covered ones: first and last place, text and stems.

    The caller may cover more groups meanwhile.
    """
    for first, last in _spans(len(asked), most):
        if not any(start <= first and last <= end for start, end in covered):
            text = question[asked[first].start : asked[last - 1].end]
            yield first, last, text, [word.stem for word in asked[first:last]]


def _is_name(text: str, first: int, quoted: Collection[str]) -> bool:
    """Return whether a text is quoted, or has a capital letter although it does not begin the question."""
    return text in quoted or (first > 0 and text[:1] != text[:1].lower())


def _is_meant(text: str, stems: list[str], value: str, quoted: Collection[str]) -> bool:
    """Return whether a text means a value with the same words. A short code or common word must be written like it."""
    if text in quoted:
        return True
    is_code = text == value and len(value) > 1 and value.isupper()
    if all(stem in STOP_WORDS for stem in stems):
        return is_code
    is_short = len(value) <= _SHORT
    return not is_short or (text == value and (value.isupper() or not value.isascii()))


def _keys(stems: list[str]) -> list[str]:
    """Return the keys under which the value of a group of words may be stored."""
    keys = ["".join(stems)]
    if len(stems) == 1:
        for ending, replacements in _FORMS:
            if stems[0].endswith(ending) and len(stems[0]) > len(ending) + 2:
                keys += [stems[0].removesuffix(ending) + replacement for replacement in replacements]
    return keys


def _parts(stems: list[str]) -> Iterator[str]:
    """Yield the keys of at least half of a value's words. Single words must be long enough to be specific."""
    for first, last in _spans(len(stems), len(stems) - 1):
        part = stems[first:last]
        is_specific = part[0] not in STOP_WORDS and part[-1] not in STOP_WORDS
        if 2 * len(part) >= len(stems) and is_specific and (len(part) > 1 or len(part[0]) >= _SHORTEST_PART):
            yield "".join(part)


def _halves(key: str) -> tuple[str, str]:
    half = len(key) // 2
    return "^" + key[:half], key[half:] + "$"


def _is_near(key: str, other: str) -> bool:
    """Return whether one character is changed, missing, added or swapped with its neighbor."""
    shorter, longer = sorted((key, other), key=len)
    if shorter == longer or len(longer) - len(shorter) > 1:
        return False
    same = next((i for i, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    if len(shorter) < len(longer):
        return shorter[same:] == longer[same + 1 :]
    swapped = shorter[:same] + shorter[same : same + 2][::-1] + shorter[same + 2 :]
    return shorter[same + 1 :] == longer[same + 1 :] or swapped == longer
