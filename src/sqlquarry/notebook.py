"""Show things in notebooks: find the kernel that runs us, and write tables as HTML that is safe and small."""

from __future__ import annotations

import html
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlquarry.text import visible

_CELL_CHARACTERS, _LINE_CHARACTERS, _LINES = 160, 300, 20
_MOST_BYTES = 40_000  # of a table's rows; a notebook keeps in its file all that it shows
# Colours are the notebook's own, so that text is readable in light and in dark ones.
_CELL = "vertical-align:top;padding:.2em .8em;border-bottom:1px solid rgba(128,128,128,.35);"
_TEXT = f"{_CELL}text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:4em;max-width:32em"
_NUMBER = f"{_CELL}text-align:right;white-space:nowrap"


def kernel_shell() -> Any | None:
    """Return the IPython shell of a notebook's kernel; None elsewhere, also in IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def safe_html(text: str, most: int = _LINE_CHARACTERS) -> str:
    """Return text as one line of HTML that shows its first `most` characters and nothing else."""
    shown = visible(text[: most + 1], one_line=True)
    # An escape is longer than the character that it stands for.
    return html.escape(shown if len(shown) <= most else f"{shown[:most]}…")


def html_table(
    rows: Iterable[Sequence[str | int]],
    *,
    header: Sequence[str] = (),
    caption: str = "",
    notes: Sequence[str] = (),
    numbers: Collection[int] = (),
) -> str:
    """Return a table for a notebook, with every text escaped and clipped, and as many rows as 40 kB hold.

    Args:
        rows: the cells.
        header: names of the columns; () shows none.
        caption: the line above.
        notes: the lines below.
        numbers: places of the columns that are aligned to the right.
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


def _row(tag: str, cells: Sequence[str | int], numbers: Collection[int]) -> str:
    shown = []
    for place, cell in enumerate(cells):
        style = _NUMBER if place in numbers else _TEXT
        text = f"{cell:,}" if isinstance(cell, int) else cell
        shown.append(f'<{tag} style="{style}">{safe_html(text, _CELL_CHARACTERS)}</{tag}>')
    return f"<tr>{''.join(shown)}</tr>"
