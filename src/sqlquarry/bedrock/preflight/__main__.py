"""Print preflight findings as a table: ``python -m sqlquarry.bedrock.preflight DIR|s3://bucket/prefix``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sqlquarry.aws import aws_session
from sqlquarry.bedrock.preflight import PreflightFinding, PreflightReport, preflight, repair
from sqlquarry.errors import SQLQuarryError
from sqlquarry.text import visible

_COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Repair if requested, then check. Return 0 if the import can start, 1 if not, 2 if nothing could be checked."""
    options = _parser().parse_args(arguments)
    console = Console(soft_wrap=False)
    try:
        asks_aws = bool(options.account or options.role)
        session = aws_session(options.region) if asks_aws or options.region else None
        if options.fix or options.output_dir:
            done = repair(options.source, output_dir=options.output_dir, session=session)
            for line in [str(item) for item in done] or ["nothing to repair"]:
                console.print(Text(line))
        report = preflight(
            options.output_dir or options.source,
            options.name,
            account=asks_aws,
            role_arn=options.role,
            kms_key_id=options.kms_key,
            session=session,
        )
    except SQLQuarryError as problem:
        Console(stderr=True, soft_wrap=True).print(Text(str(problem)))
        return 2
    show(report, console)
    return 0 if report.ok else 1


def show(report: PreflightReport, console: Console) -> None:
    """Print a report with the worst findings first."""
    if not report.findings:
        console.print("no findings")
        return
    table = Table(show_lines=True)
    for column in ("finding", "where", "what, why and what to do"):
        table.add_column(column, overflow="fold")
    for finding in sorted(report.findings, key=lambda finding: list(_COLORS).index(finding.severity)):
        label = Text(f"{finding.severity}\n{finding.code}", style=_COLORS[finding.severity])
        table.add_row(label, Text(visible(finding.where)), Text(visible(_words(finding))))
    console.print(table)


def _words(finding: PreflightFinding) -> str:
    mend = " (--fix does it)" if finding.repairable and finding.severity != "note" else ""
    return f"{finding.message}.\n{finding.why}.\n→ {finding.fix}{mend}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sqlquarry.bedrock.preflight", description=__doc__)
    parser.add_argument("source", help="a directory with config.json and *.safetensors, or s3://bucket/prefix")
    parser.add_argument("--fix", action="store_true", help="first repair in place what can be repaired")
    parser.add_argument("--output-dir", help="repair into this new directory instead")
    parser.add_argument("--name", help="the imported model's name")
    parser.add_argument("--region", help="region that is to serve the model")
    parser.add_argument("--account", action="store_true", help="also check quotas, running jobs and the bucket")
    parser.add_argument("--role", help="also check the role with this ARN, and the account")
    parser.add_argument("--kms-key", help="also check the key that encrypts the imported model")
    return parser


if __name__ == "__main__":
    sys.exit(main())
