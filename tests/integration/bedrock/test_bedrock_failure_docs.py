"""The table of failures in docs/bedrock.md names every case, and only what there is."""

from __future__ import annotations

import re
from pathlib import Path

from test_bedrock_failure_table import ROWS
from test_bedrock_flow_faults import ASKING, IMPORTING, REFUSED

TESTS = Path(__file__).resolve().parents[2]
PAGE = TESTS.parent / "docs" / "bedrock.md"


def test_every_case_is_in_the_table_and_every_name_there_is_one() -> None:
    section = PAGE.read_text(encoding="utf-8").split("### Every failure that is known of the service")[1]
    rows = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row.rstrip(" |").rpartition("|")[2])}
    cases = {*ROWS, *IMPORTING, *REFUSED, *ASKING}
    code = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_bedrock_*.py"))
    code += "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_emulator_*.py"))
    code += "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_models_*.py"))
    assert cases <= named
    assert {name for name in named - cases if f"def {name}(" not in code} == set()
    assert all(row.count("|") == 4 for row in rows)
