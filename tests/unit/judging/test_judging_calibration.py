"""Calibration: measured errors of a judge, the corrected accuracy and the coverage of its interval."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.answers import Judgement, Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.judging.report import Report, ReportEntry, calibrate
from sqlquarry.judging.report.calibration import MINIMUM_PER_CLASS, calibrate_verdicts
from sqlquarry.records import Record

RECORD = Record("q", "CREATE TABLE t (a)", "SELECT a FROM t")


def report(*pairs: tuple[str, str, int]) -> Report:
    """Return a report of (judge's verdict, reference's verdict, number of records)."""
    entries = []
    for mine, theirs, count in pairs:
        judgements: Any = (Judgement("llm", mine), Judgement("execution", theirs))  # type: ignore[arg-type] - texts
        entries += [ReportEntry(RECORD, "", "", False, judgements)] * count
    return Report(("llm", "execution"), tuple(entries))


def test_figures_of_a_table_done_by_hand() -> None:
    found = calibrate(
        report(
            ("correct", "correct", 45), ("wrong", "correct", 5), ("correct", "wrong", 10), ("wrong", "wrong", 40),
            ("correct", "unjudged", 55), ("wrong", "unjudged", 45), ("unjudged", "correct", 7),
        ),
        "llm",
        "execution",
    )  # fmt: skip
    assert found is not None
    assert (found.n, found.agreement) == (100, 0.85)
    assert found.kappa == pytest.approx(0.7)  # chance agreement is 0.55 · 0.5 + 0.45 · 0.5
    assert (found.sensitivity.value, found.sensitivity.n) == (0.9, 50)
    assert (found.specificity.value, found.specificity.n) == (0.8, 50)
    # apparent 110 / 200: (0.55 + 0.8 - 1) / (0.9 + 0.8 - 1)
    assert found.corrected.value == pytest.approx(0.5)
    assert (found.corrected.n, found.corrected.unjudged) == (200, 7)
    assert found.corrected.low < 0.42
    assert found.corrected.high > 0.58
    assert "0.70" in str(found)


def test_if_the_reference_judged_every_record_its_accuracy_is_the_result() -> None:
    whole = report(
        ("correct", "correct", 70), ("wrong", "correct", 10), ("correct", "wrong", 8), ("wrong", "wrong", 12)
    )
    found = calibrate(whole, "llm", "execution")
    assert found is not None
    assert found.corrected == whole.accuracy("execution")


@given(
    table=st.tuples(*[st.integers(0, 60)] * 4).filter(lambda t: min(t[0] + t[1], t[2] + t[3]) >= MINIMUM_PER_CLASS),
    only=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_the_interval_is_within_0_to_1_and_contains_the_value(table: Any, only: Any) -> None:
    tp, fn, fp, tn = table
    entries = report(
        ("correct", "correct", tp), ("wrong", "correct", fn), ("correct", "wrong", fp), ("wrong", "wrong", tn),
        ("correct", "unjudged", only[0]), ("wrong", "unjudged", only[1]),
    )  # fmt: skip
    found = calibrate(entries, "llm", "execution")
    assert found is not None
    assert -1 <= found.kappa <= 1
    corrected = found.corrected
    if math.isnan(corrected.value):
        assert found.note
        assert tp * (fp + tn) + tn * (tp + fn) <= (tp + fn) * (fp + tn)
        assert corrected[1:3] == (0, 1)
    else:
        assert 0 <= corrected.low <= corrected.value <= corrected.high <= 1
        assert corrected.n == sum(table) + sum(only)


def test_a_reference_with_fewer_records_gives_a_wider_interval() -> None:
    def width(known: int) -> float:
        found = calibrate(
            report(
                ("correct", "correct", 7 * known), ("wrong", "correct", known), ("correct", "wrong", known),
                ("wrong", "wrong", known), ("correct", "unjudged", 8 * (40 - known)),
                ("wrong", "unjudged", 2 * (40 - known)),
            ),
            "llm",
            "execution",
        )  # fmt: skip
        assert found is not None
        return found.corrected.high - found.corrected.low

    assert width(4) > width(10) > width(40)


def test_a_judge_that_is_not_better_than_chance_cannot_be_corrected() -> None:
    found = calibrate(
        report(
            ("correct", "correct", 10), ("wrong", "correct", 10), ("correct", "wrong", 10), ("wrong", "wrong", 10),
            ("correct", "unjudged", 5),
        ),
        "llm",
        "execution",
    )  # fmt: skip
    assert found is not None
    assert math.isnan(found.corrected.value)
    assert found.kappa == 0
    assert "1.00" in found.note, "the sum of sensitivity and specificity"
    assert found.note in str(found)


@pytest.mark.parametrize("wrong", [0, MINIMUM_PER_CLASS - 1])
def test_too_few_records_of_a_class_give_no_calibration(wrong: int) -> None:
    assert calibrate(report(("correct", "correct", 90), ("wrong", "wrong", wrong)), "llm", "execution") is None


def test_unknown_graders_and_a_judge_against_itself_are_refused() -> None:
    some = report(("correct", "correct", 5), ("wrong", "wrong", 5))
    with pytest.raises(JudgingError, match=r"'exact'.*llm, execution"):
        calibrate(some, "llm", "exact")
    with pytest.raises(JudgingError, match="'llm'"):
        calibrate(some, "llm", "llm")


@pytest.mark.parametrize(
    "setting",  # accuracy, sensitivity, specificity, records with both verdicts, records with only the judge's
    [(0.8, 0.9, 0.85, 100, 400), (0.6, 0.95, 0.7, 60, 500), (0.9, 0.98, 0.5, 200, 1000), (0.7, 0.75, 0.6, 80, 300)],
)
def test_95_percent_intervals_contain_the_truth_in_at_least_93_percent_of_runs(
    monkeypatch: pytest.MonkeyPatch, setting: tuple[float, float, float, int, int]
) -> None:
    import numpy as np

    accuracy, sensitivity, specificity, known, unknown = setting
    verdicts: tuple[Verdict, Verdict] = ("wrong", "correct")

    # Fewer draws than usual, because 2,400 calibrations with all of them would take minutes.
    monkeypatch.setattr("sqlquarry.judging.report.calibration._DRAWS", 2000)
    draw, hits, runs = np.random.default_rng(1), 0, 600
    for _ in range(runs):
        true = draw.random(known + unknown) < accuracy
        called = draw.random(known + unknown) < np.where(true, sensitivity, 1 - specificity)
        truth: list[Verdict] = [verdicts[is_correct] for is_correct in true[:known].tolist()]
        truth += ["unjudged"] * unknown
        found = calibrate_verdicts("llm", "execution", zip((verdicts[c] for c in called.tolist()), truth, strict=True))
        assert found is not None
        hits += found.corrected.low <= accuracy <= found.corrected.high
    assert hits / runs >= 0.93


def test_the_corrected_accuracy_is_right_although_a_lenient_judge_is_too_high() -> None:
    # 70 % are correct, but the judge also passes half of the wrong ones.
    lenient = report(
        ("correct", "correct", 70), ("correct", "wrong", 15), ("wrong", "wrong", 15),
        ("correct", "unjudged", 340), ("wrong", "unjudged", 60),
    )  # fmt: skip
    found = calibrate(lenient, "llm", "execution")
    assert found is not None
    assert lenient.accuracy("llm").low > 0.8
    assert found.corrected.value == pytest.approx(0.7)
