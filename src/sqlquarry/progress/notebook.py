"""Show progress and tables in notebooks, as HTML that is safe and small."""

from __future__ import annotations

import html
import importlib
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlquarry.progress.workload import Workload
from sqlquarry.text import visible

_CELL_CHARACTERS, _LINE_CHARACTERS, _LINES = 160, 300, 20
_MOST_BYTES = 40_000  # limit for the rows of a table, because a notebook saves all that it shows in its file
# The colors are those of the notebook, so that text is readable in light and dark themes.
_CELL = "vertical-align:top;padding:.2em .8em;border-bottom:1px solid rgba(128,128,128,.35);"
_TEXT = f"{_CELL}text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:4em;max-width:32em"
_NUMBER = f"{_CELL}text-align:right;white-space:nowrap"


def kernel_shell() -> Any | None:
    """Return the IPython shell of a notebook's kernel, or None elsewhere, including IPython on a terminal."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)  # missing while IPython is being imported
    shell = get_ipython() if get_ipython else None
    return shell if getattr(shell, "kernel", None) is not None else None


class NotebookDisplay:
    """A display that is updated in place. It needs no widgets, and its last state is saved with the notebook."""

    interval_s, redraws = 0.5, True

    def __init__(self) -> None:
        self._handle: Any = None

    def begin(self, work: Workload) -> None:
        """Draw for the first time."""
        self.draw([work])

    def draw(self, works: Sequence[Workload]) -> None:
        """Draw all work that has taken long enough to be shown."""
        if not (shown := [work for work in works if work.is_drawn]):
            return
        content = {"text/html": "".join(map(_bar, shown)), "text/plain": "\n".join(work.line() for work in shown)}
        if self._handle is None:
            self._handle = importlib.import_module("IPython.display").display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    end = draw

    def print(self, line: str) -> None:
        """Write a line of text to the cell's output."""
        sys.stdout.write(f"{line}\n")


def safe_html(text: str, most: int = _LINE_CHARACTERS) -> str:
    """Return the first `most` characters of a text as one line of escaped HTML."""
    shown = visible(text[: most + 1], one_line=True)
    # Clip before escaping, because an escape is longer than its character.
    return html.escape(shown if len(shown) <= most else f"{shown[:most]}…")


def html_table(
    rows: Iterable[Sequence[str | int]],
    *,
    header: Sequence[str] = (),
    caption: str = "",
    notes: Sequence[str] = (),
    numbers: Collection[int] = (),
) -> str:
    """Return a table for a notebook, with escaped and clipped texts and as many rows as fit into 40 kB.

    Args:
        rows: the cells of each row.
        header: names of the columns. () shows no header.
        caption: the line above the table.
        notes: the lines below the table.
        numbers: indices of the columns that are aligned to the right.
    """
    parts = ['<div style="overflow-x:auto"><table style="border-collapse:collapse;font-variant-numeric:tabular-nums">']
    if caption:
        parts.append(f'<caption style="text-align:left;font-weight:600">{safe_html(caption)}</caption>')
    if header:
        parts.append(f"<thead>{_row('th', header, numbers)}</thead>")
    parts.append("<tbody>")
    room, left = _MOST_BYTES, 0
    for cells in rows:
        row = _row("td", cells, numbers)
        room -= len(row.encode())
        if room >= 0:
            parts.append(row)
        else:
            left += 1
    parts.append("</tbody></table>")
    below = [*([f"{left} more rows are too large to be shown"] if left else ()), *notes]
    parts += [f'<div style="opacity:.75">{safe_html(note)}</div>' for note in below[:_LINES]]
    return "".join([*parts, "</div>"])


def _bar(work: Workload) -> str:
    drawn = ""
    if work.total:
        done = min(work.done, work.total)
        drawn = f'<progress value="{done:g}" max="{work.total:g}" style="width:16em"></progress> '
    return f"<div>{safe_html(work.name)} {drawn}{safe_html(', '.join(filter(None, work.words())))}</div>"


def _row(tag: str, cells: Sequence[str | int], numbers: Collection[int]) -> str:
    shown = []
    for column, cell in enumerate(cells):
        style = _NUMBER if column in numbers else _TEXT
        text = f"{cell:,}" if isinstance(cell, int) else cell
        shown.append(f'<{tag} style="{style}">{safe_html(text, _CELL_CHARACTERS)}</{tag}>')
    return f"<tr>{''.join(shown)}</tr>"
