"""Group the findings of one kind for the summary and the page of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlquarry.data.checkup.describe import count_of
from sqlquarry.data.checkup.findings import Finding, Kind


@dataclass(frozen=True, slots=True)
class Section:
    """A kind with its findings.

    Args:
        kind: the kind.
        findings: at least one.
    """

    kind: Kind
    findings: Sequence[Finding]

    @property
    def places(self) -> frozenset[int]:
        """Positions of the records concerned. A finding about the whole set concerns none."""
        return frozenset(place for finding in self.findings for place in finding.records)

    def size(self, total: int) -> str:
        """Return the number of findings in words, and that of their records and their share of `total` records."""
        count, places = count_of(len(self.findings), "finding"), len(self.places)
        if not places:
            return count
        return f"{count} in {count_of(places, 'record')} ({share_of(places, total)})"


def share_of(count: int, total: int) -> str:
    """Return a share as percent. It is only "0.0 %" or "100.0 %" if it is exactly that."""
    percent = 100 * count / max(total, 1)
    if 0 < percent < 0.05:
        return "< 0.1 %"
    return "> 99.9 %" if 99.95 <= percent < 100 else f"{percent:.1f} %"
