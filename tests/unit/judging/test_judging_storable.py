"""Judged results can always be saved, read again and shown."""

import base64
import dataclasses
import datetime as dt
import gzip
import json
import math
import re
import sqlite3
import unicodedata
from decimal import Decimal
from xml.etree import ElementTree as ET

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judging_reports import entry
from sqlquarry.answers import Generation, Judgement
from sqlquarry.execution.sandbox import Failure, Rows
from sqlquarry.judging import (
    ExecutionGrader,
    ReportInfo,
    SQLJudge,
    compare_reports,
    write_html,
    write_junit,
    write_markdown,
)
from sqlquarry.judging.__main__ import main
from sqlquarry.judging.execution.details import result_details
from sqlquarry.judging.journal import Journal
from sqlquarry.judging.report import Report, ReportEntry
from sqlquarry.judging.storable import storable
from sqlquarry.records import Record

HUGE = 10**5000
SIGNS = "ab1|`<>&[]()@#:/\x1b\x9b\x07\r\n\t\u202e\u2066\u200b\u200d\ufe0f\u2028é😀👩漢\U000e0041\ud83d\uffff"
TEXTS = st.text(st.sampled_from(SIGNS), max_size=30) | st.text(
    st.characters(codec=None, exclude_categories=()), max_size=9
)
CELLS = st.one_of(
    st.none(),
    st.integers(),
    st.integers(-4400, 4400).map(lambda power: (-1 if power < 0 else 1) * 10 ** abs(power)),
    st.floats(),
    TEXTS,
    st.binary(max_size=300),
    st.text("x", min_size=150, max_size=300),
)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (2**53 - 1, 2**53 - 1),
        (2**53, "9007199254740992"),
        (HUGE, "10000000000000000000… (5,001 digits)"),
        (1 - HUGE, "-99999999999999999999… (5,000 digits)"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (0.1, 0.1),
        (True, True),
        (b"\x00\xff", "X'00ff'"),
        (Decimal("1.50"), "1.50"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        ({1: {HUGE: (1, {2})}}, {"1": {"10000000000000000000… (5,001 digits)": [1, [2]]}}),
        (Generation("a"), dataclasses.asdict(Generation("a"))),
    ],
    ids=lambda value: type(value).__name__,  # pytest would write the integers out
)
def test_values_become_json_values(value: object, stored: object) -> None:
    assert storable(value) == stored
    assert json.loads(json.dumps(storable(value), allow_nan=False)) == stored


def test_deep_nesting_and_objects_without_text_are_replaced() -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert len(json.dumps(storable([deep, Odd()]))) < 100
    assert storable(Odd()) == "<Odd>"


@given(st.integers(1, 10**6), st.integers(0, 6000), st.booleans())
def test_the_first_digits_and_their_number_are_right(first: int, power: int, negative: bool) -> None:
    stored = storable((-first if negative else first) * 10**power)
    if isinstance(stored, int):
        return
    digits = str(first) + "0" * power
    whole = f"{'-' if negative else ''}{digits}"
    assert stored in (whole, f"{whole[: 20 + negative]}… ({len(digits):,} digits)")


def is_safe(text: str) -> bool:
    """Return whether a text has no control characters and nothing invisible, except the joiners of emoji."""
    return all(c in "\n\t\u200c\u200d" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text)


def page_data(page: str) -> list:
    """Return the index of the records, followed by their portions."""
    packed = re.search(r'<div id="data" hidden>(.+?)</div></div>', page)[1] + "</div>"
    return [
        json.loads(gzip.decompress(base64.b64decode(part)), parse_constant=pytest.fail)
        for part in re.findall(r"<div>([^<]+)", packed)
    ]


def texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*map(str, value), *(text for item in value.values() for text in texts(item))]
    return [text for item in value for text in texts(item)] if isinstance(value, list) else []


