"""Count token lengths by range for a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_BARS = 40
_NICE = (1, 2, 2.5, 5)  # widths of a bar, times a power of ten


class Bar(NamedTuple):
    """The records whose length is in one range.

    Args:
        start, end: the range, from `start` up to and without `end`. The last bar of a chart has no end.
        records: number of records.
        height: 0 to 1, relative to the highest bar.
        is_over: whether all of these lengths are over the limit.
    """

    start: int
    end: int | None
    records: int
    height: float
    is_over: bool


class Histogram(NamedTuple):
    """A chart of token lengths.

    Args:
        bars: all bars from 0 to the longest record, of equal width.
        end: the number of tokens at the end of the axis.
        limit: the position of the limit on the axis from 0 to 1, or None if it is not on it.
    """

    bars: Sequence[Bar]
    end: int
    limit: float | None


def histogram(tokens: Sequence[int], limit: int | None) -> Histogram:
    """Return the chart. Its axis shows at least 99 % of the records, and the limit if that is near."""
    ranked = sorted(tokens)
    usual = 1.5 * ranked[-(-len(ranked) * 99 // 100) - 1]
    longest = min(ranked[-1], usual)
    if limit is not None and limit <= 2 * longest:
        longest = max(longest, 1.05 * limit)
    width = _width(longest)
    number = max(1, math.ceil((longest + 1) / width))
    counts = [0] * number
    for count in ranked:
        counts[min(count // width, number - 1)] += 1
    highest = max(counts)
    bars = [
        Bar(
            start=i * width,
            end=(i + 1) * width if ranked[-1] < (i + 1) * width or i < number - 1 else None,
            records=count,
            height=count / highest,
            is_over=limit is not None and i * width > limit,
        )
        for i, count in enumerate(counts)
    ]
    end = number * width
    return Histogram(bars, end, limit / end if limit is not None and limit <= end else None)


def _width(longest: float) -> int:
    """Return a round width with which at most 40 bars are enough."""
    raw = (longest + 1) / _BARS
    power = 10 ** math.floor(math.log10(raw)) if raw >= 1 else 1
    widths = [math.ceil(nice * scale) for scale in (power, 10 * power) for nice in _NICE]
    return next(width for width in widths if width >= raw)
