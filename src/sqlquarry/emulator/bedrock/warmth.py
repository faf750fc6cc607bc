"""Scale to zero: whether an imported model is loaded when a request comes.

Sources (Bedrock user guide): "Invoke your imported model", where a call to a cold model begins to restore it, and
"Calculate the cost of running a custom model", where five minutes without a call scale it to zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

IDLE_S = 300.0


@dataclass(slots=True)
class Warmth:
    """State of one model; it begins cold.

    Args:
        cold_calls: calls that find it cold each time it wakes.
        cold_seconds: how long waking takes at least, from the first of these calls.
    """

    cold_calls: int
    cold_seconds: float
    _calls_left: int = 0
    _ready_at: float = -math.inf
    _used: float = -math.inf

    def refuses(self, now: float) -> bool:
        """Whether a call at this time finds it cold; every call keeps it awake, or begins to wake it."""
        if now - self._used >= IDLE_S:
            self._calls_left, self._ready_at = self.cold_calls, now + self.cold_seconds
        self._used = max(now, self._ready_at)
        self._calls_left -= 1
        return self._calls_left >= 0 or now < self._ready_at
