"""Run pip-audit over what is installed, and tell "nothing known" from "nobody could be asked".

pip-audit itself ends with success in both cases. `make audit` runs this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PATIENCE_S = 120


def main() -> int:
    """Audit the environment of this interpreter; return 1 if a package has a known vulnerability."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.json"
        command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner=off", "--format=json"]
        command.append(f"--output={path}")
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)  # noqa: S603 - our own arguments
            trouble = ran.stderr[-500:]
        except subprocess.TimeoutExpired:
            trouble = f"pip-audit had no answer after {_PATIENCE_S} s"
        report = json.loads(path.read_text()) if path.is_file() else {"dependencies": []}
    status, said = verdict(report)
    sys.stderr.write(f"audit: {said}\n" if report["dependencies"] else f"audit: {said}\n{trouble}\n")
    return status


def verdict(report: Mapping[str, Any]) -> tuple[int, str]:
    """Return the exit status and a sentence for pip-audit's JSON report."""
    packages = report["dependencies"]
    # What is not from the registry (a local version such as 2.13.0+cpu) cannot be asked about.
    asked = [package for package in packages if "skip_reason" not in package]
    known = [
        f"{package['name']} {package['version']}: {found['id']} (fixed in {', '.join(found['fix_versions']) or 'none'})"
        for package in asked
        for found in package["vulns"]
    ]
    if known:
        return 1, "known vulnerabilities:\n" + "\n".join(known) + "\nRun: make lock ARGS='--upgrade-package NAME'"
    if not asked:
        return 0, "SKIPPED, because the advisory service could not be reached for any package"
    left_out = f"; {len(packages) - len(asked)} could not be asked about" if len(asked) < len(packages) else ""
    return 0, f"no known vulnerability in {len(asked)} packages{left_out}"


if __name__ == "__main__":
    sys.exit(main())
