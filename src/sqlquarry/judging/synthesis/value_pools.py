"""Collects values for a column: values that meet its conditions, values that just miss them, and other values."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlquarry.judging.synthesis.dates import (
    DATE_KINDS,
    PartCondition,
    close_moments,
    compares,
    default_form,
    meets_part,
    moments,
    read_date,
)
from sqlquarry.judging.synthesis.hints import Hints
from sqlquarry.judging.synthesis.near_values import (
    LARGEST_NUMBER,
    are_separated,
    as_number,
    as_text_and_number,
    count_met,
    reads_as_number,
    values_between,
    values_meeting,
    values_missing,
    with_commas,
)
from sqlquarry.sql.schema import Column, Place, Schema, ValueKind
from sqlquarry.sql.syntax import Value

_ODD_VALUES = 12  # number of values that also occur in an unexpected form
_LONGEST_TEXT = 500
_FRACTIONS = (0.0, 0.5, 0.3125, 0.875)  # exact in binary, so that a sum does not depend on the order of its terms
# The range of numbers that a word in the column name implies, unless queries compare the column with other numbers.
_RANGES = (("age", 18, 100), ("year", 1950, 2030), ("month", 1, 12), ("percent", 0, 100), ("percentage", 0, 100))


@dataclass(frozen=True, slots=True)
class ValuePool:
    """Distinct values of one domain.

    Args:
        hits: values that meet a condition, starting with those that meet most conditions.
        near: values that just miss a condition.
        others: other values.
        odd: values that the type allows but people would not expect: negative numbers, outer spaces, another case.
    """

    hits: tuple[Value, ...]
    near: tuple[Value, ...]
    others: tuple[Value, ...]
    odd: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A column that needs a pool, and the hints of the queries about it."""

    column: Column
    conditions: list[tuple[str, Value]]
    parts: list[PartCondition]
    number: int
    count: int
    numeric: bool
    signed: bool
    fractional: bool
    padded: bool
    gold_values: list[Value]  # values with which the golds compare the column

    @property
    def values(self) -> list[Value]:
        return [value for _, value in self.conditions]


def value_pool(place: Place, column: Column, hints: Hints, expected: Hints, *, number: int, count: int) -> ValuePool:
    """Return the pool of a column.

    Args:
        place: the column's place.
        column: the column with its type.
        hints: the hints of all queries, with the values that they compare it with.
        expected: the hints of the golds, with the forms that they expect: negative, rounded or trimmed values.
        number: a different number for each column, so that their other values differ.
        count: the number of other values.
    """
    wanted = _Wanted(
        column,
        conditions=[(sign, value) for sign, value in hints.of_domain(place) if _is_storable(value)],
        parts=hints.parts_of(place),
        number=number,
        count=count,
        numeric=hints.marks(hints.numeric, place),
        signed=expected.marks(expected.signed, place),
        fractional=hints.marks(hints.fractional, place),
        padded=expected.marks(expected.padded, place),
        gold_values=[value for _, value in expected.of_domain(place)],
    )
    kind, asked = column.kind, hints.date_kind(place)
    if kind in DATE_KINDS or (kind == "text" and asked and not wanted.numeric):
        kind = "datetime" if asked == "datetime" and kind != "time" else asked or kind
        if kind in DATE_KINDS:
            return _dates(wanted, kind)
    if kind in ("text", "integer", "real") and are_separated(wanted.values):
        return _separated(column, [(sign, with_commas(value)) for sign, value in wanted.conditions], count)
    return _plain(wanted, kind)


class ValuePools(dict[Place, ValuePool]):
    """The pools of all columns, each created on first use. Columns of the same domain share a pool."""

    def __init__(self, schema: Schema, hints: Hints, gold_hints: Hints, count: int) -> None:
        super().__init__()
        self.schema, self.hints, self.gold_hints, self.count = schema, hints, gold_hints, count
        self.domains: dict[Place, Place] = {}
        self.leaders: dict[Place, tuple[int, Place]] = {}  # domain -> its number and its first column
        for name, table in schema.tables.items():
            for column in table.columns:
                place = (name, column)
                self.domains[place] = domain = hints.domain(place)
                self.leaders.setdefault(domain, (len(self.leaders), place))

    def __missing__(self, place: Place) -> ValuePool:
        number, first = self.leaders[self.domains[place]]
        if first != place:
            self[place] = self[first]
        else:
            column = self.schema.column(place)
            self[place] = value_pool(place, column, self.hints, self.gold_hints, number=number, count=self.count)
        return self[place]


