"""Write the tables of all kinds of findings and all repairs into docs/check-your-records.md.

python -m tools.checkup_tables
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlquarry.data.checkup.findings import SEVERITIES
from sqlquarry.data.checkup.repair import RULES
from sqlquarry.data.checkup.run import KINDS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "check-your-records.md"


def page(text: str) -> str:
    """Return the text of the page with current tables between its marks."""
    for name, table in (("kinds", _kinds()), ("repairs", _repairs())):
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        text = f"{before}{mark}{table}{end}{after}"
    return text


def _kinds() -> str:
    kinds = sorted(KINDS.values(), key=lambda kind: SEVERITIES.index(kind.severity))
    rows = [(f"`{kind.name}`", kind.severity, kind.title, _needs(kind.needs), kind.advice) for kind in kinds]
    return _table(("kind", "severity", "what it is", "needs", "what to do"), rows)


def _needs(name: str) -> str:
    return f"`{name}`" if name else ""


def _repairs() -> str:
    rows = [(f"`{rule.name}`", rule.reason, rule.proof) for rule in RULES]
    return _table(("repair", "what it does", "why the meaning stays the same"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
