"""The judge and its report: counting, refusing bad input, JSON and HTML."""

import json
import re

import pytest

import sqlquarry as sq
from sqlquarry.artifacts import Generation, Judgement, Record
from sqlquarry.errors import JudgingError
from sqlquarry.judging import Entry, write_html

RECORDS = [Record(f"question {i}", "CREATE TABLE t (a)", f"SELECT {i}", database=f"db{i % 2}") for i in range(6)]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


class KeyGrader:
    """Correct if the answer is the gold SQL; "SELECT 4" cannot be judged."""

    def __init__(self, name="key"):
        self.name = name
        self.seen = []

    def grade(self, record, predicted_sql):
        self.seen.append(predicted_sql)
        if record.sql == "SELECT 4":
            return Judgement(self.name, "unjudged", "no database")
        return Judgement(self.name, "correct" if predicted_sql == record.sql else "wrong", "because")


class Scripted:
    """A generator that knows all answers but two, and remembers what it was shown."""

    def __init__(self):
        self.shown = []

    def generate(self, inputs, /):
        self.shown = list(inputs)
        answers = [f"```sql\nSELECT {i}\n```" for i in range(5)] + ["SELECT"]
        return [Generation(text, stop_reason="length" if text == "SELECT" else "stop") for text in answers]


def report() -> sq.Report:
    return sq.SQLJudge([KeyGrader()]).judge(RECORDS, [f"SELECT {i if i != 2 else 9};" for i in range(6)])


def test_unjudged_records_are_counted_apart():
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
    assert "unjudged by key: no database (1)" in text


def test_json_round_trip(tmp_path):
    report().to_json(tmp_path / "r.json")
    assert sq.Report.from_json(tmp_path / "r.json") == report()


def test_json_holds_what_utf8_cannot(tmp_path):
    # A service may cut an answer in the middle of an emoji.
    cut = sq.SQLJudge([KeyGrader()]).judge(RECORDS[:1], ["SELECT '\ud83d"])
    cut.to_json(tmp_path / "new folder" / "r.json")
    cut.to_html(tmp_path / "new folder" / "r.html")
    assert sq.Report.from_json(tmp_path / "new folder" / "r.json") == cut


def test_a_verdict_that_nothing_would_count_is_refused():
    with pytest.raises(
        JudgingError, match="'mine' gave the verdict 'right'; it must be one of correct, wrong, unjudged"
    ):
        Judgement("mine", "right")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1, "graders": ["a"], "entries": [{}]}'])
def test_from_json_refuses_other_files(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(JudgingError, match=r"r\.json is not a report"):
        sq.Report.from_json(tmp_path / "r.json")


def test_from_json_refuses_another_version(tmp_path):
    report().to_json(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text()) | {"version": 99}
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(JudgingError, match="format 99"):
        sq.Report.from_json(tmp_path / "r.json")


def test_bad_input_is_refused_before_any_grading():
    grader = KeyGrader()
    with pytest.raises(JudgingError, match="at least one grader"):
        sq.SQLJudge([])
    with pytest.raises(JudgingError, match="several graders are named key"):
        sq.SQLJudge([grader, KeyGrader()])
    judge = sq.SQLJudge([grader, KeyGrader("other")])
    with pytest.raises(JudgingError, match="6 records, but 1 predictions"):
        judge.judge(RECORDS, ["SELECT 1"])
    with pytest.raises(JudgingError, match="prediction 5 is a NoneType"):
        judge.judge(RECORDS, ["SELECT 1"] * 5 + [None])
    with pytest.raises(JudgingError, match="no records"):
        judge.judge([], [])
    assert grader.seen == []
    with pytest.raises(JudgingError, match="no grader 'x', only key"):
        report().accuracy("x")


def test_evaluate_hides_the_gold_and_flags_what_was_cut():
    generator = Scripted()
    result = sq.SQLJudge([KeyGrader()]).evaluate(generator, RECORDS)
    assert [record.sql for record in generator.shown] == [None] * 6
    assert [entry.sql for entry in result.entries][:5] == [f"SELECT {i}" for i in range(5)]
    assert [entry.truncated for entry in result.entries] == [False] * 5 + [True]
    assert "answers cut at the token limit: 1" in result.summary()
    assert result.entries[0].record.sql == "SELECT 0"


def test_html_escapes_everything(tmp_path):
    record = Record(EVIL, EVIL, EVIL, database=EVIL, id=EVIL)
    details = {
        "gold": {"columns": [EVIL], "rows": [[EVIL]], "count": 1},
        "predicted": {"columns": [EVIL], "rows": [[None]], "count": 12},
    }
    entry = Entry(record, EVIL, EVIL + " ", True, (Judgement(EVIL, "wrong", EVIL, details),))
    systems = {EVIL: sq.Report((EVIL,), (entry,)), "b": sq.Report((EVIL,), (entry,))}
    write_html(tmp_path / "r.html", systems, title=EVIL, group=lambda record: record.question)
    page = (tmp_path / "r.html").read_text()
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(?:src|href)=[\"']?(?!data:,)\w+:", page), "the page must not load anything"


def test_html_compares_systems_of_the_same_records_only(tmp_path):
    path = tmp_path / "r.html"
    worse = sq.SQLJudge([KeyGrader()]).judge(RECORDS, ["SELECT 0"] * 6)
    report().to_html(path, name="tuned", compare={"base": worse}, group=lambda r: r.database, title="T & T")
    page = path.read_text()
    assert "<h1>T &amp; T</h1>" in page
    assert page.index(">base<") < page.index(">tuned<")
    assert "+3</span> wrong before, correct now" in page
    with pytest.raises(JudgingError, match="two systems are named 'tuned'"):
        report().to_html(path, name="tuned", compare={"tuned": worse})
    fewer = sq.SQLJudge([KeyGrader()]).judge(RECORDS[:5], ["SELECT 0"] * 5)
    with pytest.raises(JudgingError, match="'fewer' is of other records"):
        write_html(path, {"base": worse, "fewer": fewer})
    renamed = sq.SQLJudge([KeyGrader("k")]).judge(RECORDS, ["SELECT 0"] * 6)
    with pytest.raises(JudgingError, match="has the graders"):
        write_html(path, {"base": worse, "other": renamed})
    with pytest.raises(JudgingError, match="no report"):
        write_html(path, {})


def test_html_of_nothing_judged_shows_no_number(tmp_path):
    sq.SQLJudge([KeyGrader()]).judge(RECORDS[4:5], ["SELECT 1"]).to_html(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "1 unjudged" in page
    assert "nan" not in page.split("<style>")[0] + page.split("</style>")[1]


def test_judging_loads_neither_torch_nor_boto3():
    import subprocess
    import sys

    heavy = ("torch", "boto3", "transformers", "scipy", "sqlglot")
    code = f"import sys, sqlquarry.judging; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
