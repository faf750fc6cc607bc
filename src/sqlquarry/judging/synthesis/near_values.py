"""Generates values that meet a condition and values that just miss it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise

from sqlquarry.judging.synthesis.dates import compares, like
from sqlquarry.sql.schema import ValueKind
from sqlquarry.sql.syntax import Value

LARGEST_NUMBER = 10**15  # ten times this fits SQLite's integers, and floats represent all integers up to it
_SEPARATED = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")  # 41,402


def as_text_and_number(value: Value) -> tuple[str, float]:
    """Return a number as text and as a float."""
    return str(value), float(value)


def as_number(value: Value) -> int | float | None:
    """Return a value as a number, or None if it is other text, NaN or too large."""
    if not isinstance(value, str):
        return value
    for number_of in (int, float):
        with suppress(ValueError):
            number = number_of(value)
            return number if abs(number) <= LARGEST_NUMBER else None
    return None


def reads_as_number(value: Value) -> bool:
    """Return whether a value is a number or text that can be read as a number."""
    return as_number(value) is not None


def _is_separated(value: Value) -> bool:
    return isinstance(value, str) and _SEPARATED.fullmatch(value) is not None


def are_separated(values: list[Value]) -> bool:
    """Return whether some literals have thousands separators and the others are the same numbers without them."""
    numbers = {float(str(value).replace(",", "")) for value in values if _is_separated(value)}
    return bool(numbers) and all(_is_separated(value) or as_number(value) in numbers for value in values)


def with_commas(value: Value) -> str:
    """Return a number as text like 41,402."""
    return str(value) if _is_separated(value) else f"{as_number(value):,}"


def count_met(value: Value, conditions: Iterable[tuple[str, Value]], kind: ValueKind, numeric: bool) -> int:
    """Count the conditions that a value meets by SQLite's rules of comparison."""
    as_text = kind == "text" or not numeric
    return sum(
        compares(str(value), sign, str(other)) if as_text or sign == "like" else _holds(value, sign, other)
        for sign, other in conditions
    )


def values_meeting(sign: str, value: Value, kind: ValueKind, numeric: bool) -> list[Value]:
    """Return some values that meet a condition."""
    if sign == "like":
        text = str(value).replace("_", "q")
        return [text.replace("%", filling) for filling in ("", "x", " zz ")]
    first = [*_in_kind(value, kind), value] if sign in ("=", ">=", "<=") else []
    if sign == "=":
        return first
    return [*first, *(other for other in _neighbors(value, kind, numeric) if _holds(other, sign, value))]


def values_missing(sign: str, value: Value, kind: ValueKind, numeric: bool) -> list[Value]:
    """Return some values that just miss a condition."""
    if sign == "like":
        bare = str(value).strip("%")
        near = [bare, f"x{bare}", f"{bare}x", bare.swapcase(), bare[:-1]]
        return [text for text in near if text or not like("", str(value))]
    others = [other for other in _neighbors(value, kind, numeric) if not _holds(other, sign, value)]
    return [value, *others] if sign in ("<>", "<", ">") else others


def _in_kind(value: Value, kind: ValueKind) -> list[Value]:
    """Return a date in the year if a date column is compared with a year."""
    text = str(value)
    if kind in ("date", "datetime") and text.isdigit() and len(text) == 4:
        return [f"{text}-06-15" + (" 10:20:30" if kind == "datetime" else "")]
    return []


def _neighbors(value: Value, kind: ValueKind, numeric: bool) -> list[Value]:
    number = as_number(value)
    if number is not None and (numeric or not isinstance(value, str)):
        if kind == "boolean":
            return [0, 1]
        close: list[int | float] = [number + 1, number - 1, number + 2, number - 2, number // 10, number * 10]
        if kind == "real" or isinstance(number, float):
            close += [number + 0.5, number - 0.5]
        close = [other for other in close if other >= 0 or number <= 0] + [0]
        return [other for other in close if other != number]
    text = str(value)
    if text.isdigit() and kind in ("date", "datetime"):
        return [item for year in (int(text) + 1, int(text) - 1) for item in _in_kind(str(year), kind)]
    return [text.swapcase(), f"{text}x", text[:-1], f"x{text}", f"{text} {text}"]


def values_between(values: list[Value], kind: ValueKind) -> list[Value]:
    """Return the midpoints between successive literals, which are needed to meet a range."""
    numbers = sorted({number for value in values if (number := as_number(value)) is not None})
    found: list[Value] = []
    for low, high in pairwise(numbers):
        middle = (low + high) / 2
        if kind == "integer" or isinstance(low, int) or isinstance(high, int):
            middle = low + (high - low) // 2
        if low < middle < high:
            found.append(middle)
    return found


def _holds(other: Value, sign: str, value: Value) -> bool:
    a, b = as_number(other), as_number(value)
    return compares(str(other), sign, str(value)) if a is None or b is None else compares(a, sign, b)
