"""Render one HTML page from a template, a style sheet and a script of its own, next to those that all pages share.

Texts come from records, models and databases. So templates escape them, scripts make text nodes of them, and the
browser may run only the page's own script and load nothing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sqlquarry.text import visible

_HERE = Path(__file__).parent
_NO_FILTERS: Mapping[str, Callable[..., str]] = {}


def render_page(
    folder: Path,
    variables: Mapping[str, object],
    *,
    title: str,
    data: Sequence[str] = (),
    filters: Mapping[str, Callable[..., str]] = _NO_FILTERS,
) -> bytes:
    """Return a page in dark and light colors, with everything that it needs in it.

    Args:
        folder: contains ``page.html.j2``, which extends ``base.html.j2``, ``page.css`` and ``page.js``.
        variables: the variables of the template.
        title: the title of the page.
        data: texts that `packed` returned, which the script unpacks.
        filters: further filters of the template by name.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup comes from the template
    )
    environment.filters |= filters
    script = f"{_read(_HERE / 'base.js')}\n{_read(folder / 'page.js')}"
    page = environment.get_template("page.html.j2").render(
        variables,
        title=title,
        style=_read(_HERE / "base.css") + _read(folder / "page.css"),
        script=script,
        # Only this script may run, whatever a text contains. This is a second defense after escaping.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=data,
    )
    return page.encode("utf-8", errors="backslashreplace")


def packed(data: object) -> str:
    """Compress JSON values for a page. The same data always gives the same text."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # The archive has no time stamp. Half of an emoji becomes its JSON escape.
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), 6, mtime=0)).decode()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
