"""Records.quarantine moves records with findings to a file from which load_records reads them back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sqlquarry import Record, Records, load_records
from sqlquarry.data.checkup.quarantine import KEEPING_FIRST
from sqlquarry.data.checkup.run import KINDS
from sqlquarry.errors import ConfigError

SCHEMA = "CREATE TABLE head (age INTEGER, name TEXT)"
RECORDS = Records(
    [
        Record("How old is Bo?", SCHEMA, "SELECT age FROM head WHERE name = 'Bo'", "d", id="good", notes="n"),
        Record("How tall are they?", SCHEMA, "SELECT height FROM head", "d", alternatives=["SELECT size FROM head"]),
        Record("How old is Bo?", SCHEMA, "SELECT age FROM head WHERE name = 'Bo'", "d", id="again", notes="n"),
        Record("How old are they?", SCHEMA, "SELECT age FORM head", id="broken"),
        Record("How many?", SCHEMA, "SELECT COUNT(*) FROM head", id="other"),
    ]
)


@pytest.mark.parametrize("name", ["bad.jsonl", "bad.jsonl.gz"])
def test_records_with_errors_are_written_with_reasons_and_read_back(tmp_path: Path, name: str):
    report = RECORDS.check()
    kept = RECORDS.quarantine(report, tmp_path / name)
    assert [record.id for record in kept] == ["good", "again", "other"]
    assert load_records(tmp_path / name) == Records([RECORDS[1], RECORDS[3]])
    assert kept.check().ok


def test_each_line_has_kind_detail_and_advice(tmp_path: Path):
    report = RECORDS.check()
    RECORDS.quarantine(report, tmp_path / "bad.jsonl", kinds=["column-missing", "gold-syntax"])
    first, second = (json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines())
    assert [(reason["kind"], "height" in reason["detail"]) for reason in first["reasons"]] == [
        ("column-missing", False),  # of the alternative
        ("column-missing", True),
    ]
    assert second["reasons"][0]["advice"] == KINDS["gold-syntax"].advice


def test_the_first_of_equal_records_stays(tmp_path: Path):
    kept = RECORDS.quarantine(RECORDS.check(), tmp_path / "bad.jsonl", kinds="duplicate")
    assert [record.id for record in kept] == ["good", None, "broken", "other"]
    assert [record.id for record in load_records(tmp_path / "bad.jsonl")] == ["again"]
    assert KINDS.keys() >= KEEPING_FIRST


def test_without_findings_all_records_stay_and_the_file_is_empty(tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text("stale")
    assert RECORDS.quarantine(RECORDS.check(), tmp_path / "bad.jsonl", kinds=[]) == RECORDS
    assert (tmp_path / "bad.jsonl").read_text() == ""


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path):
    report = RECORDS.check()
    with pytest.raises(ConfigError, match=r"'duplicates'.*'duplicate'"):
        RECORDS.quarantine(report, tmp_path / "bad.jsonl", kinds=["duplicates"])
    with pytest.raises(ConfigError, match=r"\b5\b.*\b4\b"):
        RECORDS[:4].quarantine(report, tmp_path / "bad.jsonl")
    with pytest.raises(ConfigError, match=r"\bCounter\b"):
        RECORDS.quarantine(report.counts, tmp_path / "bad.jsonl")
    with pytest.raises(ConfigError, match=r"bad\.csv"):
        RECORDS.quarantine(report, tmp_path / "bad.csv")
    assert list(tmp_path.iterdir()) == []
