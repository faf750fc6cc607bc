"""Settings for waiting until a job of AWS ends: import jobs, batch jobs, training jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlquarry.errors import ConfigError
from sqlquarry.options import check_options


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """How often to ask for a job's status, and how long to wait for its end.

    Args:
        interval_s: seconds between two requests for the status.
        timeout_s: seconds after which to give up waiting; the job itself continues. None waits until the job ends.
        sleep: waits for a number of seconds; tests replace it.
        clock: returns seconds that never go backwards; tests replace it.

    Raises:
        ConfigError: a duration is not a positive, finite number.
    """

    interval_s: float = 30.0
    timeout_s: float | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        durations = {"interval_s": self.interval_s, "timeout_s": 1.0 if self.timeout_s is None else self.timeout_s}
        bad = [f"{name} is {value!r}" for name, value in durations.items() if not 0 < value < float("inf")]
        if bad:
            raise ConfigError(f"Polling: {', '.join(bad)}, but must be positive and finite")

    def is_over(self, waited_s: float) -> bool:
        """Return whether the wait has taken as long as it may."""
        return self.timeout_s is not None and waited_s >= self.timeout_s
