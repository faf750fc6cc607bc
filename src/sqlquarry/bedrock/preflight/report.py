"""What a preflight found, and what that means for the import."""

from __future__ import annotations

from dataclasses import dataclass

from sqlquarry.bedrock.preflight.findings import PreflightFinding
from sqlquarry.errors import PreflightError


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
