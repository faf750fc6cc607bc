"""Print how much of the package the last test run covered, and fail below the limits.

Run ``pytest --cov`` first, then ``python -m tools.coverage_limits``. The option `fail_under` of coverage
has one limit for lines and branches together.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from coverage import Coverage

LIMITS = {"lines": 92.0, "branches": 88.0}


def percentages(data_file: Path) -> dict[str, float]:
    """Return the covered share of lines and of branches, in percent."""
    measured = Coverage(str(data_file))
    measured.load()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(written))
        totals = json.loads(written.read_text(encoding="utf-8"))["totals"]
    return {
        "lines": 100 * totals["covered_lines"] / totals["num_statements"],
        "branches": 100 * totals["covered_branches"] / totals["num_branches"],
    }


def main(data_file: Path = Path(".coverage")) -> None:
    """Print both percentages, and exit with 1 if one is below its limit."""
    covered = percentages(data_file)
    for name, limit in LIMITS.items():
        print(f"{covered[name]:.1f} % of {name} are covered (limit {limit:.0f} %)")
    sys.exit(any(covered[name] < limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    main()
