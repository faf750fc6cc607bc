"""Limit the number of requests in flight. Throttling halves the limit and answers raise it slowly (AIMD).

Source: V. Jacobson, "Congestion Avoidance and Control", SIGCOMM 1988; D.-M. Chiu and R. Jain, "Analysis of the Increase
and Decrease Algorithms for Congestion Avoidance", 1989.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class AdaptiveConcurrency:
    """A limit on requests in flight that moves between 1 and `maximum`. It can be shared by any number of threads.

    A throttled request halves the limit, but only if it started after the last halving. Requests that were in flight
    together are throttled together, so they count as one signal. Each answer adds 1/limit, so a full round of answers
    adds about one.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum, self.limit = maximum, float(maximum)
        self._in_flight, self._round, self._closed = 0, 0, False
        self._changed = threading.Condition()

    @contextmanager
    def slot(self) -> Iterator[int]:
        """Wait for a free slot, hold it, and yield the round in which the request starts (for `throttled`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._in_flight < int(self.limit))
            self._in_flight += 1
            started = self._round
        try:
            yield started
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify()

    def throttled(self, started: int) -> None:
        """Record that the service throttled a request that started in round `started`."""
        with self._changed:
            if started == self._round:
                self._round += 1
                self.limit = max(1.0, self.limit / 2)

    def answered(self) -> None:
        """Record that the service answered a request."""
        with self._changed:
            self.limit = min(float(self.maximum), self.limit + 1 / self.limit)
            self._changed.notify()

    def close(self) -> None:
        """Let all waiting requests start immediately, whatever the limit is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
