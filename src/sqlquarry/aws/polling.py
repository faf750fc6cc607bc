"""Settings for waiting until an AWS job ends (import jobs, batch jobs, training jobs)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlquarry.errors import ConfigError
from sqlquarry.options import check_options


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """How often to request a job's status, and how long to wait for the job to end.

    Args:
        interval_s: seconds between two requests for the status.
        timeout_s: seconds after which to stop waiting. The job itself continues. None waits until the job ends, and
            "auto" uses a limit that suits the job, for example an hour for an import.
        sleep: waits for a number of seconds. Tests replace it.
        clock: returns a time in seconds that never goes backwards. Tests replace it.

    Raises:
        ConfigError: a duration is not a positive, finite number.
    """

    interval_s: float = 30.0
    timeout_s: float | Literal["auto"] | None = "auto"
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        given = {"interval_s": self.interval_s, "timeout_s": self.timeout_s}
        durations = {name: value for name, value in given.items() if isinstance(value, int | float)}
        bad = [f"{name} is {value!r}" for name, value in durations.items() if not 0 < value < float("inf")]
        if bad:
            raise ConfigError(f"Polling: {', '.join(bad)}, but durations must be positive and finite")

    def with_timeout(self, timeout_s: float | None) -> Polling:
        """Return these settings with `timeout_s` in place of "auto"."""
        return dataclasses.replace(self, timeout_s=timeout_s) if self.timeout_s == "auto" else self

    def is_over(self, waited_s: float) -> bool:
        """Return whether the timeout has passed."""
        return isinstance(self.timeout_s, int | float) and waited_s >= self.timeout_s
