"""Preflight findings (severity, what is wrong and where, what the service does, how to fix it) and their report."""

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
    """A problem that prevents the import or may have surprising effects.

    Args:
        severity: "error" (the import fails, or serves another model), "warning" (this may happen) or "note" (nothing
            to do).
        code: the finding's name, stable across versions.
        where: the file, tensor, or argument with the problem.
        message: what is wrong, with the value.
        why: what the service does with it.
        fix: what to do.
        repairable: whether `repair` fixes it.
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
    """All findings of a preflight. An empty report means that nothing is wrong."""

    findings: tuple[PreflightFinding, ...]

    @property
    def ok(self) -> bool:
        """True if no finding is an error. Warnings and notes do not count."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> tuple[PreflightFinding, ...]:
        """The findings that do not stop an import but may have surprising effects."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def raise_for_errors(self) -> None:
        """Raise an error if the import would fail.

        Raises:
            PreflightError: lists every finding with its fix.
        """
        if not self.ok:
            raise PreflightError(f"the import would fail, so nothing was uploaded:\n{self}")

    def __str__(self) -> str:
        return "\n".join(f"- {finding}" for finding in self.findings) or "no findings"


# Reading a damaged or wrongly named file raises one of these.
MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)

error = partial(PreflightFinding, "error")
warning = partial(PreflightFinding, "warning")
note = partial(PreflightFinding, "note")


def listed(names: Iterable[str], count: int = 3) -> str:
    """Join the first names in alphabetical order (see `first_of`)."""
    return first_of(sorted(names), count)
