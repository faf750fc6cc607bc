"""Find records that repeat another record of their set, and records that also occur in another set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.findings import Check, Finding, Kind, findings_about, name_of, short
from sqlquarry.data.checkup.forms import Asked, Forms
from sqlquarry.records import Record

KINDS = (
    Kind(
        "duplicate",
        "warning",
        "Records are equal",
        "Keep the first one. A repeated record is learned twice, and it counts twice in a test.",
    ),
    Kind(
        "near-duplicate",
        "note",
        "Records differ only in spelling or the order of words",
        "Keep the first one. Question, schema and SQL have the same words, so the others add little.",
    ),
    Kind(
        "leak",
        "error",
        "A record also occurs in another set",
        "Remove it from one of the sets. A model can answer such a test question from memory. "
        "`Records.split` makes sets without leaks.",
        needs="others",
    ),
    Kind(
        "leaked-query",
        "warning",
        "A gold query also occurs on the same schema in another set",
        "Split again with `Records.split`, which keeps records with the same query together, unless the test should "
        "measure only new wording.",
        needs="others",
    ),
    Kind(
        "repeated-question",
        "warning",
        "A question also occurs in another set, but with another schema or query",
        "Check that the sets were meant to share questions. `Records.split` keeps them together only within a schema.",
        needs="others",
    ),
)


def duplicates(checked: Checked) -> Iterator[Finding]:
    """Find groups of records that are equal or differ only in spelling.

    Records differ only in spelling if the forms of their schemas, questions and notes are equal and they share the form
    of a gold query. Numbers and other literals count.
    """
    for group in _same(checked.forms):
        texts: dict[tuple[str | None, ...], list[int]] = {}
        for position in group:
            texts.setdefault(_text(checked.records[position]), []).append(position)
        for equal in texts.values():
            yield from findings_about("duplicate", equal, short(checked.records[equal[0]].question), first=True)
        firsts = [equal[0] for equal in texts.values()]
        if len(firsts) > 1:
            questions = " | ".join(dict.fromkeys(short(checked.records[place].question) for place in firsts[:2]))
            yield from findings_about("near-duplicate", firsts, questions, first=True)


def leaks(checked: Checked) -> Iterator[Finding]:
    """Find records that occur in another set too, each with the strongest reason."""
    for name, others in checked.others.items():
        other = _Index(name, others, checked.other_forms[name])
        for position, (record, forms) in enumerate(zip(checked.records, checked.forms, strict=True)):
            if found := other.find(record, forms):
                kind, detail = found
                yield Finding(kind, (position,), detail)


CHECKS: tuple[Check, ...] = (duplicates, leaks)


class _Index:
    """The records of another set by what a leak has in common with them."""

    def __init__(self, name: str, records: Sequence[Record], forms: Sequence[Forms]) -> None:
        self._name, self._records = name, records
        self._asked: dict[Asked, int] = {}
        self._unanswered: dict[Asked, int] = {}
        self._answered: dict[tuple[Asked, str], int] = {}
        self._queries: dict[tuple[str, str], int] = {}
        self._wordings: dict[str, int] = {}
        for position, (asked, wording, golds) in enumerate(forms):
            self._asked.setdefault(asked, position)
            self._wordings.setdefault(wording, position)
            if not golds:
                self._unanswered.setdefault(asked, position)
            for gold in golds:
                self._answered.setdefault((asked, gold), position)
                self._queries.setdefault((asked.schema, gold), position)

    def find(self, record: Record, forms: Forms) -> tuple[str, str] | None:
        """Return the kind and detail of what this set has in common with a record, or None."""
        asked, wording, golds = forms
        place = self._unanswered.get(asked) if golds else self._asked.get(asked)
        place = next((found for gold in golds if (found := self._answered.get((asked, gold))) is not None), place)
        if place is not None:
            same = _text(record) == _text(self._records[place])
            return "leak", self._detail(place, "is equal" if same else "differs only in spelling")
        for gold in golds:
            if (place := self._queries.get((asked.schema, gold))) is not None:
                return "leaked-query", self._detail(place, "has the same query")
        if (place := self._wordings.get(wording)) is not None:
            return "repeated-question", self._detail(place, "has the same question")
        return None

    def _detail(self, position: int, what: str) -> str:
        record = self._records[position]
        return f"{self._name}: {name_of(record, position)} {what}: {short(record.question)}"


def _text(record: Record) -> tuple[str | None, ...]:
    return record.question, record.schema, record.sql, record.notes


def _same(forms: Sequence[Forms]) -> Iterator[Sequence[int]]:
    """Yield groups of at least two records that ask the same and share a gold query, or all have none."""
    asked: dict[Asked, list[tuple[int, frozenset[str]]]] = {}
    for position, record in enumerate(forms):
        asked.setdefault(record.asked, []).append((position, record.golds))
    for askers in asked.values():
        if len(askers) > 1:
            yield from (group for group in connected(dict(askers)).values() if len(group) > 1)


def connected(golds: Mapping[int, frozenset[str]]) -> dict[int, list[int]]:
    """Return groups of positions that are connected by common golds, by their first position. Positions are in order.

    All positions without golds form one group.
    """
    parents = {position: position for position in golds}

    def root(position: int) -> int:
        while parents[position] != position:
            parents[position] = position = parents[parents[position]]
        return position

    first: dict[str, int] = {}
    for position, forms in golds.items():
        for gold in forms or ("",):
            one, other = sorted((root(position), root(first.setdefault(gold, position))))
            parents[other] = one
    groups: dict[int, list[int]] = {}
    for position in golds:
        groups.setdefault(root(position), []).append(position)
    return groups
