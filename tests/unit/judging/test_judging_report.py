"""The judge and its report: counts, bad input, comparisons and JSON."""

import dataclasses
import json
import re
import tracemalloc

import pytest

import sqlquarry as sq
from judging_reports import entry, stand_in_for_analysis
from judging_reports import report as made
from sqlquarry.answers import Generation, Judgement
from sqlquarry.errors import JudgingError
from sqlquarry.judging import (
    Report,
    ReportEntry,
    ReportInfo,
    calibrate,
    compare_reports,
    compare_slices,
    count_mistakes,
    find_disagreements,
    slices,
    write_html,
    write_junit,
    write_markdown,
)
from sqlquarry.judging.report.breakdown import slice_places
from sqlquarry.judging.report.graders import grader_agreements
from sqlquarry.records import Record

RECORDS = [Record(f"question {i}", "CREATE TABLE t (a)", f"SELECT {i}", database=f"db{i % 2}") for i in range(6)]


@pytest.fixture(autouse=True)
def _analysis(monkeypatch):
    stand_in_for_analysis(monkeypatch)


class KeyGrader:
    """A grader that accepts the gold SQL and cannot judge "SELECT 4"."""

    def __init__(self, name="key"):
        self.name = name
        self.seen = []

    def grade(self, record, predicted_sql):
        self.seen.append(predicted_sql)
        if record.sql == "SELECT 4":
            return Judgement(self.name, "unjudged", "no database")
        return Judgement(self.name, "correct" if predicted_sql == record.sql else "wrong", "because")


class Scripted:
    """A generator that answers all but two records correctly and remembers what it was shown."""

    def __init__(self):
        self.shown = []

    def generate(self, inputs, /):
        self.shown = list(inputs)
        answers = [f"```sql\nSELECT {i}\n```" for i in range(5)] + ["SELECT"]
        return [Generation(text, stop_reason="length" if text == "SELECT" else "stop") for text in answers]


def report() -> sq.Report:
    return sq.SQLJudge([KeyGrader()]).judge(RECORDS, [f"SELECT {i if i != 2 else 9};" for i in range(6)])


def test_unjudged_records_are_counted_separately():
    share = report().accuracy()
    assert (share.value, share.n, share.unjudged) == (4 / 5, 5, 1)
    assert share.low < 0.8 < share.high
    assert report().accuracy("key", where=lambda r: r.database == "db1").value == 1


def test_groups_keep_their_order_and_add_up():
    groups = report().group_by(lambda record: record.database)
    assert list(groups) == ["db0", "db1"]
    assert sum(part.accuracy().n + part.accuracy().unjudged for part in groups.values()) == len(RECORDS)


def test_summary_shows_interval_and_unjudged():
    text = report().summary()
    assert re.search(r"key +80\.0% +37\.6% – +96\.4% +5 +1", text)
    assert re.search(r"^unjudged\b.* key: no database \(1: #5\)$", text, re.MULTILINE)


def test_the_summary_lists_records_of_each_reason_and_counts_the_rest():
    entries = []
    for reason in range(14):
        for i in range(20 - reason):
            record = Record("q", "CREATE TABLE t (a)", "SELECT 1", id=f"{reason}-{i}")
            entries.append(
                ReportEntry(record, "", "", False, (Judgement("execution", "unjudged", f"reason {reason}"),))
            )
    lines = Report(("execution",), tuple(entries)).summary().splitlines()
    assert lines[2].endswith("execution: reason 0 (20: 0-0, 0-1, 0-2, 0-3, 0-4, …)")
    assert all(line.startswith("unjudged ") for line in lines[2:])
    assert re.findall(r"\d+", lines[-1]) == ["4", "34"], "other reasons, and their records"
    assert len(lines) == 2 + 10 + 1


