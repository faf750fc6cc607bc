"""Show the progress of long work as a bar on a terminal, one display in a notebook, or plain lines in a log file.

Bars that are open at the same time share one display. The bar that was opened first stays visible there after it ends.
A thread draws, so that the time advances even during a single slow step. An error while drawing, for example because
the terminal was closed, ends the drawing but never the work.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Self

from sqlquarry.progress.notebook import NotebookDisplay, kernel_shell
from sqlquarry.progress.workload import Unit, Workload
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
LINE_INTERVAL_S = 30.0  # time between two lines of a log file


class ProgressBar(Workload):
    """A context manager that shows the progress of one piece of work while its block runs.

    Under torchrun, only the process of rank 0 draws.

    Args:
        name, total, unit, note, brief: see `Workload`.
        show: whether to draw at all.
    """

    def __init__(
        self,
        name: str,
        total: float | None = None,
        *,
        unit: Unit = "",
        note: str = "",
        brief: bool = False,
        show: bool = True,
    ) -> None:
        super().__init__(name, total, unit=unit, note=note, brief=brief)
        self._show = show and os.environ.get("RANK", "0") == "0"

    def __enter__(self) -> Self:
        if self._show:
            _screen.open(self)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.finish(failed=kind is not None)
        if self._show:
            _screen.close(self)

    def print(self, line: str) -> None:
        """Write a line of text above the bar. Do nothing if the bar is not shown."""
        if self._show:
            _screen.attempt(lambda display: display.print(line))

    @property
    def is_redrawn(self) -> bool:
        """Whether the bar is redrawn in place, so that no further lines about progress are needed."""
        return self._show and _screen.redraws


def phase(name: str, *, show: bool = True) -> ProgressBar:
    """Return a context manager that shows a phase of unknown length, such as loading a model."""
    return ProgressBar(name, brief=True, show=show)


class _Lines:
    """Plain lines at the start, every 30 s and at the end, for files and services that collect logs."""

    redraws = False

    def __init__(self) -> None:
        self.interval_s = LINE_INTERVAL_S

    def begin(self, bar: ProgressBar) -> None:
        if bar.total is None or not bar.brief:
            self._write(bar.line())

    def draw(self, bars: Sequence[ProgressBar]) -> None:
        self._write("; ".join(bar.line() for bar in bars))

    def end(self, bars: Sequence[ProgressBar]) -> None:
        for bar in bars:
            # For a short phase, the line at its start is enough.
            if bar.failed or (bar.is_drawn if bar.total is not None else bar.elapsed_s >= self.interval_s):
                self._write(bar.line())

    def print(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def _write(self, line: str) -> None:
        if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():  # otherwise the line would not be visible
            logger.info("%s", line)
        else:
            self.print(line)


class _Terminal:
    """Bars that are redrawn in place, below all other output."""

    interval_s, redraws = 0.2, True

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        class Terminal(Console):
            def on_broken_pipe(self) -> None:  # the original method ends the program
                raise BrokenPipeError

        # If standard output is a file or a pipe, leave it alone. rich would redirect it to the terminal.
        redirected = sys.stdout.isatty()
        self._live = Live(console=Terminal(file=sys.stderr), auto_refresh=False, redirect_stdout=redirected)
        self._live.start()

    def begin(self, bar: ProgressBar) -> None:
        self.draw([bar])

    def draw(self, bars: Sequence[ProgressBar]) -> None:
        from rich.progress_bar import ProgressBar as Bar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        for _ in range(6):
            table.add_column(no_wrap=True)
        width = min(40, self._live.console.width // 4)
        for bar in bars:
            if bar.is_drawn:
                drawn = Bar(bar.total, min(bar.done, bar.total), width=width) if bar.total else Text("")
                table.add_row(Text(bar.name), drawn, *map(Text, bar.words()))
        self._live.update(table, refresh=True)

    def end(self, bars: Sequence[ProgressBar]) -> None:
        try:
            self.draw(bars)
        finally:
            self._live.stop()

    def print(self, line: str) -> None:
        self._live.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


_Display = _Lines | _Terminal | NotebookDisplay


class _Screen:
    """The open bars of this process and their display. The first bar opens the display, and the last one closes it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bars: list[ProgressBar] = []
        self._display: _Display | None = None
        self._closed = threading.Event()

    @property
    def redraws(self) -> bool:
        return self._display is not None and self._display.redraws

    def open(self, bar: ProgressBar) -> None:
        with self._lock:
            self._bars.append(bar)
            if len(self._bars) > 1:
                return
            with contextlib.suppress(Exception):
                self._display = _new_display()
            self.attempt(lambda display: display.begin(bar))
            self._closed = threading.Event()
            # The thread needs the context of the running cell, by which the kernel finds the cell of a display.
            tick = contextvars.copy_context().run
            threading.Thread(target=tick, args=(self._tick, self._closed), name="progress", daemon=True).start()

    def close(self, bar: ProgressBar) -> None:
        with self._lock:
            if bar is not self._bars[0]:
                self._bars.remove(bar)
            if all(one.ended for one in self._bars):
                self._closed.set()
                self.attempt(lambda display: display.end(self._bars))
                self._bars, self._display = [], None

    def attempt(self, draw: Callable[[_Display], object]) -> None:
        """Draw. After an error, draw nothing more until all open bars have ended."""
        with self._lock:
            display = self._display
            if display is None:
                return
            try:
                draw(display)
            except Exception:  # noqa: BLE001 - a closed terminal must not end hours of work
                self._display = None
                with contextlib.suppress(Exception):
                    display.end([])  # releases standard output and error

    def _tick(self, closed: threading.Event) -> None:
        while (display := self._display) is not None and not closed.wait(display.interval_s):
            with self._lock:
                if not closed.is_set():
                    self.attempt(lambda display: display.draw(self._bars))


def _new_display() -> _Display:
    if kernel_shell() is not None:
        return NotebookDisplay()
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return _Terminal() if is_terminal else _Lines()


_screen = _Screen()
