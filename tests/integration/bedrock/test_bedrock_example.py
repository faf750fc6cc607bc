"""examples/import_any_model.py runs with a tiny model and prints its results."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "import_any_model.py"


@pytest.mark.filterwarnings("ignore:.*answers were cut")
def test_any_model_is_imported_once_and_answers(
    tiny_llama: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--model", str(tiny_llama)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"imported smollm2 as arn:aws:bedrock:us-east-1:\d{12}:imported-model/\w{12}", lines[0])
    assert lines[1:3] == ["imported again: the same model", "keeping it costs $1.95 a month"]
    assert lines[3].startswith("question: How many users")
    assert lines[4].startswith("answer:   ")
