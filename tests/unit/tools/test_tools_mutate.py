"""The mutation script changes code, never prose, and tells noticed mutants from missed ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from coverage import CoverageData

from tools.mutate import Mutant, covering, mutants, noticed, report

MODULE = Path("src/shop/price.py")
SOURCE = '''"""Prices."""


def price(count: int, *, member: bool = False) -> int:
    """Return the price in cents."""
    if count < 1:
        raise ValueError("count must be 1 or more")
    return count * 10 - (5 if member and count > 3 else 0)
'''
STRONG = """
import pytest
from shop.price import price

def test_price():
    assert [price(n) for n in (1, 2, 3, 4)] == [10, 20, 30, 40]
    assert [price(n, member=True) for n in (1, 3, 4)] == [10, 30, 35]
    with pytest.raises(ValueError):
        price(0)
"""
WEAK = "from shop.price import price\n\ndef test_price():\n    assert price(2) > 15\n"


@pytest.fixture
def checkout(tmp_path):
    """A function that lays out a checkout with one module and the given test, and runs the test under coverage."""

    def laid_out(test):
        for path, text in {MODULE: SOURCE, Path("src/shop/__init__.py"): "", Path("tests/test_price.py"): test}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cov=src", "--cov-context=test"]
        installed = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
        subprocess.run(command, cwd=tmp_path, env=installed, check=True, capture_output=True)
        data = CoverageData(str(tmp_path / ".coverage"))
        data.read()
        return tmp_path, data

    return laid_out


def test_each_kind_of_change_is_made_and_no_prose_is_touched():
    changes = {(mutant.line, mutant.before, mutant.after) for mutant in mutants(SOURCE)}
    assert changes == {
        (4, "False", "(True)"),
        (6, "count < 1", "(not (count < 1))"),
        (6, "count < 1", "(count <= 1)"),
        (6, "1", "(2)"),
        (7, 'raise ValueError("count must be 1 or more")', "pass"),
        (8, "count * 10 - (5 if member and count > 3 else 0)", "(None)"),
        (8, "count * 10 - (5 if member and count > 3 else 0)", "(count * 10 + (5 if member and count > 3 else 0))"),
        (8, "count * 10", "(count + 10)"),
        (8, "10", "(11)"),
        (8, "5 if member and count > 3 else 0", "(0 if member and count > 3 else 5)"),
        (8, "5", "(6)"),
        (8, "member and count > 3", "(member or count > 3)"),
        (8, "member and count > 3", "(member)"),
        (8, "member and count > 3", "(count > 3)"),
        (8, "count > 3", "(count >= 3)"),
        (8, "3", "(4)"),
        (8, "0", "(1)"),
    }


def test_a_changed_line_keeps_the_lines_around_it():
    source = "def f(a):\n    b = 'é' * a\n    return b\n"
    changed = {mutant.source for mutant in mutants(source) if mutant.line == 2}
    assert changed == {source.replace("'é' * a", "('é' + a)"), source.replace("'é'", "('é_')")}


def test_a_strong_test_notices_every_mutant(checkout):
    root, data = checkout(STRONG)
    assert covering(data, MODULE, root)[7] == ["tests/test_price.py::test_price"]
    assert report(MODULE, data, count=6, seed=1, root=root) == (6, 6)
    assert (root / MODULE).read_text() == SOURCE


def test_a_weak_test_misses_mutants_and_they_are_printed(checkout, capsys):
    root, data = checkout(WEAK)
    caught, tried = report(MODULE, data, count=6, seed=2, root=root)
    printed = capsys.readouterr().out
    missed = [line for line in printed.splitlines() if " -> " in line]
    assert 0 < caught < tried == 6
    assert len(missed) == tried - caught
    assert all(line.strip().startswith(f"{MODULE}:") for line in missed)
    assert f"{caught} of    {tried} noticed" in printed


@pytest.mark.parametrize(
    ("limit", "endless"),
    [
        ("TEST_TIMEOUT_S", "def price(count, member=False):\n    while True: pass\n"),
        ("TIMEOUT_S", "while True: pass\n"),
    ],
)
def test_a_mutant_that_never_ends_is_noticed(checkout, monkeypatch, limit, endless):
    monkeypatch.setattr(f"tools.mutate.{limit}", 2)
    root, _ = checkout(STRONG)
    assert noticed(Mutant(8, "", "", endless), MODULE, ["tests/test_price.py"], root)
