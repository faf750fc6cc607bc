"""Check the gold queries of all records: their text, their names and values, and their results."""

from __future__ import annotations

from collections.abc import Iterator

from sqlquarry.data.checkup import choices, columns, comparisons, literals, runs, statements
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.findings import Check, Finding, Kind
from sqlquarry.data.checkup.gold_query import GoldQuery, gold_queries


def check_texts(checked: Checked) -> Iterator[Finding]:
    """Yield what is wrong with gold queries as far as question and schema show it, without a database."""
    for place, record in enumerate(checked.records):
        for gold in gold_queries(place, record):
            yield from _findings(gold, has_databases=checked.databases is not None)


def _findings(gold: GoldQuery, *, has_databases: bool) -> Iterator[Finding]:
    if broken := statements.check_statement(gold) or statements.syntax_error(gold):
        yield broken
        return
    if not has_databases:  # otherwise the database decides
        yield from statements.unparsed(gold)
    yield from columns.check_names(gold)
    yield from comparisons.check_quotes(gold)
    yield from comparisons.check_types(gold)
    yield from choices.check_choices(gold)
    yield from literals.check_literals(gold)


_MODULES = (statements, columns, comparisons, choices, literals, runs)
KINDS: tuple[Kind, ...] = tuple(kind for module in _MODULES for kind in module.KINDS)
CHECKS: tuple[Check, ...] = (columns.check_schemas, check_texts, runs.check_runs)
