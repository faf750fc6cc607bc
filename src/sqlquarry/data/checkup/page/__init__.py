"""Write the report of a check-up as one self-contained HTML page.

Verdict, sections, advice, counts and charts are plain HTML. The examples of each section are compressed data, which the
page's script unpacks, filters and shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.describe import count_of, described
from sqlquarry.data.checkup.findings import SEVERITIES, Kind
from sqlquarry.data.checkup.page.examples import examples
from sqlquarry.data.checkup.page.histogram import histogram
from sqlquarry.data.checkup.sections import Section, share_of
from sqlquarry.data.checkup.statistics import Statistics
from sqlquarry.pages import render_page


def page(
    checked: Checked,
    sections: Sequence[Section],
    statistics: Statistics,
    skipped: Iterable[Kind],
    clean: Iterable[Kind],
    *,
    title: str,
) -> bytes:
    """Return the page.

    Args:
        checked: the records.
        sections: the kinds that were found, in the order of the page.
        statistics: the figures for the charts.
        skipped: kinds that were not looked for.
        clean: kinds that were looked for and not found.
        title: the title of the page.
    """
    total = len(checked.records)
    data, shown = examples(checked.records, sections)
    variables = {
        "sections": sections,
        "shown": shown,
        "number": sum(len(section.findings) for section in sections),
        "total": total,
        "severities": {
            severity: [section for section in sections if section.kind.severity == severity] for severity in SEVERITIES
        },
        "statistics": statistics,
        "max_length": checked.max_length,
        "lines": list(described(statistics)),
        "charts": {
            name: {bucket: (count, share_of(count, statistics.with_sql)) for bucket, count in counts.items()}
            for name, counts in (("Hardness of the queries", statistics.classes), ("Contents", statistics.shapes))
            if any(counts.values())
        },
        "histogram": histogram(checked.tokens, checked.max_length) if checked.tokens else None,
        "skipped": list(skipped),
        "clean": list(clean),
    }
    filters: dict[str, Callable[..., str]] = {"of": count_of, "share": lambda count: share_of(count, total)}
    return render_page(Path(__file__).parent, variables, title=title, data=(data,), filters=filters)