def saved(report: Report, folder) -> dict[str, str]:
    """Return the texts of all files of a report, each of them written from the report that `to_json` saved."""
    report.to_json(folder / "r.json")
    json.loads((folder / "r.json").read_text("utf-8"), parse_constant=pytest.fail)
    again = Report.from_json(folder / "r.json")
    assert again.graders == report.graders
    again.to_json(folder / "again.json")
    assert (folder / "again.json").read_bytes() == (folder / "r.json").read_bytes()
    assert [e.judgements[0].verdict for e in again.entries] == [e.judgements[0].verdict for e in report.entries]
    for one in (report, again):
        write_html(one, folder / "r.html")
        write_markdown(one, folder / "r.md")
        write_junit(one, folder / "r.xml", minimum=1)
    root = ET.parse(folder / "r.xml").getroot()
    junit = [text for node in root.iter() for text in (node.text, *node.attrib.values()) if text]
    page = (folder / "r.html").read_text("utf-8")
    data = texts(page_data(page))
    return {
        "summary": again.summary(),
        "markdown": (folder / "r.md").read_text("utf-8").replace("@\u200b", "@"),
        "junit": "\n".join(junit),
        "page": page,
        "data": "\n".join(data),
    }


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=3), TEXTS)
def test_every_report_file_can_contain_any_result_of_an_engine(tmp_path_factory, rows, name) -> None:
    shown = result_details(Rows((name, "x" * 5000), [tuple(row) for row in rows]))
    failed = result_details(Failure("other", name))
    one = entry(0, {"execution": "wrong"})
    judgement = Judgement("execution", "wrong", name, {"gold": shown, "predicted": failed})
    report = Report(("execution",), (dataclasses.replace(one, judgements=(judgement,)),))
    assert len(json.dumps(shown)) < 20_000
    for shown_text in saved(report, tmp_path_factory.mktemp("r")).values():
        assert is_safe(shown_text)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_no_output_contains_control_characters_from_outside(tmp_path_factory, data) -> None:
    def text() -> str:
        return data.draw(TEXTS)

    def words() -> str:
        return "x" + text()

    grader = words()
    entries = []
    for verdict in ("correct", "wrong", "unjudged", "wrong"):
        record = Record(words(), words(), words(), text(), "sqlite", text(), (words(),))
        judgements = (
            Judgement(grader, verdict, text(), {"gold": {"error": text(), "message": text()}, text(): text()}),
        )
        entries.append(ReportEntry(record, text(), text(), True, judgements))
    report = Report((grader,), tuple(entries), ReportInfo(stopped=words(), records_left=1))
    for name, shown in saved(report, tmp_path_factory.mktemp("r")).items():
        assert is_safe(shown), name
    assert all(map(is_safe, (str(compare_reports(report, report)), repr(report.summary()))))


def test_the_command_prints_no_control_characters(tmp_path, capsys) -> None:
    entries = (dataclasses.replace(entry(0, {"a\x1b[2J\u202e": "unjudged"})),)
    Report(("a\x1b[2J\u202e",), entries, ReportInfo(stopped="[link=http://x]\x1b]0;t\x07")).to_json(
        tmp_path / "r\x1b[2J.json"
    )
    main([str(tmp_path / "r\x1b[2J.json")])
    assert main([str(tmp_path / "no\x1b[2J.json")]) == 2
    out, err = capsys.readouterr()
    assert is_safe(out)
    assert is_safe(err)
    assert r"\u{1b}]0;t\u{7}" in out
    assert "[link=http://x]" in out
    assert r"no\u{1b}[2J.json" in err


def test_a_journal_stores_values_that_json_cannot_represent(tmp_path) -> None:
    with_huge = {"details": {"rows": [[HUGE, math.nan, b"x"]]}}
    journal = Journal(tmp_path / "j")
    journal.add("k", with_huge)
    kept = journal.get("k")
    journal.close()
    again = Journal(tmp_path / "j")
    assert again.get("k") == kept == storable(with_huge)
    again.close()


def test_answers_with_infinite_logprobs_are_restored_from_a_journal(tmp_path) -> None:
    class Model:
        fingerprint = "m"
        asked = 0

        def generate(self, records):
            self.asked += len(records)
            return [Generation("SELECT 1", logprobs=(-math.inf, -0.5)) for _ in records]

    class Grader:
        name = "g"

        def grade(self, record, sql):  # noqa: ARG002 - required by the protocol
            return Judgement("g", "correct")

    model = Model()
    judge = SQLJudge([Grader()], journal=tmp_path / "j")
    for _ in range(2):
        judge.evaluate([Record("q", "CREATE TABLE t (a)", "SELECT 1")], model)
    assert model.asked == 1
    assert "Infinity" not in (tmp_path / "j").read_text()


@pytest.mark.parametrize(
    ("suffix", "sql"),
    [
        ("sqlite", "SELECT 9223372036854775807, -9223372036854775808, 1e999, -1e999, 0.1"),
        ("sqlite", "SELECT printf('%.*c', 900000, 'x') AS " + '"' + "n" * 5000 + '"'),
        ("sqlite", "SELECT x'00ff1b', char(27, 8238, 0), 'a' || char(10) || char(55357)"),
        ("sqlite", "SELECT no_such_column_" + "x" * 10_000),
        ("sqlite", "SELECT CAST(x'ff1b5b' AS TEXT)"),
        ("duckdb", "SELECT 170141183460469231731687303715884105727, 'nan'::FLOAT, '-inf'::DOUBLE, 'x1b'::BLOB"),
        (
            "duckdb",
            "SELECT " + "[" * 90 + "1e40::DOUBLE" + "]" * 90 + ", {'a': NULL, 'b': [chr(27)]}, repeat(chr(8238), 300)",
        ),
        ("duckdb", "SELECT " + "[" * 150 + "]" * 150),
    ],
    ids=lambda text: text[:20],
)
def test_results_of_engines_can_be_saved(tmp_path, suffix: str, sql: str) -> None:
    path = tmp_path / f"d.{suffix}"
    (sqlite3 if suffix == "sqlite" else duckdb).connect(path).close()
    grader = ExecutionGrader({"d": path})
    records = [Record("q", "CREATE TABLE t (a)", gold, "d") for gold in (sql, "SELECT 1")]
    report = SQLJudge([grader], journal=tmp_path / "j").judge(records, [sql, sql])
    for name, shown in saved(report, tmp_path).items():
        assert is_safe(shown), name
    assert (tmp_path / "r.json").stat().st_size < 100_000
