"""Files for a build: Markdown, JUnit, and the command with its exit status."""

import dataclasses
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from judging_reports import EVIL, entry, report, stand_in_for_analysis
from sqlquarry.errors import JudgingError
from sqlquarry.judging import ReportInfo, check_report, write_junit, write_markdown
from sqlquarry.judging.__main__ import main
from sqlquarry.judging.report import Report
from sqlquarry.records import Record


@pytest.fixture(autouse=True)
def _analysis(monkeypatch):
    stand_in_for_analysis(monkeypatch)


def failed(made) -> list[str]:
    return [check.group for check in made if check.failure is not None]


def test_markdown_of_one_system(tmp_path):
    write_markdown(report("++-?" * 12), tmp_path / "r.md", title="Nightly")
    text = (tmp_path / "r.md").read_text()
    assert text.startswith("## Nightly\n\n| grader | accuracy | 95 % interval | judged |\n")
    assert "| execution | 66.7% | 50.3% to 79.8% | 36 (12 unjudged) |" in text
    assert re.search(r"^### .*\n\n\| slice \| accuracy \|", text, re.MULTILINE)
    assert "<summary>5 of 12 " in text
    assert text.count("-- predicted") == 5


def test_markdown_of_a_comparison_shows_broken_records(tmp_path):
    write_markdown(report("-++++-" * 8), tmp_path / "r.md", baseline=report("+++-++" * 8))
    text = (tmp_path / "r.md").read_text()
    assert "**-16.7**" in text
    assert "+8 / −16" in text
    assert re.search(r"^### .*\n\n\| slice \| n \| baseline \| now \|", text, re.MULTILINE)
    assert "<summary>5 of 16 " in text
    assert "question 0**" in text
    assert "question 3**" not in text
    with pytest.raises(JudgingError, match=r"'baseline'.*'this model'"):
        write_markdown(report("+"), tmp_path / "r.md", baseline=report("++"))


def test_nothing_breaks_out_of_the_markdown(tmp_path):
    record = Record(EVIL, "CREATE TABLE t (a)", f"SELECT 1 -- ```` {EVIL}")
    item = dataclasses.replace(entry(1, {"execution": "wrong"}), record=record, sql=EVIL)
    report_of_evil = Report(("execution",), (item,), ReportInfo(stopped=EVIL, records_left=3))
    write_markdown(report_of_evil, tmp_path / "r.md", title=EVIL)
    text = (tmp_path / "r.md").read_text()
    prose, code = text.split("`````sql\n")
    assert code.endswith("\n`````\n\n</details>\n")
    assert "@all" not in prose, "nobody is notified"
    assert "<img" not in prose.replace("\\<img", "")
    assert re.search(r"^\*\*Incomplete:\*\* 3 ", prose, re.MULTILINE)


def test_the_headline_passes_only_if_its_lower_end_does():
    some = report("+" * 90 + "-" * 10)
    assert failed(check_report(some)) == []
    assert failed(check_report(some, minimum=0.8)) == []
    made = check_report(some, minimum=0.85)
    assert failed(made) == ["accuracy"]
    assert re.findall(r"[\d.]+%", made[0].failure) == ["82.6%", "85.0%"]
    assert failed(check_report(report("???"), minimum=0.1)) == ["accuracy"], "without judged records there is no proof"
    with pytest.raises(JudgingError, match=r"^minimum\b.*\b80\b"):
        check_report(some, minimum=80)


def test_a_slice_fails_only_if_its_upper_end_does():
    some = report("-+++" * 10)  # joins are all wrong
    assert failed(check_report(some, slice_minimum=0.25)) == []
    assert failed(check_report(some, slice_minimum=0.4)) == ["joins"]


def test_a_loss_beyond_chance_and_an_early_stop_fail():
    before = report("+" * 40)
    assert failed(check_report(report("-" * 3 + "+" * 37), baseline=before)) == []
    made = check_report(report("-" * 10 + "+" * 30), baseline=before)
    assert failed(made) == ["baseline"]
    assert "broken: r0: question 0" in next(check.text for check in made if check.group == "baseline")
    stopped = dataclasses.replace(before, info=ReportInfo(records_left=7, stopped="budget"))
    assert failed(check_report(stopped)) == ["complete"]


def test_junit_has_one_case_per_check(tmp_path):
    some = report("-+++" * 10)
    evil = dataclasses.replace(some.entries[0], record=Record("bell \x07 \ud800", "CREATE TABLE t (a)", "S", EVIL))
    some = Report(some.graders, (evil, *some.entries[1:]))
    before = Report(some.graders, (dataclasses.replace(evil, judgements=some.entries[1].judgements), *some.entries[1:]))
    assert write_junit(some, tmp_path / "r.xml", minimum=0.9, baseline=before) is False
    root = ET.fromstring((tmp_path / "r.xml").read_bytes())
    cases = root.findall(".//testcase")
    assert int(root.get("tests")) == len(cases) == len(check_report(some, baseline=before))
    assert root.get("failures") == "1"
    assert [c.get("name") for c in cases if c.find("failure") is not None] == ["execution"]
    assert EVIL in [case.get("name") for case in cases], "the name of a database is unchanged"
    assert write_junit(some, tmp_path / "r.xml") is True


def test_the_command_writes_all_files_and_returns_its_status(tmp_path, capsys):
    before, after = tmp_path / "base.json", tmp_path / "tuned.json"
    report("+-" * 20).to_json(before)
    report("++" * 19 + "-+").to_json(after)
    files = [f"--{kind}={tmp_path / kind}" for kind in ("html", "markdown", "junit")]
    assert main([str(after), f"--compare={before}", "--minimum=0.8", *files]) == 0
    out = capsys.readouterr().out
    assert "base: +47.5 " in out
    assert ">base<" in (tmp_path / "html").read_text()
    assert (tmp_path / "markdown").read_text().startswith("## SQL accuracy")
    assert ET.parse(tmp_path / "junit").getroot().get("failures") == "0"
    assert main([str(before), f"--compare={after}", "--minimum=0.8"]) == 1
    out = capsys.readouterr().out
    assert re.search("^FAILED accuracy execution: ", out, re.MULTILINE)
    assert "FAILED baseline execution: -47.5 " in out


def test_a_file_that_cannot_be_used_is_status_two(tmp_path, capsys):
    assert main([str(tmp_path / "missing.json")]) == 2
    assert "error: " in capsys.readouterr().err
    other = tmp_path / "new" / "same.json"
    report("++").to_json(other)
    report("+-").to_json(tmp_path / "same.json")
    assert main([str(tmp_path / "same.json"), f"--compare={other}", f"--html={tmp_path / 'x.html'}"]) == 0
    page = (tmp_path / "x.html").read_text()
    assert f">{other}<" in page
    assert f">{tmp_path / 'same.json'}<" in page
    assert main([str(other), f"--compare={other}", f"--html={tmp_path / 'y.html'}"]) == 2
    assert str(other) in capsys.readouterr().err
    assert not (tmp_path / "y.html").exists()
    found = subprocess.run(
        [sys.executable, "-m", "sqlquarry.judging", str(tmp_path / "none.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
