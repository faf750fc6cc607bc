"""How long imports and cold starts take, and whether an imported model is loaded when a request comes.

Sources (Bedrock user guide): "Invoke your imported model", where a call to a cold model begins to restore it, and
"Calculate the cost of running a custom model", where five minutes without a call scale it to zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

IDLE_S = 300.0


@dataclass(frozen=True, slots=True)
class ImportTiming:
    """How long import jobs and cold starts take; by default, no time.

    Args:
        import_polls: how many looks at a job (Get, or another Create) find it InProgress.
        import_s: how long it stays InProgress at least.
        cold_start_calls: how many invocations find a model cold each time it wakes.
        cold_start_s: how long waking takes at least.
    """

    import_polls: int = 0
    import_s: float = 0.0
    cold_start_calls: int = 0
    cold_start_s: float = 0.0


IMMEDIATE = ImportTiming()


@dataclass(slots=True)
class ColdStart:
    """The state of one model, which begins cold.

    Args:
        calls: how many calls find it cold each time it wakes.
        duration_s: how long waking takes at least, from the first of these calls.
    """

    calls: int
    duration_s: float
    _calls_left: int = 0
    _ready_at: float = -math.inf
    _used: float = -math.inf

    def refuses(self, now: float) -> bool:
        """Return whether a call at this time finds the model cold; every call keeps it awake or begins to wake it."""
        if now - self._used >= IDLE_S:
            self._calls_left, self._ready_at = self.calls, now + self.duration_s
        self._used = max(now, self._ready_at)
        self._calls_left -= 1
        return self._calls_left >= 0 or now < self._ready_at
