"""Everything that would make an import fail, found at once and before any upload, from headers and small files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock.checks import CHECKS, Finding, Subject, request
from sqlquarry.bedrock.dialect import OPTIONAL_FILES, export_files, read_json
from sqlquarry.bedrock.weights import read_weights
from sqlquarry.errors import PreflightError, SQLQuarryError
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What a preflight found; an empty report is a good one."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings do not count."""
        return not any(finding.severity == "error" for finding in self.findings)

    def raise_for_errors(self) -> None:
        """Stop here if the import would fail.

        Raises:
            PreflightError: lists every finding with its fix.
        """
        if not self.ok:
            raise PreflightError(f"the import would fail, so nothing was uploaded:\n{self}")

    def __str__(self) -> str:
        return "\n".join(f"- {finding}" for finding in self.findings) or "no findings"


def preflight(
    merged: MergedModel,
    name: str | None = None,
    *,
    s3_uri: str | None = None,
    job_name: str | None = None,
    region: str | None = None,
) -> PreflightReport:
    """Check a merged model, and the names it is to be imported with, without network and without reading weights."""
    findings = [*request(name, job_name, s3_uri, region)]
    unreadable = [*_unreadable(merged)]
    if unreadable:
        return PreflightReport((*findings, *unreadable))
    directory, exported = merged.path, export_files(merged.path)
    subject = Subject(
        merged=merged,
        config=json.loads(exported["config.json"]),
        tokenizer_config=json.loads(exported["tokenizer_config.json"]),
        tokenizer=read_json(directory / "tokenizer.json"),
        weights=read_weights(directory),
        formatter=PromptFormatter.load(directory),
    )
    return PreflightReport((*findings, *(finding for check in CHECKS for finding in check(subject))))


def _unreadable(merged: MergedModel) -> Iterator[Finding]:
    """Findings about files that no further check could read."""
    directory = merged.path
    required = ("config.json", "tokenizer_config.json", "tokenizer.json")
    for name in (*required, *(optional for optional in OPTIONAL_FILES if (directory / optional).exists())):
        try:
            read_json(directory / name)
        except (OSError, ValueError) as error:
            yield Finding("error", "file", name, f"it cannot be read ({error})", "Merge again")
    try:
        _ = PromptFormatter.load(directory).chat_template
    except (SQLQuarryError, KeyError, TypeError, ValueError) as error:
        yield Finding("error", "prompt", PROMPT_FILE, f"it cannot be used ({error})", "Restore the adapter's own")
    try:
        if not read_weights(directory).shards:
            yield Finding("error", "weights", "*.safetensors", "there is none", "Point at a merged model's directory")
    except (OSError, ValueError) as error:
        yield Finding("error", "weights", "*.safetensors", f"{error}", "Merge again")
