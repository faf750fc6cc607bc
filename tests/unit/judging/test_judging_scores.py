"""Mean scores in reports: intervals, slices, comparisons and files."""

import dataclasses
import math
import random
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqlquarry as sq
from judging_reports import entry, scored, stand_in_for_analysis
from judging_reports import report as unscored
from sqlquarry.errors import JudgingError
from sqlquarry.judging import Report, check_report, compare_reports, compare_slices, compare_stages, wilson_interval
from sqlquarry.judging.report.estimates import mean_score
from sqlquarry.judging.report.significance import paired_comparison, score_change


@pytest.fixture(autouse=True)
def _analysis(monkeypatch):
    stand_in_for_analysis(monkeypatch)


SCORES = st.floats(0, 100, allow_subnormal=False)


@given(st.lists(SCORES, min_size=1, max_size=30))
def test_a_mean_is_within_its_interval_which_is_within_the_scale(scores):
    found = mean_score(scores)
    assert found.value == pytest.approx(sum(scores) / len(scores))
    assert 0 <= found.low <= found.high <= 100
    assert found.n == len(scores)
    assert found == mean_score(scores)
    if len({*scores}) == 1:
        assert found.low - 1e-9 <= found.value <= found.high + 1e-9
        assert found.high > found.low, "equal scores do not prove a mean"


@pytest.mark.parametrize("score", [0.0, 33.3, 100.0])
@pytest.mark.parametrize("n", [1, 7])
def test_equal_scores_have_the_interval_of_answers_that_are_right_or_wrong(score, n):
    found = mean_score([score] * n)
    low, high = wilson_interval(score / 100 * n, n)
    assert (found.low, found.high) == (pytest.approx(100 * low), pytest.approx(100 * high))
    clustered = mean_score([score] * 12, [i % 3 for i in range(12)])
    low, high = wilson_interval(score / 100 * 3, 3)
    assert (clustered.low, clustered.high) == (pytest.approx(100 * low), pytest.approx(100 * high))


def test_scores_that_differ_by_rounding_have_an_interval():
    # The jackknife of BCa would divide by zero.
    for scores in ([0.0, 1e-200], [100.0, 100 - 1e-13, 100.0], [0.1 + 0.2, 0.3]):
        found = mean_score(scores)
        assert found.high - found.low > 10
    assert mean_score([50.0, 50 + 1e-13]).low == pytest.approx(mean_score([50.0, 50.0]).low)


def test_means_without_scores():
    nothing = mean_score([])
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high, nothing.n) == (0, 100, 0)
    assert not re.search(r"\d", str(nothing))
    assert unscored("++-?").mean_score() is None
    assert scored(None, None).mean_score() is None
    assert str(mean_score([50.0, 100.0])).startswith("75.00 [50.0, 100.0] (n=2)")


def test_the_interval_of_a_mean_covers_the_truth():
    draw, values = random.Random(3), (0, 20, 50, 80, 100)
    means = [mean_score([draw.choice(values) for _ in range(60)]) for _ in range(150)]
    assert 0.88 <= sum(found.low <= 50 <= found.high for found in means) / 150 <= 0.99


def test_unjudged_records_and_other_details_have_no_score():
    some = scored(80, None, 95.5)
    assert some.scores_by() == [80, None, 95.5]
    assert some.mean_score("llm").n == 2
    for wrong in (True, "80", 101, -1, float("nan"), [80]):
        first = some.entries[0]
        judgement = dataclasses.replace(first.judgements[0], details={"score": wrong})
        assert Report(("llm",), [dataclasses.replace(first, judgements=(judgement,))]).scores_by() == [None]
    late = dataclasses.replace(some.entries[0].judgements[0], verdict="unjudged")
    assert Report(("llm",), [dataclasses.replace(some.entries[0], judgements=(late,))]).mean_score() is None


