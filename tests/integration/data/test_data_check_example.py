"""The example checks records, repairs them, puts the rest into quarantine and splits what is good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sqlquarry import load_records
from sqlquarry.data.checkup.repair import REPAIRS

EXAMPLE = [sys.executable, str(Path(__file__).resolve().parents[3] / "examples" / "check_your_records.py")]


def test_the_example_repairs_and_separates_the_planted_faults(tmp_path: Path) -> None:
    run = [*EXAMPLE, "--output", str(tmp_path)]
    shown = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    written = json.loads((tmp_path / "repair.json").read_text())
    # Names in another letter case and repeated alternatives are not planted.
    assert {*REPAIRS} - written["counts"].keys() == {
        "html-entities",
        "typographic-characters",
        "letter-case",
        "repeated-golds",
    }
    reasons = [json.loads(line)["reasons"] for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    kinds = {reason["kind"] for found in reasons for reason in found}
    assert kinds >= {"gold-syntax", "column-missing", "gold-not-sql", "gold-fails", "answer-in-question"}
    bad, train, test = (load_records(tmp_path / name) for name in ("quarantine.jsonl", "train.jsonl", "test.jsonl"))
    assert (len(bad), len(train) + len(test)) == (4, 296)
    found, left = (line for line in shown.splitlines() if line.startswith(("found: ", "left: ")))
    assert "mojibake" in found
    assert "mojibake" not in left
    assert b"</html>" in (tmp_path / "before.html").read_bytes()
    assert b"</html>" in (tmp_path / "after.html").read_bytes()
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout == shown


def test_the_example_reads_own_records(tmp_path: Path) -> None:
    rows = [("How many?", "SELECT COUNT(*) FROM t;"), ("Which?", "SELECT a FROM t"), ("Where?", "SELECT b FROM t")]
    lines = [json.dumps({"question": q, "context": "CREATE TABLE t (a, c)", "answer": sql}) for q, sql in rows]
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    run = [*EXAMPLE, "--data", str(tmp_path / "own.jsonl"), "--output", str(tmp_path / "out")]
    shown = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert "1 column-missing" in shown
    assert [record.question for record in load_records(tmp_path / "out" / "quarantine.jsonl")] == ["Where?"]