def test_reports_are_compared_by_a_grader_that_both_have():
    before, after = made("+---", exact="----"), made("+++-")
    renamed = Report(("llm",), tuple(entry(i, {"llm": "correct"}) for i in range(4)))
    turned = Report(
        ("exact", "execution"),
        tuple(e.__class__(e.record, e.answer, e.sql, e.truncated, e.judgements[::-1]) for e in before.entries),
    )
    assert compare_reports(turned, after).fixed == compare_reports(before, after).fixed == 2
    assert compare_reports(after, turned).broken == 2
    with pytest.raises(JudgingError, match=r"\bllm\b.*\bexecution\b"):
        compare_reports(renamed, after)


def test_a_report_has_one_line_per_record(tmp_path):
    some = report()
    some.to_json(tmp_path / "r.json")
    assert len((tmp_path / "r.json").read_text().splitlines()) == len(RECORDS) + 2


def test_json_round_trip(tmp_path):
    some = report()
    some.to_json(tmp_path / "r.json")
    assert sq.Report.from_json(tmp_path / "r.json") == some


def test_to_json_needs_no_copy_of_the_report_in_memory(tmp_path):
    one = entry(0, {"execution": "correct"})
    entries = [dataclasses.replace(one, answer=f"{number}" + "x" * 10_000) for number in range(2000)]
    large = Report(["execution"], entries)
    tracemalloc.start()
    large.to_json(tmp_path / "r.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "r.json").stat().st_size > 20 * 10**6
    assert peak < 2**20


def test_lists_are_accepted_for_tuples(tmp_path):
    some = report()
    entries = [dataclasses.replace(one, judgements=list(one.judgements)) for one in some.entries]
    assert Report(list(some.graders), entries, some.info) == some
    Report(list(some.graders), entries, some.info).to_json(tmp_path / "r.json")
    assert sq.Report.from_json(tmp_path / "r.json") == some


def test_json_stores_text_that_utf8_cannot_encode(tmp_path):
    # A service may cut an answer in the middle of an emoji.
    cut = sq.SQLJudge([KeyGrader()]).judge(RECORDS[:1], ["SELECT '\ud83d"])
    cut.to_json(tmp_path / "new folder" / "r.json")
    write_html(cut, tmp_path / "new folder" / "r.html")
    assert sq.Report.from_json(tmp_path / "new folder" / "r.json") == cut


def test_an_unknown_verdict_is_refused():
    with pytest.raises(JudgingError, match=r"'mine'.*'right'.*correct, wrong, unjudged"):
        Judgement("mine", "right")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 3, "graders": ["a"], "entries": [{}]}'])
