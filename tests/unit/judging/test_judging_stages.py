"""Where a pipeline loses accuracy, stage by stage."""

import dataclasses

import pytest

from judging_reports import report
from sqlquarry.errors import JudgingError
from sqlquarry.judging.report import Report
from sqlquarry.judging.report.stages import compare_stages


def test_the_loss_is_put_where_it_occurs():
    adapter, merged = report("+" * 36 + "-" * 4), report("+" * 37 + "-" * 3)
    imported = report("-" * 14 + "+" * 26)
    found = compare_stages({"adapter": adapter, "merged": merged, "imported": imported})
    first, second = found.steps
    assert (first.before, first.after, first.comparison.fixed, first.comparison.broken) == ("adapter", "merged", 1, 0)
    assert (second.comparison.fixed, second.comparison.broken) == (3, 14)
    assert [step.after for step in found.losses] == ["imported"]
    assert second.adjusted_p == pytest.approx(2 * second.comparison.p_value)
    assert found.whole.difference == pytest.approx(26 / 40 - 36 / 40)
    assert "accuracy is lost from merged to imported (-27.5 points)" in str(found)
    assert str(found).count("\n") == 5


def test_no_loss_is_said_with_what_would_have_been_found():
    found = compare_stages({"a": report("+-" * 50), "b": report("+-" * 50)})
    assert found.losses == ()
    assert found.verdict.startswith("no step loses accuracy beyond chance; a loss of ")


def test_other_text_with_the_same_verdict_is_counted():
    before = report("++--")
    entries = [
        dataclasses.replace(e, sql=e.sql.replace(" ", "  ") if i else e.sql + " LIMIT 9")
        for i, e in enumerate(before.entries)
    ]
    (step,) = compare_stages({"a": before, "b": Report(before.graders, tuple(entries))}).steps
    assert step.other_text == 1, "white space is no other text"


def test_stages_must_be_two_of_the_same_records():
    with pytest.raises(JudgingError, match="at least two stages"):
        compare_stages({"a": report("+")})
    with pytest.raises(JudgingError, match="'b' is of other records"):
        compare_stages({"a": report("+"), "b": report("++")})
    with pytest.raises(JudgingError, match="no grader 'x'"):
        compare_stages({"a": report("+"), "b": report("+")}, grader="x")
