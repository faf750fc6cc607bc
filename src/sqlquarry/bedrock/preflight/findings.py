"""What checks find (how bad it is, what and where, why the service cares, and what to do), and their report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from sqlquarry.errors import PreflightError
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


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What a preflight found; an empty report is a good one."""

    findings: tuple[PreflightFinding, ...]

    @property
    def ok(self) -> bool:
        """Return whether there is no error; warnings and notes do not count."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> tuple[PreflightFinding, ...]:
        """Return what does not stop an import, but may surprise."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def raise_for_errors(self) -> None:
        """Stop here if the import would fail.

        Raises:
            PreflightError: lists every finding with its fix.
        """
        if not self.ok:
            raise PreflightError(f"the import would fail, so nothing was uploaded:\n{self}")

    def __str__(self) -> str:
        return "\n".join(f"- {finding}" for finding in self.findings) or "no findings"


# What reading a file raises that somebody has damaged, or that is not what its name says.
MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)

error = partial(PreflightFinding, "error")
warning = partial(PreflightFinding, "warning")
note = partial(PreflightFinding, "note")


def listed(names: Iterable[str], count: int = 3) -> str:
    """Join the first names in alphabetical order (see `first_of`)."""
    return first_of(sorted(names), count)
