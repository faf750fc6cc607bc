"""Measure the progress of a piece of work, and describe it in words with the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from sqlquarry.text import visible

BRIEF_S = 1.0
Unit = Literal["", "step", "byte", "second"]


class Workload:
    """The progress and speed of a piece of work. It can be used by several threads.

    Args:
        name: name of the work, such as "merging".
        total: total amount of work in `unit`, or None if it is not known.
        unit: the unit of the amounts. "" counts items without a unit. Amounts in seconds are not shown.
        note: further text to show, such as the loss.
        brief: whether the work is often short. Such work is not drawn until it has taken one second.
        clock: a clock in seconds, replaced by tests.
    """

    def __init__(
        self,
        name: str,
        total: float | None = None,
        *,
        unit: Unit = "",
        note: str = "",
        brief: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.total, self.unit, self.note = visible(name, one_line=True), total, unit, note
        self.brief = brief
        self.done, self.ended, self.failed = 0.0, False, False
        self._clock, self._lock = clock, threading.Lock()
        self._started, self._took_s = clock(), 0.0
        # For the speed: the weighted seconds and units, the time of the last progress, and the number of updates.
        self._seconds, self._units, self._last_s, self._times = 0.0, 0.0, 0.0, 0

    def resume(self, done: float) -> None:
        """Set the amount that an earlier run has done. It does not count for the speed."""
        self.done = done

    def update(self, done: float, *, total: float | None = None, note: str | None = None) -> None:
        """Set the amount that is done by now, and the total and the note if they are given."""
        with self._lock:
            self._reach(done)
            self.total = self.total if total is None else total
            self.note = self.note if note is None else note

    def advance(self, count: float = 1) -> None:
        """Add to the amount that is done."""
        with self._lock:
            self._reach(self.done + count)

    def finish(self, *, failed: bool = False) -> None:
        """Stop the clock."""
        self._took_s, self.ended, self.failed = self.elapsed_s, True, failed

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start until now, or until the end if the work has ended."""
        return self._took_s if self.ended else self._clock() - self._started

    @property
    def is_drawn(self) -> bool:
        """Whether the work has taken long enough to be drawn."""
        return not self.brief or self.elapsed_s >= BRIEF_S

    @property
    def remaining_s(self) -> float | None:
        """Seconds left at the speed so far, or None if they are not known."""
        if self.total is None or not self._units or self.ended or self.unit == "second":
            return None
        each = self._seconds / self._units
        return max(0.0, (self.total - self.done) * each - min(each, self.elapsed_s - self._last_s))

    def words(self) -> list[str]:
        """Return the texts to show after the name: amount, note, time and time left. Unknown ones are ""."""
        speed = f"{_bytes(self._units / self._seconds)}/s" if self.unit == "byte" and self._seconds else ""
        left, elapsed = self.remaining_s, self.elapsed_s
        words = [
            self._amount(),
            ", ".join(filter(None, (self.note, speed))),
            _duration(elapsed) if elapsed >= 1 or self.ended else "",
            "stopped" if self.failed else "" if left is None or left < 1 else f"about {_duration(left)} left",
        ]
        return [visible(word, one_line=True) for word in words]

    def line(self) -> str:
        """Return the name and all words as one line of plain text."""
        return ": ".join(filter(None, (self.name, ", ".join(filter(None, self.words())))))

    def _reach(self, done: float) -> None:
        """Set the amount that is done and update the speed.

        Progress counts half as much if it is twice as long ago. The first step does not count, because it often
        includes compilation.
        """
        units, elapsed = done - self.done, self.elapsed_s
        self.done = done
        if units > 0:
            is_second_step = self.unit == "step" and self._times == 1
            keep = self._last_s / elapsed if elapsed and not is_second_step else 0.0
            self._seconds = self._seconds * keep + elapsed - self._last_s
            self._units = self._units * keep + units
            self._last_s, self._times = elapsed, self._times + 1

    def _amount(self) -> str:
        if self.unit == "second" or (self.total is None and not self.done):
            return ""
        show = _bytes if self.unit == "byte" else "{:,.0f}".format
        amount = show(self.done) + (f"/{show(self.total)}" if self.total is not None else "")
        return f"step {amount}" if self.unit == "step" else amount


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
