"""Note signals that ask to stop, so that a run can finish its step first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list to which SIGTERM (a spot notice) or the first SIGINT is added while the block runs.

    Outside the main thread, signals cannot be handled and the list stays empty.
    """
    received: list[int] = []
    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the interface of signal handlers
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        with contextlib.suppress(ValueError):  # not the main thread
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, note)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
