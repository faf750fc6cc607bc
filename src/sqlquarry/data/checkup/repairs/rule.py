"""Define what a repair is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlquarry.records import Record


@dataclass(frozen=True, slots=True)
class RepairRule:
    """One kind of repair.

    Args:
        name: the name in options and reports, such as "double-quoted-text".
        reason: why the record is changed, as a short sentence without a period.
        proof: why the meaning stays the same, as one full sentence. `Proof` is checked too.
        repair: returns the changed record, or None if there is nothing to change. The rule itself is None if it
            compares records with each other.
    """

    name: str
    reason: str
    proof: str
    repair: Callable[[Record], Record | None] | None
