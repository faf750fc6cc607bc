"""Find records that contradict each other: one question with two golds, one id twice, one database with two schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.duplicates import connected
from sqlquarry.data.checkup.findings import Check, Finding, Kind, findings_about, name_of, short
from sqlquarry.data.checkup.forms import Asked, Forms
from sqlquarry.data.normal_form import query_form, schema_form
from sqlquarry.records import Record

KINDS = (
    Kind(
        "contradiction",
        "warning",
        "One question on one schema has different golds",
        "Keep the right one, or list all accepted queries in `alternatives`. If both are right, the question is "
        "ambiguous, so say in it what is meant.",
    ),
    Kind(
        "other-wording-of-gold",
        "note",
        "One question on one schema has golds with the same parts in another order",
        "Keep one of them. The queries are probably equivalent, but a model cannot know which one to write.",
    ),
    Kind(
        "repeated-id",
        "warning",
        "Several records have the same id",
        "Give each record an id of its own. Reports name records by id.",
    ),
    Kind(
        "several-schemas",
        "note",
        "One database has several schemas",
        "Check that no schema is out of date. Different parts of one schema are fine.",
    ),
)


def contradictions(checked: Checked) -> Iterator[Finding]:
    """Find records that ask the same, in the same order of words, and share no gold query.

    All golds of a record are accepted answers, so records agree if they share a gold, also through other records.
    """
    for golds in _golds_by_question(checked.forms).values():
        # Most questions occur once.
        if len(golds) > 1 and len(groups := list(connected(golds).values())) > 1:
            firsts = [checked.records[group[0]] for group in groups]
            positions = [position for group in groups for position in group]
            yield from findings_about(_kind(firsts), positions, _detail(*firsts[:2]))


def contradictions_across_sets(checked: Checked) -> Iterator[Finding]:
    """Find records that contradict a record of another set."""
    if not checked.others:
        return
    mine = _golds_by_question(checked.forms)
    for name, others in checked.others.items():
        theirs = _golds_by_question(checked.other_forms[name])
        for key in mine:
            if key not in theirs:
                continue
            places: dict[frozenset[str], int] = {}
            for place, golds in theirs[key].items():
                places.setdefault(golds, place)
            against = [(position, _disjoint(golds, places)) for position, golds in mine[key].items()]
            pairs = [(position, place) for position, place in against if place is not None]
            if pairs:
                first, other = checked.records[pairs[0][0]], others[pairs[0][1]]
                detail = f"{name}: {name_of(other, pairs[0][1])} contradicts: {_detail(first, other)}"
                yield from findings_about(_kind([first, other]), [position for position, _ in pairs], detail)


def repeated_ids(checked: Checked) -> Iterator[Finding]:
    """Find ids that several records have."""
    places: dict[str, list[int]] = {}
    for position, record in enumerate(checked.records):
        if record.id is not None:
            places.setdefault(record.id, []).append(position)
    for name, positions in places.items():
        if len(positions) > 1:
            yield from findings_about("repeated-id", positions, repr(name))


def several_schemas(checked: Checked) -> Iterator[Finding]:
    """Find databases whose records have schemas with different names of tables or columns.

    The finding names one record of each schema.
    """
    schemas: dict[str, dict[str, int]] = {}
    for position, record in enumerate(checked.records):
        if record.database is not None:
            schemas.setdefault(record.database, {}).setdefault(record.schema, position)
    for database, texts in schemas.items():
        if len(texts) > 1:
            forms = {schema_form(text): position for text, position in reversed(texts.items())}
            if len(forms) > 1:
                detail = f"{database!r} has {len(forms):,} schemas"
                yield from findings_about("several-schemas", sorted(forms.values()), detail)


CHECKS: tuple[Check, ...] = (contradictions, contradictions_across_sets, repeated_ids, several_schemas)


def _golds_by_question(forms: Sequence[Forms]) -> dict[tuple[Asked, str], dict[int, frozenset[str]]]:
    """Return the gold queries of each position that has any, by what is asked in which words."""
    asked: dict[tuple[Asked, str], dict[int, frozenset[str]]] = {}
    for position, record in enumerate(forms):
        if record.golds:
            asked.setdefault((record.asked, record.wording), {})[position] = record.golds
    return asked


def _disjoint(golds: frozenset[str], places: Mapping[frozenset[str], int]) -> int | None:
    """Return the first place whose golds are all others, or None."""
    return next((place for other, place in places.items() if not golds & other), None)


def _kind(records: Sequence[Record]) -> str:
    parts = {tuple(sorted(query_form(record.sql or "", record.schema, literals=True).split())) for record in records}
    return "contradiction" if len(parts) > 1 else "other-wording-of-gold"


def _detail(one: Record, other: Record) -> str:
    return " | ".join((short(one.question), short(one.sql or ""), short(other.sql or "")))
