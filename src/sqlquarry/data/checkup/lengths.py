"""Find records with more tokens than training accepts."""

from __future__ import annotations

from collections.abc import Iterator

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.findings import Check, Finding, Kind

KINDS = (
    Kind(
        "over-length",
        "error",
        "A record is longer than max_length",
        "Shorten its schema, drop it, or raise max_length. Training refuses records that are longer than a row.",
        needs="max_length",
    ),
)


def over_length(checked: Checked) -> Iterator[Finding]:
    """Find records with more tokens, prompt and answer together, than the limit."""
    tokens, limit = checked.tokens, checked.max_length
    if tokens is None or limit is None:
        return
    for position, count in enumerate(tokens):
        if count > limit:
            yield Finding("over-length", (position,), f"{count:,} tokens, but max_length is {limit:,}")


CHECKS: tuple[Check, ...] = (over_length,)
