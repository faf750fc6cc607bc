"""Comparison of stages: the stage at which a pipeline loses accuracy."""

import dataclasses
import re

import pytest

from judging_reports import report
from sqlquarry.errors import JudgingError
from sqlquarry.judging.report import Report
from sqlquarry.judging.report.stages import compare_stages


def test_the_loss_is_attributed_to_its_stage():
    adapter, merged = report("+" * 36 + "-" * 4), report("+" * 37 + "-" * 3)
    imported = report("-" * 14 + "+" * 26)
    found = compare_stages({"adapter": adapter, "merged": merged, "imported": imported})
    first, second = found.steps
    assert (first.before, first.after, first.comparison.fixed, first.comparison.broken) == ("adapter", "merged", 1, 0)
    assert (second.comparison.fixed, second.comparison.broken) == (3, 14)
    assert [step.after for step in found.losses] == ["imported"]
    assert second.adjusted_p == pytest.approx(2 * second.comparison.p_value)
    assert found.whole.difference == pytest.approx(26 / 40 - 36 / 40)
    assert re.search(r"\bmerged\b.*\bimported\b.*-27\.5", found.verdict)
    assert found.verdict in str(found)
    assert str(found).count("\n") == 5


def test_without_a_loss_the_detectable_loss_is_reported():
    found = compare_stages({"a": report("+-" * 50), "b": report("+-" * 50)})
    assert found.losses == ()
    assert f"{100 * found.whole.detectable:.1f} " in found.verdict


def test_records_with_a_different_text_but_the_same_verdict_are_counted():
    before = report("++--")
    entries = [
        dataclasses.replace(e, sql=e.sql.replace(" ", "  ") if i else e.sql + " LIMIT 9")
        for i, e in enumerate(before.entries)
    ]
    (step,) = compare_stages({"a": before, "b": Report(before.graders, tuple(entries))}).steps
    assert step.other_text == 1, "white space does not count"


def test_stages_must_be_two_of_the_same_records():
    with pytest.raises(JudgingError, match=r"\['a'\]"):
        compare_stages({"a": report("+")})
    with pytest.raises(JudgingError, match=r"'a'.*'b'"):
        compare_stages({"a": report("+"), "b": report("++")})
    with pytest.raises(JudgingError, match="'x'"):
        compare_stages({"a": report("+"), "b": report("+")}, grader="x")
