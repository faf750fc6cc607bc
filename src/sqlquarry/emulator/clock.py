"""The emulator's clock, which tests can advance by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable

Clock = Callable[[], float]  # returns the time in seconds


class ManualClock:
    """A clock for tests that moves only when `advance` is called: ``LocalAWS(clock=clock, sleep=clock.advance)``."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._now

    def advance(self, duration_s: float) -> None:
        """Move the clock forward by `duration_s` seconds."""
        with self._lock:
            self._now += duration_s
