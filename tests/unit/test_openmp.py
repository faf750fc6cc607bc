"""OMP_WAIT_POLICY is set if it still has an effect and the user set no policy. Otherwise there is one warning."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

from sqlquarry import openmp

# OpenMP reads the environment of the C library, which only a child process shows.
PRINT_POLICY = (
    "import os, sys; from sqlquarry.extras import require; {} print(os.popen('echo $OMP_WAIT_POLICY').read().strip())"
)


def policy_after(code: str, **variables: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    command = [sys.executable, "-c", PRINT_POLICY.format(code)]
    return subprocess.run(
        command, env=environment | variables, capture_output=True, check=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("code", "variables", "set_to"),
    [
        ("require('train', 'x');", {}, "passive"),
        ("require('merge', 'x');", {}, "passive"),
        ("require('judge', 'x');", {}, ""),  # does not need torch
        ("require('train', 'x');", {"OMP_WAIT_POLICY": "active"}, "active"),
        ("require('train', 'x');", {"GOMP_SPINCOUNT": "7"}, ""),
        ("sys.modules['torch'] = sys; sys.__spec__ = os.__spec__; require('train', 'x');", {}, ""),  # too late
    ],
)
def test_threads_wait_passively_unless_somebody_decided_otherwise(code: str, variables: dict, set_to: str) -> None:
    assert policy_after(code, **variables) == set_to


@pytest.mark.parametrize(
    ("variables", "warned"), [({}, 1), ({"OMP_WAIT_POLICY": "active"}, 0), ({"GOMP_SPINCOUNT": "0"}, 0)]
)
def test_there_is_one_warning_if_torch_was_imported_before(variables: dict, warned: int, monkeypatch, caplog) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch") or ModuleType("torch"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    openmp.warn_of_spinning.cache_clear()
    try:
        for _ in range(3):
            openmp.wait_passively()
            openmp.warn_of_spinning()
    finally:
        openmp.warn_of_spinning.cache_clear()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned
    assert "OMP_WAIT_POLICY" not in {*os.environ} - {*variables}
