"""Write reports as one self-contained page: no network, light and dark, readable on a phone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlquarry.artifacts import Record, write_atomically
from sqlquarry.errors import JudgingError
from sqlquarry.judging.report import Report
from sqlquarry.judging.statistics import Estimate, sign_test

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_SCRIPT = Path(__file__).with_name("report.js")


class _Comparison(NamedTuple):
    """What changed from the first system to the last."""

    before: str
    after: str
    fixed: int
    broken: int
    p_value: float


def write_html(
    path: str | Path,
    reports: Mapping[str, Report],
    *,
    title: str = "SQL accuracy",
    group: Callable[[Record], str] | None = None,
) -> None:
    """Write one page that shows one system, or compares several on the same records; atomically.

        write_html("report.html", {"base": base, "tuned": tuned}, group=lambda record: record.database or "")

    Args:
        path: the .html file.
        reports: one per system, by name, the one to compare with first; their first graders give the bars.
        title: the page's heading.
        group: the slice that a record belongs to; None shows no slices.

    Raises:
        JudgingError: there are no reports, or they are not of the same records and graders.
    """
    import jinja2

    if not reports:
        raise JudgingError("there is no report to write")
    first, *others = reports.values()
    for name, other in zip(list(reports)[1:], others, strict=True):
        if [entry.record for entry in other.entries] != [entry.record for entry in first.entries]:
            raise JudgingError(f"the report {name!r} is of other records than {next(iter(reports))!r}: judge the same")
        if other.graders != first.graders:
            raise JudgingError(f"the report {name!r} has the graders {other.graders}, not {first.graders}")
    script = _SCRIPT.read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"percent": _percent, "cell": _cell}
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        graders=first.graders,
        systems=[
            {
                "name": name,
                "estimates": [(grader, report.accuracy(grader)) for grader in report.graders],
                "truncated": sum(entry.truncated for entry in report.entries),
            }
            for name, report in reports.items()
        ],
        groups=_groups(reports, group) if group else {},
        comparison=_comparison(reports) if others else None,
        records=[
            {
                "number": i + 1,
                "record": entry.record,
                "group": group(entry.record) if group else "",
                "gold": _gold_result(entry.judgements),
                "answers": [(name, report.entries[i]) for name, report in reports.items()],
            }
            for i, entry in enumerate(first.entries)
        ],
        script=script,
        # Only our own script may run, whatever a prediction holds: a second wall behind the escaping.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_atomically(Path(path), page.encode("utf-8", errors="backslashreplace"))


def _groups(reports: Mapping[str, Report], group: Callable[[Record], str]) -> dict[str, list[tuple[str, Estimate]]]:
    slices = {name: report.group_by(group) for name, report in reports.items()}
    names = next(iter(slices.values()))
    return {key: [(name, parts[key].accuracy()) for name, parts in slices.items()] for key in names}


def _comparison(reports: Mapping[str, Report]) -> _Comparison:
    names = list(reports)
    before, after = reports[names[0]], reports[names[-1]]
    changes = [
        (old.judgements[0].verdict, new.judgements[0].verdict)
        for old, new in zip(before.entries, after.entries, strict=True)
    ]
    fixed, broken = changes.count(("wrong", "correct")), changes.count(("correct", "wrong"))
    return _Comparison(names[0], names[-1], fixed, broken, sign_test(fixed, broken))


def _gold_result(judgements: Any) -> Any:
    """What the gold SQL returned, where a grader ran it."""
    return next((j.details["gold"] for j in judgements if isinstance(j.details.get("gold"), Mapping)), None)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _cell(value: Any) -> str:
    return "NULL" if value is None else str(value)
