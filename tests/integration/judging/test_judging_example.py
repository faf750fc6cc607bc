"""The judging example runs, and its second run judges nothing again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = [sys.executable, str(ROOT / "examples" / "judge_predictions.py")]


def test_the_example_judges_in_four_ways_and_only_once(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    subprocess.run([*EXAMPLE, "--template", str(answers)], check=True)
    lines = [json.loads(line) for line in answers.read_text().splitlines()][:12]
    lines[0]["answer"] = "SELECT 1"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = [*EXAMPLE, str(answers), "--output", str(tmp_path / "out")]
    shown = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert shown.count("91.7%") >= 3, shown
    journal = tmp_path / "out" / "judging.jsonl"
    before = journal.read_text()
    assert before.count('"grader": "execution"') == before.count('"grader": "on made rows"') == 12
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout == shown
    assert journal.read_text() == before
    assert (tmp_path / "out" / "report.md").read_text()
    assert b"</html>" in (tmp_path / "out" / "report.html").read_bytes()
