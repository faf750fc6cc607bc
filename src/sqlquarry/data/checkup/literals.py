"""Find the values in a gold query that neither question, notes nor schema mention, so that no model can know them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from sqlquarry.data.checkup.comparisons import OPERATORS, ORDER, comparisons
from sqlquarry.data.checkup.findings import Finding, Kind
from sqlquarry.data.checkup.gold_query import GoldQuery
from sqlquarry.data.checkup.mentions import Mentions
from sqlquarry.data.checkup.values import is_null_text

KINDS = (
    Kind(
        "literal-not-mentioned",
        "warning",
        "The gold query has a value that neither question, notes nor schema mention",
        "Mention the value in the question or notes, or add example values to the schema. The model can only guess it.",
    ),
)

_WILDCARDS = re.compile(r"[%_*]+")
_FORMAT = re.compile(r"(?:%[A-Za-z%][-/: .]?)+")  # '%Y-%m' is the format of a date
_LIMITED = re.compile(r"\b(?:first|top|most|least|best|highest|largest|few|some|any|example)", re.IGNORECASE)


def check_literals(gold: GoldQuery) -> Iterator[Finding]:
    """Yield the values that a query compares with or limits to, and that the model cannot know."""
    question, notes = gold.record.question, gold.record.notes
    mentions = _mentions(f"{question}\n{notes}", gold.record.schema)
    missing = [
        gold.sql[gold.tokens[place].start : gold.tokens[place].end]
        for place, near in _compared(gold)
        if not _is_mentioned(gold, place, mentions, near=near)
    ]
    if missing:
        yield gold.finding("literal-not-mentioned", ", ".join(dict.fromkeys(missing)))


@lru_cache(maxsize=64)
def _mentions(stated: str, schema: str) -> Mentions:
    return Mentions(stated, schema)


def _compared(gold: GoldQuery) -> Iterator[tuple[int, bool]]:
    """Yield the index of each literal that is compared or limits the rows, and whether numbers next to it count."""
    words = gold.words
    seen: set[int] = set()
    for found in comparisons(gold):
        near = found.operator in ORDER | {"BETWEEN"}
        for place in found.literals if found.other is None else ():
            if place not in seen:
                seen.add(place)
                yield place, near
    for place, word in enumerate(words[:-1]):
        if word == "LIMIT" and gold.is_number(place + 1) and not _LIMITED.search(gold.record.question):
            yield place + 1, False
        # UPPER('x') on the right side of a comparison
        is_argument = place > 1 and word == "(" and words[place - 2] in OPERATORS
        if is_argument and gold.is_text(place + 1) and place + 1 not in seen:
            yield place + 1, False


def _is_mentioned(gold: GoldQuery, place: int, mentions: Mentions, *, near: bool) -> bool:
    text = gold.tokens[place].text
    if gold.is_number(place):
        number = _number(text)
        return number in (None, 0, 1) or mentions.has_number(number or 0, near=near)
    if text.strip().lower() in ("", "0", "1", "now") or is_null_text(gold, place) or _FORMAT.fullmatch(text):
        return True
    return all(mentions.has_text(part) for part in _WILDCARDS.split(text) if part.strip())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
