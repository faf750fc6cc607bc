"""Equality of two cells, and the options for comparing two results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from sqlquarry.errors import ConfigError
from sqlquarry.options import check_options

_LARGEST_WHOLE_FLOAT = 2**53  # every larger float is an integer, so that says nothing about its origin
_LARGEST_FLOAT = 2**1023
_MOST_INTEGER_DIGITS = 140_000  # decimals with more digits are not converted to int
# PostgreSQL rounds quotients of exact numbers to at least 16 significant digits (numeric.c, select_div_scale).
_QUOTIENT_DIGITS, _QUOTIENT_DECIMALS = 16, 6
_NOISE = 1e-9  # error of a rounded number, because most decimals are not exact as a float
INEXACT = (float, Decimal)
NUMBERS = (int, float, Decimal)
_NAN = object()

Number = int | float | Decimal
Cell = object  # any value of a driver. Numbers, text and bytes are compared by value, others with `==`
Row = Sequence[Cell]


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOptions:
    """Differences between two results that still count as equal. By default this is only the order of the columns.

    Args:
        permute_columns: the predicted columns may be in a different order, the same for all rows. Columns are paired by
            name if both results have the same names.
        extra_columns: the prediction may have more columns than the gold. The number of rows must still be equal.
        relative_tolerance: allowed difference of two numbers if one is a float, as a fraction of the larger one. It
            must be below 0.5.
        absolute_tolerance: allowed difference of the same numbers, for rounding noise near 0.
        decimals: two numbers that are not both integers are equal if they agree when rounded to this many decimals.
            This is for golds that round although the question does not require it. None does not round.
        ignore_case: ignore the case of text (Unicode case folding).
        ignore_whitespace: strip outer white space of text, and replace each inner run of white space by one blank.

    Raises:
        ConfigError: a tolerance is out of range. The message lists all such values.
    """

    permute_columns: bool = True
    extra_columns: bool = False
    relative_tolerance: float = 1e-9
    absolute_tolerance: float = 1e-12
    decimals: int | None = None
    ignore_case: bool = False
    ignore_whitespace: bool = False

    def __post_init__(self) -> None:
        bounds = {"relative_tolerance": 0.5, "absolute_tolerance": math.inf}
        bad = [
            f"{name} is {getattr(self, name)!r}" for name, top in bounds.items() if not 0 <= getattr(self, name) < top
        ]
        if self.decimals is not None and not (isinstance(self.decimals, int) and 0 <= self.decimals <= 15):
            bad.append(f"decimals is {self.decimals!r}")
        if bad:
            raise ConfigError(
                f"invalid comparison options: {', '.join(bad)}. Tolerances must be finite and at least 0, "
                "relative_tolerance must be below 0.5, and decimals must be None or an integer from 0 to 15."
            )

    def same_cell(self, a: Cell, b: Cell) -> bool:
        """Return whether two normalized cells are equal."""
        if a == b:
            return True
        if not (isinstance(a, INEXACT) or isinstance(b, INEXACT)):
            return False
        if not (isinstance(a, NUMBERS) and isinstance(b, NUMBERS)):
            return False
        return self._near(a, b)

    def _near(self, a: Number, b: Number) -> bool:
        """Return whether two numbers that are not both integers differ only by rounding."""
        if isinstance(a, Decimal) or isinstance(b, Decimal):
            return self._near_decimal(a, b)
        whole, other = (a, b) if isinstance(a, int) else (b, a)
        if isinstance(whole, int) and abs(whole) > _LARGEST_WHOLE_FLOAT:  # then the float is an integer, too
            return abs(whole) < _LARGEST_FLOAT and float(whole) == other
        if math.isclose(a, b, rel_tol=self.relative_tolerance, abs_tol=self.absolute_tolerance):
            return True
        return self.decimals is not None and abs(a - b) <= 0.5 * 10.0**-self.decimals * (1 + _NOISE)

    def _near_decimal(self, a: Number, b: Number) -> bool:
        if any(isinstance(number, float) and math.isinf(number) for number in (a, b)):
            return False
        distance = abs(Fraction(a) - Fraction(b))
        if self.decimals is not None and distance <= Fraction(1, 2 * 10**self.decimals) * Fraction(1 + _NOISE):
            return True
        if isinstance(a, float) or isinstance(b, float):
            largest = max(abs(Fraction(a)), abs(Fraction(b)))
            return distance <= max(Fraction(self.relative_tolerance) * largest, Fraction(self.absolute_tolerance))
        return distance <= max(_quotient_step(a), _quotient_step(b))

    def tolerance_at(self, number: Number) -> float | Fraction:
        """Return the distance within which smaller numbers count as equal. For larger ones it may be twice that."""
        wide = 0.0 if self.decimals is None else 0.51 * 10.0**-self.decimals
        if isinstance(number, float):
            return max(self.relative_tolerance * abs(number), self.absolute_tolerance, wide)
        if isinstance(number, Decimal):
            return max(_quotient_step(number), Fraction(wide))
        return 0

    def same_row(self, a: Row, b: Row) -> bool:
        """Return whether two normalized rows are equal, cell by cell."""
        return all(map(self.same_cell, a, b))

    def normalized(self, rows: Iterable[Row]) -> list[tuple[Cell, ...]]:
        """Return the rows with all values that are the same number or count as the same text replaced by one value."""
        plain = [tuple(map(_normalized, row)) for row in rows]
        if not (self.ignore_case or self.ignore_whitespace):
            return plain
        return [tuple(self._text(cell) if isinstance(cell, str) else cell for cell in row) for row in plain]

    def _text(self, text: str) -> str:
        text = " ".join(text.split()) if self.ignore_whitespace else text
        return text.casefold() if self.ignore_case else text


STRICT = ComparisonOptions()


def _normalized(value: Cell) -> Cell:
    """Return one representative for all values that are the same number. Integers become int, NaN a single object."""
    if value is None or type(value) in (int, str):  # nearly all cells
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return _NAN
        return int(value) if value.is_integer() and abs(value) <= _LARGEST_WHOLE_FLOAT else value
    if isinstance(value, Decimal):
        return _normalized_decimal(value)
    if isinstance(value, bool):
        return int(value)
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _normalized_decimal(value: Decimal) -> Cell:
    """Return a finite decimal as int or Decimal. As floats, different long keys and amounts would be equal."""
    if not value.is_finite():
        return _NAN if value.is_nan() else float(value)
    return int(value) if value.adjusted() < _MOST_INTEGER_DIGITS and value == value.to_integral_value() else value


def _quotient_step(value: Number) -> Fraction:
    """Return one unit in the last digit of a decimal that may be a rounded quotient, or 0 for other numbers."""
    if not isinstance(value, Decimal):
        return Fraction(0)
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or len(digits) < _QUOTIENT_DIGITS or -exponent < _QUOTIENT_DECIMALS:
        return Fraction(0)
    return Fraction(1, 10**-exponent)
