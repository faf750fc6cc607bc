"""How long imports and cold starts take."""

from __future__ import annotations

from dataclasses import dataclass


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
