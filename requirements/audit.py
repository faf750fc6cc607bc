"""Run pip-audit on the installed packages and report whether the advisory service answered.

pip-audit itself exits with success even if it could not check a single package. `make audit` runs this script.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TIMEOUT_S = 120


def main() -> int:
    """Audit the environment of this interpreter. Return 1 if a package has a known vulnerability."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.json"
        command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner=off", "--format=json"]
        command.append(f"--output={path}")
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)  # noqa: S603 - fixed arguments
            trouble = ran.stderr[-500:]
        except subprocess.TimeoutExpired:
            trouble = f"pip-audit did not finish within {_TIMEOUT_S} s"
        report = json.loads(path.read_text()) if path.is_file() else {"dependencies": []}
    status, message = verdict(report)
    sys.stderr.write(f"audit: {message}\n" if report["dependencies"] else f"audit: {message}\n{trouble}\n")
    return status


def verdict(report: Mapping[str, Any]) -> tuple[int, str]:
    """Return the exit status and a message for pip-audit's JSON report."""
    packages = report["dependencies"]
    # The service does not know packages from outside the registry, such as the local version 2.13.0+cpu.
    checked = [package for package in packages if "skip_reason" not in package]
    known = [
        f"{package['name']} {package['version']}: {found['id']} (fixed in {', '.join(found['fix_versions']) or 'none'})"
        for package in checked
        for found in package["vulns"]
    ]
    if known:
        return 1, "known vulnerabilities:\n" + "\n".join(known) + "\nRun: make lock ARGS='--upgrade-package NAME'"
    if not checked:
        return 0, "SKIPPED, because the advisory service could not be reached for any package"
    skipped = f"; {len(packages) - len(checked)} could not be checked" if len(checked) < len(packages) else ""
    return 0, f"no known vulnerability in {len(checked)} packages{skipped}"


if __name__ == "__main__":
    sys.exit(main())
