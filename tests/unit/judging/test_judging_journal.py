"""Judge with a journal: nothing is answered or judged twice, nothing is lost, and a budget stops it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sqlquarry import Generation, Judgement, Record, SQLJudge
from sqlquarry.errors import BedrockError, ConfigError, JudgingError
from sqlquarry.judging.journal import Journal, content_key

RECORDS = [Record(f"question {i}", "CREATE TABLE t (a)", f"SELECT {i}", id=f"r{i}") for i in range(10)]


class Counting:
    """A grader that compares texts and remembers what it was asked."""

    name = "counting"
    cost_usd = 0.0

    def __init__(self, version: str | None = "1", price: float = 0.0) -> None:
        self.version, self.price, self.seen = version, price, []

    def fingerprint(self, _: Record) -> str | None:
        return self.version

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        self.seen.append((record.id, predicted_sql))
        self.cost_usd += self.price
        if predicted_sql == "SELECT 7":
            return Judgement(self.name, "unjudged", "seven", {"rows": [[1, None]]})
        return Judgement(
            self.name, "correct" if predicted_sql == record.sql else "wrong", "texts", {"rows": [[1, None]]}
        )


class Batched(Counting):
    def grade_all(self, records, predicted):
        return [self.grade(record, sql) for record, sql in zip(records, predicted, strict=True)]


class Answering:
    fingerprint = "a model"

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked: list[str] = []
        self.fail_at = fail_at

    def generate(self, inputs):
        answers = []
        for record in inputs:
            assert record.sql is None
            if len(self.asked) == self.fail_at:
                error = BedrockError("gone")
                error.partial = (*answers, None)
                raise error
            self.asked.append(record.id)
            answers.append(Generation(f"SELECT {record.question.split()[1]}", logprobs=(-0.5,)))
        return answers


@pytest.mark.parametrize("kind", [Counting, Batched])
def test_verdicts_are_reused_but_unjudged_records_are_tried_again(tmp_path, kind):
    predictions = [f"SELECT {i if i % 2 else 0}" for i in range(10)]
    first, again = kind(), kind()
    report = SQLJudge([first], journal=tmp_path / "a" / "j.jsonl", batch_size=3).judge(RECORDS, predictions)
    assert len(first.seen) == 10
    repeated = SQLJudge([again], journal=tmp_path / "a" / "j.jsonl").judge(RECORDS, predictions)
    assert again.seen == [("r7", "SELECT 7")]
    assert repeated.entries == report.entries
    renamed = [Record(r.question, r.schema, r.sql, id="other") for r in RECORDS]
    SQLJudge([again], journal=tmp_path / "a" / "j.jsonl").judge(renamed, predictions)
    assert len(again.seen) == 2  # an id only locates a record in its file


@pytest.mark.parametrize("version", ["2", None])
def test_a_changed_grader_or_one_without_a_fingerprint_judges_again(tmp_path, version):
    SQLJudge([Counting()], journal=tmp_path / "j").judge(RECORDS, ["SELECT 0"] * 10)
    other = Counting(version)
    SQLJudge([other], journal=tmp_path / "j").judge(RECORDS, ["SELECT 0"] * 10)
    assert len(other.seen) == 10


def test_answers_before_an_error_are_kept_and_not_asked_again(tmp_path):
    failing, working = Answering(fail_at=5), Answering()
    judge = SQLJudge([Counting()], journal=tmp_path / "j", batch_size=4)
    with pytest.raises(BedrockError, match="gone"):
        judge.evaluate(RECORDS, failing)
    report = judge.evaluate(RECORDS, working)
    assert failing.asked + working.asked == [record.id for record in RECORDS]
    assert [entry.answer for entry in report.entries] == [record.sql for record in RECORDS]
    assert report.info.records_left == 0


def test_a_budget_stops_before_the_next_batch(tmp_path):
    judge = SQLJudge([Counting(price=0.25)], budget_usd=1.0, batch_size=3, journal=tmp_path / "j")
    report = judge.judge(RECORDS, ["SELECT 1"] * 10)
    assert len(report.entries) == 6
    assert report.info.records_left == 4
    assert report.info.cost_usd == 1.5
    assert re.findall(r"[\d.]+", report.info.stopped) == ["1.50", "1.00"], "spent, and the budget"
    assert judge.judge(RECORDS[:6], ["SELECT 1"] * 6).info.stopped == ""  # verdicts in the journal cost nothing


def test_graders_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=10)

    class Meeting(Counting):
        def grade(self, record, predicted_sql):
            meeting.wait()
            return super().grade(record, predicted_sql)

    report = SQLJudge([Meeting()], concurrency=2).judge(RECORDS, [record.sql for record in RECORDS])
    assert [entry.record for entry in report.entries] == RECORDS
    assert report.accuracy().n == 9


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"batch_size": 0}, {"budget_usd": 0}, {"budget_usd": float("nan")}]
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SQLJudge([Counting()], **options)


def test_a_generator_with_a_different_number_of_answers_is_refused():
    class Short:
        def generate(self, _):
            return []

    with pytest.raises(JudgingError, match=r"\b0\b.*\b10\b"):
        SQLJudge([Counting()]).evaluate(RECORDS, Short())


def test_a_partial_line_is_dropped_and_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.add("a", {"x": 1})
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"key": "b", "val')
    journal = Journal(path)
    assert (journal.get("a"), journal.get("b")) == ({"x": 1}, None)
    journal.add("b", {"x": 2})
    journal.close()
    assert Journal(path).get("b") == {"x": 2}
    path.write_text("question,sql\n")
    with pytest.raises(JudgingError, match=r"j\.jsonl, line 1\b"):
        Journal(path)
    with pytest.raises(JudgingError) as caught:
        Journal(tmp_path)
    assert isinstance(caught.value.__cause__, IsADirectoryError)


def test_keys_depend_on_every_part():
    assert content_key("a", {"x": 1, "y": 2}) == content_key("a", {"y": 2, "x": 1})
    assert len({content_key("a"), content_key("b"), content_key("a", None), content_key(["a"])}) == 4


def test_a_killed_run_resumes(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            from sqlquarry import Judgement, Record, SQLJudge

            class Slow:
                name = "slow"

                def fingerprint(self, record):
                    return "1"

                def grade(self, record, predicted_sql):
                    time.sleep(0.02)
                    with open({str(tmp_path / "seen")!r}, "a") as file:
                        file.write(predicted_sql + "\\n")
                    return Judgement("slow", "correct")

            records = [Record("q", "CREATE TABLE t (a)", "SELECT 1")] * 60
            judge = SQLJudge([Slow()], journal={str(tmp_path / "j")!r}, concurrency=1)
            print(judge.judge(records, [f"SELECT {{i}}" for i in range(60)]).accuracy().n)
            """
        )
    )
    seen = tmp_path / "seen"
    process = subprocess.Popen([sys.executable, script])
    deadline = time.monotonic() + 60
    while not (seen.exists() and len(seen.read_text().splitlines()) > 10):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(seen.read_text().splitlines())
    assert before < 60
    finished = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    assert finished.stdout == "60\n"
    # At most the prediction that was being judged at the kill is judged again.
    assert len(seen.read_text().splitlines()) in (60, 61)