def test_a_mean_of_selected_records_and_of_clusters():
    some = scored(*[100, 40, 70] * 10)  # record i is about database i mod 3
    assert some.mean_score(where=lambda record: record.database == "db1").value == 40
    independent, clustered = some.mean_score(), some.mean_score(cluster_by=lambda record: record.database)
    assert clustered.value == independent.value == 70
    assert clustered.high - clustered.low > independent.high - independent.low
    one = some.mean_score(cluster_by=lambda _: "one")
    assert one.high - one.low > clustered.high - clustered.low
    with pytest.raises(JudgingError, match="'x'"):
        some.mean_score("x")


def test_the_summary_and_the_notebook_show_means_only_of_graders_that_score():
    some = scored(80, 90, 100)
    assert re.search(r"judged +unjudged +mean score +95 % interval$", some.summary().splitlines()[0])
    assert re.search(r" 3 +0 +90\.00 +80\.0 – 100\.0$", some.summary().splitlines()[1])
    assert "90.00" in some._repr_html_()
    assert "mean" not in unscored("++-").summary()
    mixed = Report(
        ("execution", "llm"),
        [
            dataclasses.replace(one, judgements=(entry(i, {"execution": "correct"}).judgements[0], *one.judgements))
            for i, one in enumerate(some.entries)
        ],
    )
    lines = mixed.summary().splitlines()
    assert re.fullmatch(r"execution +100\.0% .* 3 +0", lines[1])
    assert lines[2].endswith("80.0 – 100.0")
    assert mixed.headline().mean_score is None
    assert mixed.headline("llm").mean_score.value == 90


def test_means_survive_the_file(tmp_path):
    some = scored(80, 92.25, None)
    some.to_json(tmp_path / "r.json")
    again = Report.from_json(tmp_path / "r.json")
    assert again == some
    assert again.mean_score() == some.mean_score()


def test_means_by_slice_and_group():
    some = scored(*[100, 40, 70, None] * 6)
    found = sq.score_slices(some)
    assert {name: list(buckets) for name, buckets in found.items()} == {
        "joins": ["none", "1"], "database": ["db0", "db1", "db2"],
    }  # fmt: skip
    assert (found["joins"]["1"].value, found["joins"]["1"].n) == (100, 6)
    assert (found["joins"]["none"].value, found["joins"]["none"].n) == (55, 12)
    groups = some.group_by(lambda record: record.database)
    assert found["database"]["db1"] == groups["db1"].mean_score()
    assert sq.score_slices(unscored("++")) == {}
    own = sq.score_slices(some, by={"parity": lambda record: str(int(record.id[1:]) % 2)})
    assert own["parity"]["1"].value == 40
    second = [
        dataclasses.replace(one, judgements=(entry(0, {"a": "wrong"}).judgements[0], *one.judgements))
        for one in some.entries
    ]
    both = Report(("a", "llm"), second)
    assert sq.score_slices(both) == {}
    assert sq.score_slices(both, grader="llm") == found


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=25))
def test_scores_of_0_and_100_have_the_difference_and_interval_of_verdicts(pairs):
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    want = paired_comparison(before, after)
    found = score_change([100.0 * one for one in before], [100.0 * one for one in after])
    assert found.difference == pytest.approx(100 * want.difference)
    assert (found.low, found.high) == (pytest.approx(100 * want.low), pytest.approx(100 * want.high))


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=25))
def test_a_change_has_the_opposite_sign_in_the_other_direction(pairs):
    before, after = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    there, back = score_change(before, after), score_change(after, before)
    assert there.difference == pytest.approx(-back.difference, abs=1e-9)
    assert (there.before, there.after) == pytest.approx((mean_score(before).value, mean_score(after).value))
    assert -100 <= there.low <= there.high <= 100


def test_comparisons_are_paired_on_records_with_two_scores():
    before, after = scored(80, 90, 50, None, 70), scored(90, 100, 60, 10, None)
    found = compare_reports(before, after).score
    assert (found.difference, found.before, found.after) == (pytest.approx(10), 220 / 3, 250 / 3)
    assert found.n == 3
    # All scores rose by 10, which is far more certain than the means themselves.
    assert found.low < 10 < found.high
    assert "mean score +10.00" in str(compare_reports(before, after))
    assert compare_reports(unscored("++"), unscored("+-")).score is None
    assert "mean" not in str(compare_reports(unscored("++"), unscored("+-")))
    clustered = compare_reports(scored(*[50] * 30), scored(*[50, 60, 70] * 10), cluster_by=lambda r: r.database).score
    plain = compare_reports(scored(*[50] * 30), scored(*[50, 60, 70] * 10)).score
    assert clustered.high - clustered.low > plain.high - plain.low


