"""Run all checks on records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sqlquarry.data.checkup import balance, contradictions, duplicates, faults, gold, lengths, privacy, tokens
from sqlquarry.data.checkup.checked import Checked, Plan
from sqlquarry.data.checkup.findings import Check, Finding, kinds_by_name
from sqlquarry.data.checkup.report import DataReport
from sqlquarry.data.checkup.statistics import statistics_of
from sqlquarry.errors import ConfigError
from sqlquarry.execution.databases import DatabaseSource, NamedDatabases
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.extras import require
from sqlquarry.options import type_problem
from sqlquarry.progress.bar import ProgressBar, phase
from sqlquarry.prompt import DEFAULT_FORMATTER, PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.tokenizer import Tokenizer

# Every module has the kinds that it finds, and the checks that find them.
_MODULES = (gold, duplicates, contradictions, faults, privacy, lengths, tokens, balance)
KINDS = kinds_by_name(*(module.KINDS for module in _MODULES))
CHECKS: tuple[Check, ...] = tuple(check for module in _MODULES for check in module.CHECKS)


def check_records(
    records: Sequence[Record],
    databases: DatabaseSource | Mapping[str, str | Path] | str | Path | None,
    *,
    others: Mapping[str, Sequence[Record]],
    formatter: PromptFormatter | None,
    tokenizer: Tokenizer | None,
    max_length: int | None,
    plan: Plan | None,
    limits: ExecutionLimits,
    concurrency: int,
) -> DataReport:
    """Check the arguments of `Records.check`, run all checks and return their report.

    Raises:
        ConfigError: an argument has a wrong type or value, or the tokenizer cannot be used.
        JudgingError: a directory or file with databases does not exist, or a URL cannot be parsed.
        MissingExtraError: the extra `judge` is not installed.
    """
    require("judge", "Records.check")
    problems = [
        type_problem("others", others, Mapping[str, Sequence[Record]]),
        type_problem("formatter", formatter, PromptFormatter | None),
        type_problem("max_length", max_length, int | None),
        type_problem("limits", limits, ExecutionLimits),
        type_problem("concurrency", concurrency, int),
        *_value_problems(tokenizer, max_length, plan, concurrency),
    ]
    if bad := list(filter(None, problems)):
        raise ConfigError(f"Records.check: {'; '.join(bad)}")
    source = NamedDatabases(databases) if isinstance(databases, Mapping | str | Path) else databases
    if problem := source is not None and type_problem("databases", source, DatabaseSource):
        raise ConfigError(f"Records.check: {problem}")
    counted = None
    if tokenizer is not None:
        with phase("counting tokens"):
            counted = tokens.token_lengths(records, formatter or DEFAULT_FORMATTER, tokenizer)
    return run_checks(
        Checked(
            records=records,
            others=others,
            databases=source,
            limits=limits,
            concurrency=concurrency,
            tokens=counted,
            max_length=max_length,
            tokenizer=tokenizer,
            plan=plan,
        )
    )


def run_checks(checked: Checked) -> DataReport:
    """Run all checks one after the other, with a progress bar."""
    findings: list[Finding] = []
    with ProgressBar("checking records", len(CHECKS) + 1, brief=True) as bar:
        for done, check in enumerate(CHECKS):
            bar.update(done, note=check.__name__.replace("_", " "))
            findings += check(checked)
        bar.update(len(CHECKS), note="statistics")
        statistics = statistics_of(checked)
        bar.advance()
    # The copy leaves out the forms and features, which only the checks need.
    return DataReport(replace(checked), findings, KINDS, statistics)


def _value_problems(tokenizer: object, max_length: object, plan: object, concurrency: object) -> Iterator[str]:
    if isinstance(max_length, int) and max_length < 1:
        yield f"max_length is {max_length}, but must be at least 1"
    if max_length is not None and tokenizer is None:
        yield f"max_length is {max_length!r}, but there is no tokenizer. Pass the base model's tokenizer"
    if tokenizer is not None and not callable(tokenizer):
        yield f"tokenizer is {tokenizer!r:.80}, but must be a tokenizer, such as AutoTokenizer.from_pretrained(…)"
    missing = [name for name in ("records", "rows", "rows_per_step", "steps", "epochs") if not hasattr(plan, name)]
    if plan is not None and missing:
        yield f"plan is {plan!r:.80}, but must be a TrainingPlan, as trainer.plan(records) returns"
    if isinstance(concurrency, int) and concurrency < 1:
        yield f"concurrency is {concurrency}, but must be at least 1"
