"""The table of failures in docs/import-failures.md lists every test case, and only existing ones."""

from __future__ import annotations

import re
from pathlib import Path

from test_bedrock_failure_table import ROWS
from test_bedrock_flow_faults import ASKING, IMPORTING, REFUSED

TESTS = Path(__file__).resolve().parents[2]
PAGE = TESTS.parent / "docs" / "import-failures.md"


def test_the_table_lists_every_case_and_only_existing_tests() -> None:
    section = PAGE.read_text(encoding="utf-8").split("## Look up a failure of the service")[1]
    rows = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row.rstrip(" |").rpartition("|")[2])}
    cases = {*ROWS, *IMPORTING, *REFUSED, *ASKING}
    code = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_bedrock_*.py"))
    code += "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_emulator_*.py"))
    code += "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_models_*.py"))
    assert cases <= named
    assert {name for name in named - cases if f"def {name}(" not in code} == set()
    assert all(row.count("|") == 4 for row in rows)
