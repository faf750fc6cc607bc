"""Lock files: every package has hashes, and the locks for development and jobs agree with pyproject.toml."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
JOB_LOCKS = ROOT / "src/sqlquarry/sagemaker/locks"
LOCKS = sorted([*(ROOT / "requirements").glob("*.txt"), *JOB_LOCKS.glob("*.txt")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def entries(*locks: Path) -> list[tuple[Requirement, list[str]]]:
    found = []
    for lock in locks:
        text = re.sub(r"^#.*\n", "", lock.read_text(), flags=re.MULTILINE)
        for entry in re.split(r"\n(?=[a-z0-9])", text.strip()):
            line, *hashes = re.split(r"\s*\\?\n\s*", entry.replace(" \\", ""))
            found.append((Requirement(line), hashes))
    return found


def versions(python: str, *locks: Path) -> dict[str, str]:
    """Return name -> version of the packages that pip installs from these locks on Linux."""
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "platform_machine": "x86_64",
    }
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one, _ in entries(*locks)
        if one.marker is None or one.marker.evaluate({**environment, "extra": ""})
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_has_one_version_and_its_hashes(lock: Path) -> None:
    for one, hashes in entries(lock):
        assert re.fullmatch(r"==[\w.+!]+", str(one.specifier)), one
        assert hashes, one
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", hashed) for hashed in hashes), one
        assert one.url is None
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_locks_satisfy_pyproject(python: str) -> None:
    torch = ROOT / "requirements/torch.txt"
    dev = versions(python, ROOT / "requirements/dev.txt", ROOT / "requirements/torch-needs.txt", torch)
    job, trl = (versions(python, JOB_LOCKS / f"{name}.txt") | {"torch": dev["torch"]} for name in ("job", "trl"))
    extras = PROJECT["optional-dependencies"]
    for lock, names in ((dev, list(extras)), (job, ["train", "merge", "aws"]), (trl, ["train", "trl"])):
        required = [*PROJECT["dependencies"], *(line for name in names for line in extras[name])]
        for one in map(Requirement, required):
            if one.name != "sqlquarry":
                assert one.specifier.contains(lock[canonicalize_name(one.name)], prereleases=True), one


@pytest.mark.parametrize("lock", sorted(JOB_LOCKS.glob("*.txt")), ids=lambda lock: lock.name)
def test_jobs_use_the_same_versions_as_the_tests(lock: Path) -> None:
    for python in ("3.11", "3.12", "3.13"):
        dev = versions(python, ROOT / "requirements/dev.txt", ROOT / "requirements/torch-needs.txt")
        assert versions(python, lock).items() <= dev.items()
        assert "torch" not in versions(python, lock)


def package(name: str, *vulnerabilities: str) -> dict[str, Any]:
    found = [{"id": one, "fix_versions": ["2"]} for one in vulnerabilities]
    return {"name": name, "version": "1", "vulns": found}


SKIPPED = {"name": "x", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "value"),
    [
        ([package("a"), package("b", "CVE-1")], 1, "b 1: CVE-1"),
        ([SKIPPED, package("b", "CVE-1")], 1, "CVE-1"),
        ([package("a"), SKIPPED], 0, "1 packages; 1 "),
        ([package("a")], 0, "1 packages"),
        ([SKIPPED], 0, "SKIPPED"),
        ([], 0, "SKIPPED"),
    ],
)
def test_an_audit_without_answers_is_reported_as_skipped(packages: list[Any], status: int, value: str) -> None:
    verdict = runpy.run_path(str(ROOT / "requirements/audit.py"))["verdict"]
    found = verdict({"dependencies": packages})
    assert found[0] == status
    assert value in found[1]