def _plain(wanted: _Wanted, kind: ValueKind) -> ValuePool:
    """Return a pool of numbers or text."""
    values = wanted.values
    numeric = wanted.numeric or kind in ("integer", "real")
    if kind == "text" and values and all(reads_as_number(value) for value in values):
        numeric = True
    admission = _Admission(wanted.column, values if numeric and kind == "text" else None)
    hits = [hit for sign, value in wanted.conditions for hit in values_meeting(sign, value, kind, numeric)]
    near = [miss for sign, value in wanted.conditions for miss in values_missing(sign, value, kind, numeric)]
    if numeric:
        between = values_between(values, kind)
        hits += [value for value in between if count_met(value, wanted.conditions, kind, numeric)]
    others = _others(wanted, kind, numeric)
    # A value that meets one condition may just miss another condition on the same column.
    found = [admission.admit(group) for group in (hits, near, others, _odd(wanted, kind, numeric, others))]
    expected = _Expected(wanted)
    usual = [tuple(value for value in group if expected.holds(value)) for group in found]
    # Odd text is expected only if it has outer spaces. Odd numbers may be expected whatever the literals are.
    usual[3] = tuple(value for value in usual[3] if not isinstance(value, str) or value != value.strip())
    strange = [value for i, group in enumerate(found) for value in group if value not in usual[i]]
    # Literals with outer spaces come first.
    strange.sort(key=lambda value: not (isinstance(value, str) and value.strip() in values))
    padded = [value for value in usual[3] if isinstance(value, str) and value.strip() in values]
    best = sorted(usual[0], key=lambda value: -count_met(value, wanted.conditions, kind, numeric))
    return ValuePool(tuple(best), (*padded, *usual[1]), (*usual[2], *usual[3]), tuple(strange))


def _ranges(wanted: _Wanted) -> list[tuple[int, int]]:
    """Return the ranges that the column name implies, or none if queries compare the column with other numbers."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", wanted.column.name).lower())
    ranges = [(low, high) for word, low, high in _RANGES if word in words]
    numbers = [number for value in wanted.values if (number := as_number(value)) is not None]
    return [] if any(not low <= number <= high for low, high in ranges for number in numbers) else ranges


class _Expected:
    """A check for values that people would expect in a column, unlike others that its type allows."""

    def __init__(self, wanted: _Wanted) -> None:
        self.ranges = _ranges(wanted)
        self.golds = set(wanted.gold_values)
        self.others = set(wanted.values) - self.golds
        self.signed, self.padded = wanted.signed, wanted.padded
        self.cased = {value.lower() for value in (*wanted.gold_values, *wanted.values) if isinstance(value, str)}
        self.gold_cased = {value.lower() for value in self.golds if isinstance(value, str)}

    def holds(self, value: Value) -> bool:
        # If a prediction compares with 'peru' and the gold with 'Peru', nobody expects both in one column.
        if value in self.golds or (value in self.others and str(value).strip().lower() not in self.gold_cased):
            return True
        if isinstance(value, str):
            if value != value.strip():
                return self.padded
            if value.lower() in self.cased:
                return False
        number = as_number(value)
        if number is None:
            return True
        return (self.signed or number >= 0) and all(low <= number <= high for low, high in self.ranges)


class _Admission:
    """A filter that admits each value to a pool once, if it fits the column's type."""

    def __init__(self, column: Column, literals_as_text: list[Value] | None) -> None:
        self.length, self.kind = column.length, column.kind
        self.literals = literals_as_text
        self.seen: set[Value] = set()
        self.numbers = [as_text_and_number(value) for value in literals_as_text or () if reads_as_number(value)]

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
        if self.kind in ("integer", "real") and as_number(value) is None:
            return False
        if self.literals is None or value in self.literals or not reads_as_number(value):
            return True
        # Numbers in a text column must sort the same as text and as numbers, so that a CAST makes no difference.
        text, number = as_text_and_number(value)
        fits = all((text < other) == (number < known) for other, known in self.numbers)
        if fits:
            self.numbers.append((text, number))
        return fits


def _is_storable(value: Value) -> bool:
    if not isinstance(value, str):
        return abs(value) <= LARGEST_NUMBER
    # SQLite ends text at NUL, and half of a surrogate pair cannot be encoded as UTF-8.
    return len(value) <= _LONGEST_TEXT and not re.search("[\0\ud800-\udfff]", value)


