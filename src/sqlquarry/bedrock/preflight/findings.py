"""What a check reports: how bad it is, what and where, why the service cares, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from sqlquarry.text import first_of, visible

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One thing that prevents the import, or that may surprise.

    Args:
        severity: "error" (the import fails, or serves another model), "warning" (it may) or "note" (nothing to do).
        code: the finding's name, stable across versions.
        where: the file, tensor, or argument that it is about.
        message: what is wrong, with the value.
        why: what the service does with it.
        fix: what to do.
        repairable: whether `repair` mends it.
    """

    severity: Severity
    code: str
    where: str
    message: str
    why: str
    fix: str
    repairable: bool = False

    def __str__(self) -> str:
        return visible(f"{self.severity} [{self.code}] {self.where}: {self.message}. {self.why}. {self.fix}.")


# What reading a file raises that somebody has damaged, or that is not what its name says.
MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)

error = partial(PreflightFinding, "error")
warning = partial(PreflightFinding, "warning")
note = partial(PreflightFinding, "note")


def listed(names: Iterable[str], count: int = 3) -> str:
    """Join the first names in alphabetical order (see `first_of`)."""
    return first_of(sorted(names), count)
