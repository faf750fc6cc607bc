"""OMP_WAIT_POLICY: set where it still counts, never against the user, and else said once."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

from sqlquarry import openmp

# What OpenMP reads is the environment of the C library, which a process that is started sees.
SAYS = (
    "import os, sys; from sqlquarry.extras import require; {} print(os.popen('echo $OMP_WAIT_POLICY').read().strip())"
)


def policy(code: str, **variables: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    command = [sys.executable, "-c", SAYS.format(code)]
    return subprocess.run(
        command, env=environment | variables, capture_output=True, check=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("code", "variables", "set_to"),
    [
        ("require('train', 'x');", {}, "passive"),
        ("require('merge', 'x');", {}, "passive"),
        ("require('judge', 'x');", {}, ""),  # needs no torch
        ("require('train', 'x');", {"OMP_WAIT_POLICY": "active"}, "active"),
        ("require('train', 'x');", {"GOMP_SPINCOUNT": "7"}, ""),
        ("sys.modules['torch'] = sys; sys.__spec__ = os.__spec__; require('train', 'x');", {}, ""),  # too late
    ],
)
def test_threads_wait_passively_unless_somebody_decided_otherwise(code: str, variables: dict, set_to: str) -> None:
    assert policy(code, **variables) == set_to


@pytest.mark.parametrize(
    ("variables", "warned"), [({}, 1), ({"OMP_WAIT_POLICY": "active"}, 0), ({"GOMP_SPINCOUNT": "0"}, 0)]
)
def test_who_imported_torch_before_is_told_once(variables: dict, warned: int, monkeypatch, caplog) -> None:
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
