"""The values that one column may take: those that make its conditions true, those that just miss, and any others."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlquarry.judging.synthesis.hints import Hints
from sqlquarry.judging.synthesis.names import Place, Value
from sqlquarry.judging.synthesis.schema import Column, Kind

_ANY_VALUES = 60  # distinct values of a column without conditions
_LONGEST_TEXT = 500
_LARGEST_NUMBER = 10**15  # ten times as much still fits SQLite's integers, and a float holds every whole number
_EPOCH = datetime(2001, 2, 3, 10, 20, 30)


@dataclass(frozen=True, slots=True)
class Pool:
    """Values of one domain, without repetitions: `hits` meet a condition, `near` miss one closely."""

    hits: tuple[Value, ...]
    near: tuple[Value, ...]
    others: tuple[Value, ...]


def pool_of(place: Place, column: Column, hints: Hints, number: int) -> Pool:
    """The pool of a column; `number` keeps the other values of different columns apart."""
    conditions = [(sign, value) for sign, value in hints.of_domain(place) if _is_storable(value)]
    kind = column.kind
    values = [value for _, value in conditions]
    numeric = hints.is_numeric(place) or kind in ("integer", "real")
    if kind == "text" and values and all(_reads_as_number(value) for value in values):
        numeric = True
    stay = _Admission(column, values if numeric and kind == "text" else None)
    hits = [hit for sign, value in conditions for hit in _hits(sign, value, kind, numeric)]
    near = [miss for sign, value in conditions for miss in _misses(sign, value, kind, numeric)]
    # A right value of one condition is a near miss of another on the same column.
    return Pool(stay.admit(hits), stay.admit(near), stay.admit(_others(column, kind, numeric, values, number)))


class _Admission:
    """Lets values into a pool once each, if the column's type can hold them."""

    def __init__(self, column: Column, literals_as_text: list[Value] | None) -> None:
        self.length, self.kind = column.length, column.kind
        self.literals = literals_as_text
        self.seen: set[Value] = set()
        self.numbers = [_as_text(value) for value in literals_as_text or () if _reads_as_number(value)]

    def admit(self, values: list[Value]) -> tuple[Value, ...]:
        found = []
        for value in values:
            if value not in self.seen and self._fits(value):
                self.seen.add(value)
                found.append(value)
        return tuple(found)

    def _fits(self, value: Value) -> bool:
        if self.length is not None and len(str(value)) > self.length:
            return False
        if self.kind in ("integer", "real") and _as_number(value) is None:
            return False
        if self.literals is None or value in self.literals or not _reads_as_number(value):
            return True
        # Numbers kept as text: only those that sort alike as text and as numbers, so that no CAST is needed or missed.
        text, number = _as_text(value)
        fits = all((text < other) == (number < known) for other, known in self.numbers)
        if fits:
            self.numbers.append((text, number))
        return fits


def _is_storable(value: Value) -> bool:
    if not isinstance(value, str):
        return abs(value) <= _LARGEST_NUMBER
    # SQLite ends text at NUL, and half of a surrogate pair has no UTF-8.
    return len(value) <= _LONGEST_TEXT and not re.search("[\0\ud800-\udfff]", value)


def _as_text(value: Value) -> tuple[str, float]:
    return str(value), float(value)


def _as_number(value: Value) -> int | float | None:
    """The number that a value is, or reads as; None for text, NaN and what is too large to reckon with."""
    if not isinstance(value, str):
        return value
    for number_of in (int, float):
        with suppress(ValueError):
            number = number_of(value)
            return number if abs(number) <= _LARGEST_NUMBER else None
    return None


def _reads_as_number(value: Value) -> bool:
    return _as_number(value) is not None


def _moment(value: Value) -> datetime | None:
    if isinstance(value, str) and len(value) >= 10:
        with suppress(ValueError):
            return datetime.fromisoformat(value)
    return None


def _hits(sign: str, value: Value, kind: Kind, numeric: bool) -> list[Value]:
    if sign == "like":
        text = str(value).replace("_", "q")
        return [text.replace("%", filling) for filling in ("", "x", " zz ")]
    first = [*_in_kind(value, kind), value] if sign in ("=", ">=", "<=") else []
    if sign == "=":
        return first
    return [*first, *(other for other in _neighbours(value, kind, numeric) if _holds(other, sign, value))]


def _misses(sign: str, value: Value, kind: Kind, numeric: bool) -> list[Value]:
    if sign == "like":
        bare = str(value).strip("%")
        return [bare, f"x{bare}", f"{bare}x", bare.swapcase(), bare[:-1]]
    others = [other for other in _neighbours(value, kind, numeric) if not _holds(other, sign, value)]
    return [value, *others] if sign in ("<>", "<", ">") else others


def _in_kind(value: Value, kind: Kind) -> list[Value]:
    """Dates that lie in a year or month which the condition asks for."""
    text = str(value)
    if kind in ("date", "datetime") and text.isdigit() and len(text) == 4:
        return [f"{text}-06-15" + (" 10:20:30" if kind == "datetime" else "")]
    return []


def _neighbours(value: Value, kind: Kind, numeric: bool) -> list[Value]:
    number = _as_number(value)
    if number is not None and (numeric or not isinstance(value, str)):
        if kind == "boolean":
            return [0, 1]
        close: list[int | float] = [number + 1, number - 1, number + 2, number - 2, number // 10, number * 10]
        if kind == "real" or isinstance(number, float):
            close += [number + 0.5, number - 0.5]
        close = [other for other in close if other >= 0 or number <= 0] + [0]
        return [other for other in close if other != number]
    if moment := _moment(value):
        with suppress(OverflowError):  # the first or last year there is
            days = [moment + timedelta(days=days) for days in (1, -1, 40, -40, 400)]
            return [day.isoformat(sep=" ")[: len(str(value))] for day in days]
    text = str(value)
    if text.isdigit() and kind in ("date", "datetime"):
        return [item for year in (int(text) + 1, int(text) - 1) for item in _in_kind(str(year), kind)]
    return [text.swapcase(), f"{text}x", text[:-1], f"x{text}", f"{text} {text}"]


def _holds(other: Value, sign: str, value: Value) -> bool:
    a, b = _as_number(other), _as_number(value)
    if a is None or b is None:
        x, y = str(other), str(value)
        return {"<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y, "=": x == y, "<>": x != y}[sign]
    return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "=": a == b, "<>": a != b}[sign]


def _others(column: Column, kind: Kind, numeric: bool, values: list[Value], number: int) -> list[Value]:
    """Values without any meaning to the queries, different from column to column."""
    count = range(_ANY_VALUES)
    if kind == "boolean":
        return [] if any(isinstance(value, str) for value in values) else [0, 1]
    if kind == "integer" or numeric:
        known = [value for value in map(_as_number, values) if value is not None]
        start = int(max(known)) + 3 if known else 11 + 7 * number
        return [start + i if kind == "integer" or numeric else start + i + 0.5 for i in count]
    if kind == "real":
        return [10 + 7 * number + i + 0.5 * (i % 2) for i in count]
    if kind in ("date", "datetime", "time"):
        moments = [_EPOCH + timedelta(days=37 * number + 11 * i, minutes=13 * i) for i in count]
        part = {"date": slice(10), "time": slice(11, None), "datetime": slice(None)}[kind]
        return [moment.isoformat(sep=" ")[part] for moment in moments]
    word = "".join(sign for sign in column.name.lower() if sign.isalnum()) or "v"
    if column.length is not None and column.length < len(word) + 2:
        word = ""
    return [f"{chr(97 + i % 26)}{word}{i // 26 or ''}" for i in count]