def test_slices_and_stages_compare_scores():
    before, after = scored(*[100, 50, 50, 50] * 5), scored(*[80, 70, 70, 70] * 5)
    changes = {(c.name, c.bucket): c.comparison.score.difference for c in compare_slices(before, after)}
    assert changes["joins", "1"] == pytest.approx(-20)
    assert changes["joins", "none"] == pytest.approx(20)
    assert "mean score +10.00" in str(compare_stages({"a": before, "b": after}))


def test_markdown_shows_means_and_changes(tmp_path):
    before, after = scored(*[100, 50, 50, 50] * 12), scored(*[80, 70, 70, 70] * 12)
    sq.write_markdown(after, tmp_path / "one.md")
    text = (tmp_path / "one.md").read_text()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert re.search(r"\| 48 \| 72\.50 \(71\.\d to 74\.\d\) \|$", tables[2])
    assert any(re.search(r"^\| joins: 1 .* 80\.00 \(\d", line) for line in tables)
    sq.write_markdown(after, tmp_path / "two.md", baseline=before)
    tables = [line for line in (tmp_path / "two.md").read_text().splitlines() if line.startswith("|")]
    assert re.search(r"\| \+10\.00 \(\+[\d.]+ to \+[\d.]+\) \|$", tables[2])
    assert any(re.search(r"^\| joins: 1 .* -20\.00 \(", line) for line in tables)
    for columns in (tables[:3], tables[3:6]):
        assert len({line.count("|") for line in columns}) == 1
    sq.write_markdown(unscored("+-" * 12), tmp_path / "three.md", baseline=unscored("-+" * 12))
    assert "mean" not in (tmp_path / "three.md").read_text()


def test_junit_lists_means(tmp_path):
    some = scored(*[100, 50, 50, 50] * 5)
    assert sq.write_junit(some, tmp_path / "r.xml") is True
    root = ET.fromstring((tmp_path / "r.xml").read_bytes())
    texts = {(c.get("classname"), c.get("name")): c.findtext("system-out") for c in root.iter("testcase")}
    assert texts["sqlquarry.mean score", "llm"].startswith("62.50 [")
    assert "mean score 100.00 [" in texts["sqlquarry.joins", "1"]
    assert [check.group for check in check_report(unscored("+-"))][:2] == ["accuracy", "complete"]
    change = check_report(some, baseline=scored(*[50] * 20))
    assert "mean score +12.50" in next(check.text for check in change if check.group == "baseline")


def test_the_page_shows_means(tmp_path):
    before, after = scored(*[100, 50, 50, 50] * 5), scored(*[80, 70, 70, 70] * 5)

    def text_of(reports) -> str:
        sq.write_html(reports, tmp_path / "r.html")
        page = (tmp_path / "r.html").read_text().partition("<main>")[2].partition('<div id="data"')[0]
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))

    text = text_of({"base": before, "tuned": after})
    assert re.search(r"mean score 72\.50 of 100, 95 % interval 7\d\.\d–7\d\.\d", text)
    assert re.search(r"mean score \+10\.00, 95 % interval \+\d\.\d to \+1\d\.\d", text)
    assert "n 5 mean 100.0 → 80.0" in text
    assert "n 20 mean" not in text
    assert "mean" not in text_of(unscored("+-"))
    zero = text_of(scored(0, 0, 0, 100, 0))
    assert "n 3 mean 33.3" in zero
    assert "n 2 mean 0.0" in zero
    first = unscored("+-+")
    both = [
        dataclasses.replace(one, judgements=(one.judgements[0], other.judgements[0]))
        for one, other in zip(first.entries, scored(50, 60, 95).entries, strict=True)
    ]
    assert re.search(r"llm mean score ?68\.33 \d\d\.\d–\d\d\.\d", text_of(Report(("execution", "llm"), both)))