def test_from_json_refuses_other_files(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(JudgingError, match=r"r\.json") as caught:
        sq.Report.from_json(tmp_path / "r.json")
    assert caught.value.__cause__ is not None, "it is not taken for another format"


@pytest.mark.parametrize(
    "wrong", [{"records_left": "4"}, {"stopped": 1}, {"cost_usd": "1"}, {"duration_s": None}, {"seconds": 1.5}]
)
def test_from_json_refuses_another_info(tmp_path, wrong):
    report().to_json(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    content["info"] |= wrong
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(JudgingError, match=r"r\.json") as caught:
        sq.Report.from_json(tmp_path / "r.json")
    assert caught.value.__cause__ is not None, "it is not taken for another format"


def test_from_json_refuses_another_version(tmp_path):
    report().to_json(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text()) | {"version": 99}
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(JudgingError, match=r"r\.json\b.*\b99\b"):
        sq.Report.from_json(tmp_path / "r.json")


def test_bad_input_is_refused_before_any_grading():
    grader = KeyGrader()
    with pytest.raises(JudgingError, match=r"\bgraders\b"):
        sq.SQLJudge([])
    with pytest.raises(JudgingError, match=r"\bkey\b.*name="):
        sq.SQLJudge([grader, KeyGrader()])
    judge = sq.SQLJudge([grader, KeyGrader("other")])
    with pytest.raises(JudgingError, match=r"\b6\b.*\b1\b"):
        judge.judge(RECORDS, ["SELECT 1"])
    with pytest.raises(JudgingError, match=r"\b5\b.*\bNoneType\b"):
        judge.judge(RECORDS, ["SELECT 1"] * 5 + [None])
    with pytest.raises(JudgingError, match=r"^records\b"):
        judge.judge([], [])
    assert grader.seen == []
    with pytest.raises(JudgingError, match=r"'x'.*\bkey\b"):
        report().accuracy("x")


def test_evaluate_hides_the_gold_and_flags_answers_that_were_cut():
    generator = Scripted()
    result = sq.SQLJudge([KeyGrader()]).evaluate(RECORDS, generator)
    assert [record.sql for record in generator.shown] == [None] * 6
    assert [entry.sql for entry in result.entries][:5] == [f"SELECT {i}" for i in range(5)]
    assert [entry.truncated for entry in result.entries] == [False] * 5 + [True]
    assert "answers cut at the token limit: 1" in result.summary()
    assert result.entries[0].record.sql == "SELECT 0"


def test_slices_by_the_gold_sql_and_by_database():
    some = made("++-+--+?++++")
    found = slices(some)
    assert list(found) == ["joins", "database"]
    assert list(found["joins"]) == ["none", "1"]
    assert (found["joins"]["1"].value, found["joins"]["1"].n) == (2 / 3, 3)
    assert found["joins"]["none"].unjudged == 1
    assert [share.n + share.unjudged for share in found["database"].values()] == [4, 4, 4]
    own = slices(some, by={"parity": lambda record: str(int(record.id[1:]) % 2)})
    assert list(own["parity"]) == ["0", "1"]
    with pytest.raises(JudgingError, match="'x'"):
        slices(some, grader="x")


def test_buckets_are_in_a_natural_order():
    labels = ["10", "2", "none", "hard", "4-6 tables", "1-3 tables", "easy", "other"]
    some = Report(("execution",), tuple(entry(i, {"execution": "correct"}) for i in range(len(labels))))
    found = slice_places(some, {"label": lambda record: labels[int(record.id[1:])]})["label"]
    assert list(found) == ["none", "easy", "hard", "1-3 tables", "2", "4-6 tables", "10", "other"]


def test_too_many_databases_are_not_a_slice():
    entries = tuple(
        dataclasses.replace(
            entry(i, {"execution": "correct"}), record=Record("q", "CREATE TABLE t (a)", "SELECT 1", f"d{i}")
        )
        for i in range(30)
    )
    assert list(slices(Report(("execution",), entries))) == ["joins"]


def test_mistakes_are_counted_most_frequent_first():
    assert count_mistakes(made("+--?-+")) == {"wrong filter": 3, "unjudged": 1}


def test_disagreements_and_agreement():
    some = made("++--?+", exact="+-+-+?")
    assert [(found.place, found.correct, found.wrong) for found in find_disagreements(some)] == [
        (1, ("execution",), ("exact",)),
        (2, ("exact",), ("execution",)),
    ]
    (pair,) = grader_agreements(some)
    assert (pair.n, pair.only_first, pair.only_second, pair.share) == (4, 1, 1, 0.5)
    assert grader_agreements(made("??", exact="++")) == []


def test_compare_counts_records_with_two_verdicts():
    found = compare_reports(made("-+-+++"), made("+++-?+"))
    assert (found.fixed, found.broken, found.before.n, found.before.unjudged) == (2, 1, 5, 1)
    assert found.difference == pytest.approx(1 / 5)
    clustered = compare_reports(made("-+-+++" * 5), made("+++-?+" * 5), cluster_by=lambda record: record.database)
    assert clustered.difference == pytest.approx(1 / 5)
    assert clustered.low < clustered.difference < clustered.high
    with pytest.raises(JudgingError, match=r"\brecords\b"):
        compare_reports(made("+++"), made("++"))
    with pytest.raises(JudgingError, match="'exact'"):
        compare_reports(made("++"), made("++", exact="++"), grader="exact")


def test_slices_are_compared_with_holms_correction_worst_first():
    changes = compare_slices(made("++++" * 10), made("-+++" * 10))
    assert (changes[0].name, changes[0].bucket, changes[0].comparison.difference) == ("joins", "1", -1)
    assert changes[0].adjusted_p == pytest.approx(changes[0].comparison.p_value * len(changes))
    assert [c.comparison.difference for c in changes] == sorted(c.comparison.difference for c in changes)


def test_accuracy_by_clusters_has_a_wider_interval():
    some = made("++-" * 30)  # all answers on one database are right or all are wrong
    assert some.accuracy(cluster_by=lambda record: record.database).low < some.accuracy().low
    with pytest.raises(JudgingError, match=r"\b1 clusters\b"):
        some.accuracy(cluster_by=lambda _: "one")


def test_an_llm_is_corrected_if_queries_ran_and_uncalibrated_otherwise():
    pattern, judged = "+" * 30 + "-" * 10 + "?" * 10, "+" * 28 + "-" * 2 + "+" * 4 + "-" * 6 + "+" * 10
    calibrated = made(pattern, llm=judged, exact="-" * 50)
    head = calibrated.headline("llm")
    assert head.label == "llm (corrected)"
    assert head.estimate == calibrate(calibrated, "llm", "execution").corrected
    assert head.estimate.value != calibrated.accuracy("llm").value
    assert re.search(r"\b40\b.*\bexecution\b", head.note)
    assert re.search(r"^llm \(corrected\) ", calibrated.summary(), re.MULTILINE)
    alone = Report(("llm",), tuple(entry(i, {"llm": "correct"}) for i in range(9)))
    assert alone.headline().label == "llm (uncalibrated)"
    assert alone.headline().estimate == alone.accuracy()
    assert "ExecutionGrader" in alone.summary()
    assert made("+++", llm="+++").headline("llm").label == "llm (uncalibrated)", "too few records to calibrate"
    assert calibrated.headline("exact").note == ""


def test_a_judge_that_is_not_better_than_chance_is_not_corrected():
    half = made("+" * 10 + "-" * 10 + "?" * 5, llm="+-" * 10 + "+" * 5)
    head = half.headline("llm")
    assert head.label == "llm (uncalibrated)"
    assert head.calibration is not None
    assert f"execution is {head.calibration.note}" in head.note
    assert head.estimate == half.accuracy("llm")


def test_the_summary_shows_why_a_run_stopped():
    some = dataclasses.replace(made("++"), info=ReportInfo(stopped="2 USD spent", records_left=40))
    assert re.search(r"\b2 USD spent\b.*\b40\b", some.summary())


def test_reports_of_an_older_format_are_refused(tmp_path):
    made("+-").to_json(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text()) | {"version": 2}
    content["about"] = content.pop("info")
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(JudgingError, match=r"\b2, not 3\b"):
        sq.Report.from_json(tmp_path / "r.json")


def test_the_same_report_is_the_same_bytes(tmp_path):
    before, after = made("+-+?" * 8, exact="+--+" * 8), made("++-?" * 8, exact="+--+" * 8)
    for place in ("a", "b"):
        after.to_json(tmp_path / place / "r.json")
        write_html({"before": before, "after": after}, tmp_path / place / "r.html")
        write_markdown(after, tmp_path / place / "r.md", baseline=before)
        write_junit(after, tmp_path / place / "r.xml", baseline=before)
        after = sq.Report.from_json(tmp_path / place / "r.json")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_judging_loads_neither_torch_nor_boto3():
    import subprocess
    import sys

    heavy = ("torch", "boto3", "transformers", "scipy", "sqlglot")
    code = f"import sys, sqlquarry.judging; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