def _dates(wanted: _Wanted, kind: ValueKind) -> ValuePool:
    """Return a pool of valid dates, written in the same form as the literals."""
    conditions, parts, count = wanted.conditions, wanted.parts, wanted.count
    literals = [value for sign, value in conditions if sign != "like" and isinstance(value, str)]
    forms = [found[1] for value in literals if (found := read_date(value))]
    # SQLite's functions read ISO dates only. Years and patterns are also compared with ISO dates.
    form = forms[0] if forms and not parts else default_form(kind)
    if form.pattern == "%Y-%m-%d" and kind == "datetime":
        form = default_form(kind)
    proposed = [*close_moments(conditions, parts, wanted.number), *moments(wanted.number, count)]
    met: dict[str, bool] = {}
    for moment in proposed:
        text = form.text(moment)
        if _fits_length(text, wanted.column):
            by_text = any(compares(text, sign, str(value)) for sign, value in conditions)
            met.setdefault(text, by_text or any(meets_part(moment, part) for part in parts))
    far = {form.text(moment) for moment in proposed[-count:]}
    # Values of "=" are used even if they are not complete dates, such as a year or other text.
    known = [value for sign, value in conditions if sign == "=" and _fits_length(str(value), wanted.column)]
    known += [value for sign, value in conditions if sign in ("<=", ">=") and read_date(value) is not None]
    if kind == "datetime" and forms:
        known = [value for value in known if len(str(value)) > 10]
    if not conditions and not parts:
        return ValuePool((), (), tuple(met))
    hits: dict[Value, None] = dict.fromkeys([*known, *(text for text, is_met in met.items() if is_met)])
    close = [text for text, is_met in met.items() if not is_met and text not in far]
    return ValuePool(tuple(hits), tuple(close), tuple(text for text in met if text in far and text not in hits))


def _fits_length(value: str, column: Column) -> bool:
    return column.length is None or len(value) <= column.length


def _separated(column: Column, conditions: list[tuple[str, str]], count: int) -> ValuePool:
    """Return a pool of texts like 41,402 that sort the same as their numbers. SQLite stores them as text."""
    literals = [value for _, value in conditions]
    known = [(text, float(text.replace(",", ""))) for text in literals]
    low, high = int(min(number for _, number in known)), int(max(number for _, number in known))
    steps = [0, 1, -1, 2, -2, 500, -500, 1111, -1111, 5003, -5003, *range(10_007, 2 * count * 1_009, 2_018)]
    proposed = [f"{number:,}" for number in (1, low // 1_000, high // 1_000)]
    proposed += [
        f"{middle + step:,}" for step in steps for middle in (low, high, (low + high) // 2) if middle + step >= 1_000
    ]
    fitting = [
        text
        for text in dict.fromkeys([*literals, *proposed])
        if _fits_length(text, column)
        and all((text < other) == (float(text.replace(",", "")) < value) for other, value in known)
    ]
    met = {text: sum(compares(text, sign, value) for sign, value in conditions) for text in fitting}
    hits = sorted((text for text in fitting if met[text]), key=lambda text: -met[text])
    misses = [text for text in fitting if not met[text]]
    return ValuePool(tuple(hits[:12]), tuple(misses[:12]), tuple((*hits[12:], *misses[12:])[:count]))


def _others(wanted: _Wanted, kind: ValueKind, numeric: bool) -> list[Value]:
    """Return values that no query uses, which differ from column to column."""
    column, values, number, count = wanted.column, wanted.values, wanted.number, range(wanted.count)
    if kind == "boolean":
        return [] if any(isinstance(value, str) for value in values) else [0, 1]
    known = [value for value in map(as_number, values) if value is not None]
    if kind == "integer" or numeric:
        start = int(max(known)) + 3 if known else 11 + 7 * number
        if ranges := _ranges(wanted):
            low, high = ranges[0]
            return [low + i for i in range(min(wanted.count, high - low + 1))]
        fractions = _FRACTIONS if kind == "real" or (wanted.fractional and kind == "text") else (0,)
        return [start + i + fractions[i % len(fractions)] for i in count]
    if kind in DATE_KINDS:
        form = default_form(kind)
        return [form.text(moment) for moment in moments(number, wanted.count)]
    word = "".join(sign for sign in column.name.lower() if sign.isalnum()) or "v"
    if column.length is not None and column.length < len(word) + 2:
        word = ""
    return [f"{chr(65 + i % 26)}{word}{i // 26 or ''}" for i in count]  # both LOWER and UPPER change it


def _odd(wanted: _Wanted, kind: ValueKind, numeric: bool, others: list[Value]) -> list[Value]:
    """Return values that people would not expect: negative or fractional numbers, outer spaces, another letter case."""
    literals = wanted.values[:_ODD_VALUES]
    if kind != "boolean" and (kind in ("integer", "real") or numeric):
        sample = [*literals, *others[: len(others) // 2 if wanted.signed else _ODD_VALUES // 2]]
        numbers = [number for value in sample if (number := as_number(value))]
        fractions = (0.5, 0.3125) if kind == "real" else ()
        return [*(-number for number in numbers), *(-number - part for number in numbers[:6] for part in fractions)]
    if kind == "text":
        sample = [*literals, *others[:2]]  # only a few, so that both forms of one value occur
        texts = [value for value in sample if isinstance(value, str) and value]
        return [form for text in texts for form in (text.swapcase(), f" {text}", f"{text} ")]
    return []
