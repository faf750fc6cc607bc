"""The durations of imports and cold starts, and the state of a model that may be cold.

Sources (Bedrock user guide): "Invoke your imported model", which says that a call to a cold model starts to restore it,
and "Calculate the cost of running a custom model", which says that a model is scaled to zero after five minutes without
a call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

IDLE_S = 300.0


@dataclass(frozen=True, slots=True)
class ImportTiming:
    """The durations of import jobs and cold starts. The defaults take no time.

    Args:
        import_polls: number of status requests (Get, or another Create) for which a job stays InProgress.
        import_s: minimum number of seconds that a job stays InProgress.
        cold_start_calls: number of invocations that fail during each cold start.
        cold_start_s: minimum duration of a cold start in seconds.
    """

    import_polls: int = 0
    import_s: float = 0.0
    cold_start_calls: int = 0
    cold_start_s: float = 0.0


IMMEDIATE = ImportTiming()


@dataclass(slots=True)
class ColdStart:
    """The cold-start state of one model, which is cold at first.

    Args:
        calls: number of calls that fail during each cold start.
        duration_s: minimum duration of a cold start in seconds, from the first of these calls.
    """

    calls: int
    duration_s: float
    _calls_left: int = 0
    _ready_at: float = -math.inf
    _used: float = -math.inf

    def refuses(self, now: float) -> bool:
        """Return whether a call at this time finds the model cold. A call also keeps the model loaded or loads it."""
        if now - self._used >= IDLE_S:
            self._calls_left, self._ready_at = self.calls, now + self.duration_s
        self._used = max(now, self._ready_at)
        self._calls_left -= 1
        return self._calls_left >= 0 or now < self._ready_at
