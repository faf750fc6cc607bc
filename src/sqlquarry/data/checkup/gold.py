"""Check the gold queries of all records: their text, their names and values, and their results."""

from __future__ import annotations

from collections.abc import Iterator

from sqlquarry.data.checkup import choices, columns, literals, runs, statements, values
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.findings import Check, Finding, Kind
from sqlquarry.data.checkup.gold_query import GoldQuery, gold_queries, schema_of
from sqlquarry.progress.bar import ProgressBar


def check_texts(checked: Checked) -> Iterator[Finding]:
    """Yield what is wrong with schemas and gold queries as far as the texts of the records show it."""
    unreadable: dict[tuple[str, str], list[int]] = {}
    with ProgressBar("reading queries", len(checked.records), brief=True) as bar:
        for place, record in enumerate(checked.records):
            if isinstance(problem := schema_of(record.schema, record.dialect), str):
                unreadable.setdefault((record.schema, problem), []).append(place)
            for gold in gold_queries(place, record):
                yield from _findings(gold, has_databases=checked.databases is not None)
            bar.advance()
    for (_, problem), places in unreadable.items():
        yield Finding("schema-unreadable", tuple(places), problem)


def _findings(gold: GoldQuery, *, has_databases: bool) -> Iterator[Finding]:
    if broken := statements.check_statement(gold) or statements.syntax_error(gold):
        yield broken
        return
    if not has_databases:  # otherwise the database decides
        yield from statements.unparsed(gold)
    yield from columns.check_names(gold)
    yield from values.check_quotes(gold)
    yield from values.check_nulls(gold)
    yield from values.check_types(gold)
    yield from choices.check_choices(gold)
    yield from literals.check_literals(gold)


_MODULES = (statements, columns, values, choices, literals, runs)
KINDS: tuple[Kind, ...] = tuple(kind for module in _MODULES for kind in module.KINDS)
CHECKS: tuple[Check, ...] = (check_texts, runs.check_runs)
