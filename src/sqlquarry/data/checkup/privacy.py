"""Find records with values that look like personal data."""

from __future__ import annotations

from collections.abc import Iterator

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.fields import distinct_texts
from sqlquarry.data.checkup.findings import Check, Finding, Kind, findings_about
from sqlquarry.data.checkup.personal import personal_values

KINDS = (
    Kind(
        "personal-data",
        "warning",
        "A value looks like personal data",
        "Check whether it belongs to a real person. If so, replace it by an invented one, because a model can repeat "
        "what it was trained on.",
    ),
)


def personal_data(checked: Checked) -> Iterator[Finding]:
    """Find personal values in questions, schemas, queries and notes. The details show only masked values."""
    for field, text, positions in distinct_texts(checked.records):
        values = personal_values(text)
        for kind in dict.fromkeys(value.kind for value in values):
            masked = [value.masked for value in values if value.kind == kind]
            more = f" and {len(masked) - 1:,} more" if len(masked) > 1 else ""
            yield from findings_about("personal-data", positions, f"{kind} {masked[0]}{more} in the {field}")


CHECKS: tuple[Check, ...] = (personal_data,)
