"""Reads and writes dates as text, and generates dates that meet or just miss the conditions of queries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlquarry.sql.syntax import Value

_EPOCH = datetime(2001, 2, 3, 10, 20, 30)
_STEPS = [timedelta(days=days) for days in (0, 1, -1, 40, -40, 400)]
_ISO = "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
_LONGEST = 40  # more than the length of any written date


class PartCondition(NamedTuple):
    """A comparison of part of a date, as in ``strftime('%m', day) = '09'``. `part` is a format of strftime."""

    part: str
    sign: str
    value: Value


def _months_first(day: datetime) -> str:
    return f"{day:%B} {day.day}, {day.year}"


def _day_first(day: datetime) -> str:
    return f"{day.day} {day:%B} {day.year}"


def _plain_slashes(day: datetime) -> str:
    return f"{day.month}/{day.day}/{day.year}"


def _by(pattern: str) -> Callable[[datetime], str]:
    return lambda day: day.strftime(pattern)


# The formats to read and to write a date. A literal has a form if writing the date gives the same text.
_FORMS: Sequence[tuple[str, Callable[[datetime], str]]] = (
    *((pattern, _by(pattern)) for pattern in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S")),
    *((pattern, _by(pattern)) for pattern in ("%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d.%m.%Y", "%B %d, %Y", "%d %B %Y")),
    ("%m/%d/%Y", _plain_slashes),
    ("%B %d, %Y", _months_first),
    ("%d %B %Y", _day_first),
    *((pattern, _by(pattern)) for pattern in ("%H:%M:%S", "%H:%M")),
)
DateKind = Literal["date", "time", "datetime"]
DATE_KINDS: tuple[DateKind, ...] = ("date", "time", "datetime")
DEFAULT_FORMS = {"date": "%Y-%m-%d", "datetime": "%Y-%m-%d %H:%M:%S", "time": "%H:%M:%S"}


class DateForm(NamedTuple):
    """A format in which dates or times are written."""

    pattern: str
    write: Callable[[datetime], str]

    def text(self, moment: datetime) -> str:
        """Return a moment as text."""
        return self.write(moment)


def read_date(text: Value) -> tuple[datetime, DateForm] | None:
    """Return the moment and the form of a text that is a date or time, or None for any other text."""
    if not isinstance(text, str) or not 4 < len(text) < _LONGEST or not text.isascii():
        return None
    for pattern, write in _FORMS:
        with suppress(ValueError):
            moment = datetime.strptime(text, pattern)
            for cased in (write, lambda day, write=write: write(day).lower()):
                if cased(moment) == text:
                    return moment, DateForm(pattern, cased)
    return None


def default_form(kind: str) -> DateForm:
    """Return the ISO form, which SQLite's functions can read."""
    pattern = DEFAULT_FORMS[kind]
    return DateForm(pattern, _by(pattern))


def moments(number: int, count: int) -> list[datetime]:
    """Return moments that no query uses. Columns with different values of `number` get different moments."""
    return [_EPOCH + timedelta(days=37 * (number % 900) + 11 * i, minutes=13 * i) for i in range(count)]


def close_moments(
    conditions: Iterable[tuple[str, Value]], parts: Iterable[PartCondition], number: int
) -> Iterator[datetime]:
    """Yield moments that meet conditions or just miss them. The caller must check which ones meet them."""
    base = moments(number, 1)[0]
    for sign, value in conditions:
        if found := read_date(value):
            for step in _STEPS:
                with suppress(OverflowError):  # before the first or after the last possible year
                    yield found[0] + step
        else:
            yield from _completed(base, str(value).strip("%") if sign == "like" else str(value))
    known = [moment for condition in parts for moment in _with_part(base, condition)]
    yield from known
    # Conditions may concern two parts of one date, such as year 2020 and month 5, so parts are also combined.
    for condition in parts:
        for moment in known[:6]:
            yield from _with_part(moment, condition)


def _completed(base: datetime, text: str) -> Iterator[datetime]:
    """Yield dates that contain part of an ISO date, such as '2020', '2020-05' or '-05-'."""
    year = re.match(r"(\d{4})(?!\d)", text)
    month = re.search(r"(?:^|\d{4}|^)-(\d\d)\b", text)
    day = re.search(r"-\d\d-(\d\d)$", text) or (None if year else re.search(r"-(\d\d)$", text))
    if not (year or month or day):
        return
    with suppress(ValueError):
        moment = base.replace(
            year=int(year[1]) if year else base.year,
            month=int(month[1]) if month else base.month,
            day=int(day[1]) if day else 15,
        )
        yield moment
        for step in (timedelta(days=31), timedelta(days=-31), timedelta(days=366), timedelta(days=-366)):
            with suppress(OverflowError):
                yield moment + step


def _with_part(base: datetime, condition: PartCondition) -> Iterator[datetime]:
    """Yield a moment with the part set to the value of a condition, and with the values just before and after it."""
    names = {"%Y": "year", "%m": "month", "%d": "day", "%H": "hour", "%M": "minute", "%S": "second"}
    asked = condition.part
    if asked not in names:
        found = None
        with suppress(ValueError):
            found = datetime.strptime(str(condition.value), asked)
        if asked in ("%w", "%j"):  # day of the week, day of the year
            yield from (base + timedelta(days=days) for days in range(8))
        elif found:
            moment = found if "%Y" in asked else found.replace(year=base.year)
            for step in _STEPS:
                with suppress(OverflowError):
                    yield moment + step
        return
    with suppress(ValueError):
        value = int(float(str(condition.value)))
        for number in (value, value + 1, value - 1):
            with suppress(ValueError):
                yield datetime.fromisoformat(_ISO.format(**_parts_of(base) | {names[asked]: number}))


def _parts_of(moment: datetime) -> dict[str, int]:
    """Return the parts of a moment by name. The day is at most 28, so that it exists in every month."""
    parts = {name: getattr(moment, name) for name in ("year", "month", "day", "hour", "minute", "second")}
    return parts | {"day": min(moment.day, 28)}


def meets_part(moment: datetime, condition: PartCondition) -> bool:
    """Return whether part of a moment meets a condition. Numbers are compared as numbers, text as text."""
    text = moment.strftime(condition.part)
    if isinstance(condition.value, str):
        return compares(text, condition.sign, condition.value)
    with suppress(ValueError):
        return compares(float(text), condition.sign, float(condition.value))
    return False


def compares(a: str | float, sign: str, b: str | float) -> bool:
    """Compare two texts or numbers by an SQL comparison operator, or match a text by "like"."""
    if sign == "like":
        return like(str(a), str(b))
    if isinstance(a, str) or isinstance(b, str):
        less, equal = str(a) < str(b), str(a) == str(b)
    else:
        less, equal = a < b, a == b
    return {
        "<": less,
        "<=": less or equal,
        ">": not (less or equal),
        ">=": not less,
        "=": equal,
        "<>": not equal,
    }[sign]


def like(text: str, pattern: str) -> bool:
    """Return whether SQLite's LIKE matches, which ignores the case of ASCII letters."""
    signs = {"%": ".*", "_": "."}
    expression = "".join(signs.get(sign) or re.escape(sign) for sign in pattern)
    return re.fullmatch(expression, text, re.IGNORECASE | re.DOTALL) is not None
