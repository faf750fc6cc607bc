"""Reports for tests, and replacements for the analysis of SQL, because a report's arithmetic does not depend on it."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlquarry.answers import Judgement
from sqlquarry.judging.report import Report, ReportEntry
from sqlquarry.records import Record

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'|`[a](b) @all"


def stand_in_for_analysis(monkeypatch: Any) -> None:
    """Replace `features` and `mistake` by two simple rules."""

    def features(record: Record) -> dict[str, str]:
        if record.sql is None:
            return {}
        return {"joins": str(record.sql.count("JOIN")) if "JOIN" in record.sql else "none"}

    def mistake(_: Record, predicted_sql: str, judgement: Judgement, truncated: bool) -> str | None:
        if judgement.verdict == "correct":
            return None
        if judgement.verdict == "unjudged":
            return "unjudged"
        return "truncated" if truncated else "wrong filter" if predicted_sql else "no SQL"

    for function in (features, mistake):
        monkeypatch.setattr(f"sqlquarry.judging.report.breakdown.{function.__name__}", function)


def entry(i: int, verdicts: dict[str, str], **options: Any) -> ReportEntry:
    """Return record `i` of database "db<i mod 3>". Every fourth gold has a join. `llm` graders are marked as LLMs."""
    gold = f"SELECT a FROM t JOIN u WHERE b = {i}" if i % 4 == 0 else f"SELECT a FROM t WHERE b = {i}"
    record = Record(f"question {i}", "CREATE TABLE t (a, b)", gold, f"db{i % 3}", id=f"r{i}")
    right = next(iter(verdicts.values())) == "correct"
    rows = [[i, None], [2, "x"]]
    judgements = []
    for grader, verdict in verdicts.items():
        details: dict[str, Any] = {}
        if grader == "execution":
            details = {
                "gold": {"columns": ["a", "b"], "rows": rows, "count": 2},
                "predicted": {"columns": ["a", "b"], "rows": rows if right else rows[:1], "count": 2 if right else 1},
            }
        elif grader.startswith("llm"):
            details = {"kind": "llm", "model": "m"}
        judgements.append(Judgement(grader, verdict, f"{verdict} by {grader}", details))
    sql = options.pop("sql", gold if right else gold.replace("=", ">"))
    values = {"record": record, "answer": sql, "sql": sql, "truncated": False, "judgements": tuple(judgements)}
    return ReportEntry(**(values | options))


def report(pattern: str, **others: str) -> Report:
    """Return a report with one sign per record: "+" is correct, "-" is wrong and "?" is unjudged.

    `pattern` has the verdicts of `execution`, and `others` those of other graders.
    """
    verdict = {"+": "correct", "-": "wrong", "?": "unjudged"}
    patterns = {"execution": pattern, **others}
    entries = tuple(
        entry(i, {grader: verdict[signs[i]] for grader, signs in patterns.items()}) for i in range(len(pattern))
    )
    return Report(tuple(patterns), entries)


def scored(*scores: float | None, name: str = "llm") -> Report:
    """Return a report with one score for each record. None is unjudged, and 90 is enough to be correct."""
    entries = []
    for i, score in enumerate(scores):
        one = entry(i, {name: "unjudged" if score is None else "correct" if score >= 90 else "wrong"})
        judgement = dataclasses.replace(one.judgements[0], details={"kind": "llm", "score": score})
        entries.append(dataclasses.replace(one, judgements=(judgement,)))
    return Report((name,), entries)
