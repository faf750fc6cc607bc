"""Coverage below a limit fails the test command."""

import subprocess
import sys

import pytest

from tools import coverage_limits

SOURCE = "def sign(n):\n    if n < 0:\n        return -1\n    return 1\n\n\nsign(1)\n"


@pytest.fixture
def data_file(tmp_path, monkeypatch):
    """The coverage of a run that takes one of two branches and four of five lines."""
    (tmp_path / "sign.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "coverage", "run", "--branch", "sign.py"], check=True, cwd=tmp_path)
    return tmp_path / ".coverage"


def test_lines_and_branches_are_counted_separately(data_file):
    assert coverage_limits.percentages(data_file) == {"lines": 80.0, "branches": 50.0}


@pytest.mark.parametrize(("limits", "code"), [((80, 50), 0), ((81, 50), 1), ((80, 51), 1)])
def test_the_exit_status_says_whether_both_limits_are_met(data_file, monkeypatch, capsys, limits, code):
    monkeypatch.setattr(coverage_limits, "LIMITS", dict(zip(("lines", "branches"), limits, strict=True)))
    with pytest.raises(SystemExit) as ended:
        coverage_limits.main(data_file)
    assert ended.value.code == code
    assert "80.0 %" in capsys.readouterr().out
