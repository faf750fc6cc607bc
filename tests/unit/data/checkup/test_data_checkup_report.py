"""The report of a check-up as an object, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_reports import EVIL, findings, report
from sqlquarry.data.checkup.findings import Finding
from sqlquarry.data.checkup.sections import share_of
from sqlquarry.errors import ConfigError


def test_findings_are_counted_by_kind_and_severity() -> None:
    found = report(findings())
    assert list(found.counts.items()) == [("broken", 12), ("same", 2), ("rare", 1)], "most severe first"
    assert found.severities == {"error": 12, "warning": 2, "note": 1}
    assert not found.ok
    assert report(findings()[:1]).ok, "a note is not an error"
    assert [finding.records for finding in found.of("same")] == [(0, 20), (1, 2, 3, 5, 7, 8, 9, 10)]
    assert found.ids("same") == [EVIL, "r1", "r2", "r3", "#5", "r7", "r8", "r9", "#10", "#20"]
    assert repr(found) == "<DataReport: 12 errors, 2 warnings and 1 note in 40 records>"


def test_counts_can_be_compared_after_a_repair() -> None:
    before, after = report(findings()), report(findings()[:5])
    assert before.counts - after.counts == {"broken": 8, "same": 2}
    assert after.counts["same"] == 0


def test_an_unknown_kind_is_an_error_with_the_nearest_name() -> None:
    for read in (report([]).of, report([]).ids):
        with pytest.raises(ConfigError, match=r"'brokn'.*'broken'"):
            read("brokn")
    assert report([]).of("fails") == ()


def test_the_order_of_findings_does_not_depend_on_the_order_in_which_they_were_found() -> None:
    assert report(findings()[::-1]).findings == report(findings()).findings


def test_the_summary_begins_with_errors_and_names_the_first_records() -> None:
    text = str(report(findings(), tokens=[5] * 38 + [9, 20], max_length=8))
    assert text.splitlines()[0] == "40 records: 12 errors, 2 warnings and 1 note"
    assert text.index("(broken)") < text.index("(same)") < text.index("(rare)")
    assert "12 findings in 12 records (30.0 %)" in text
    assert "  r1: no such column: c1\n" in text
    assert "  and 9 more\n" in text
    assert "Remove the record." in text
    assert "r1, r2, r3, 5 more: How many loans?" in text
    assert "95 % up to 5, 99 % up to 20, all up to 20" in text
    assert "longer than max_length: 2 records" in text
    assert "without databases: fails" in text
    assert "without others: leak" in text


def test_what_was_given_is_not_named_as_missing() -> None:
    assert set(report([], others={"test": []}).skipped) == {"fails"}
    assert set(report([]).skipped) == {"fails", "leak"}


def test_the_summary_shows_no_invisible_characters() -> None:
    assert "\x1b" not in str(report([Finding("broken", (1,), "\x1b[2J\nb")]))
    assert "\\u{1b}[2J b" in str(report([Finding("broken", (1,), "\x1b[2J\nb")]))


def test_a_notebook_shows_a_small_escaped_table() -> None:
    html = report(findings())._repr_html_()
    assert "12 errors, 2 warnings and 1 note" in html
    assert "<script" not in html
    assert len(report([Finding("broken", (i,), "x" * 5_000) for i in range(40)])._repr_html_()) < 10_000


def test_json_has_all_findings_one_per_line(tmp_path: Path) -> None:
    report([*findings(), Finding("broken", (30,), "\ud83d")]).to_json(tmp_path / "new" / "report.json")
    text = (tmp_path / "new" / "report.json").read_text()
    content = json.loads(text)
    assert (content["version"], content["ok"], content["records"]) == (1, False, 40)
    assert content["severities"] == {"error": 13, "warning": 2, "note": 1}
    assert [(kind["name"], kind["findings"], kind["records"]) for kind in content["kinds"]] == [
        ("broken", 13, 13),
        ("same", 2, 10),
        ("rare", 1, 0),
    ]
    assert content["skipped"] == ["fails", "leak"]
    assert content["statistics"]["with_sql"] == 40
    assert len(content["findings"]) == 16
    assert content["findings"][1] == {
        "kind": "broken",
        "records": [1],
        "detail": "no such column: c1",
        "ids": ["r1"],
    }
    assert json.dumps(content["findings"][1]) in text.replace("},\n", "}\n").splitlines()


def test_an_empty_report_can_be_shown_and_written(tmp_path: Path) -> None:
    found = report([], count=0)
    assert found.ok
    assert str(found).startswith("0 records: 0 errors, 0 warnings and 0 notes")
    found.to_json(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["findings"] == []
    found.to_html(tmp_path / "r.html")
    assert "</html>" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("count", "total", "shown"),
    [
        (0, 9, "0.0 %"),
        (1, 100_000, "< 0.1 %"),
        (1, 3, "33.3 %"),
        (99_999, 100_000, "> 99.9 %"),
        (9, 9, "100.0 %"),
        (0, 0, "0.0 %"),
    ],
)
def test_a_share_is_zero_or_all_only_if_it_is_exactly_that(count: int, total: int, shown: str) -> None:
    assert share_of(count, total) == shown
