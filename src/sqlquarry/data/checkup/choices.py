"""Find what makes the result of a gold query depend on chance, the day or the database system."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from sqlquarry.data.checkup.findings import Finding, Kind
from sqlquarry.data.checkup.gold_query import GoldQuery

KINDS = (
    Kind(
        "gold-random",
        "warning",
        "The gold query returns random values",
        "Remove the random function if the question does not ask for it. Graders cannot compare random results.",
    ),
    Kind(
        "gold-depends-on-today",
        "warning",
        "The gold query depends on the current date or time",
        "Name the day in the question and the query. Otherwise the same query has another result every day.",
    ),
    Kind(
        "limit-without-order",
        "warning",
        "The gold query has a LIMIT without ORDER BY",
        "Add the ORDER BY that the question implies. Otherwise the database chooses which rows it returns.",
    ),
)

_RANDOM = {"RANDOM", "RAND", "RANDOMBLOB", "NEWID", "UUID", "UUID_STRING", "GEN_RANDOM_UUID", "GENERATE_UUID", "RANDN"}
_NOW_CALLS = {"NOW", "GETDATE", "GETUTCDATE", "SYSDATETIME", "CURDATE", "CURTIME", "TODAY", "UTC_TIMESTAMP", "UTC_DATE"}
_NOW_WORDS = {"CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "SYSDATE"}
# SQLite functions that take the current time without an argument: https://sqlite.org/lang_datefunc.html
_SQLITE_DATES = {"DATE", "TIME", "DATETIME", "JULIANDAY", "UNIXEPOCH"}
_NOW_TEXTS = {"now", "today", "yesterday", "tomorrow"}
_DATE_CALLS = _SQLITE_DATES | {"STRFTIME", "TIMEDIFF", "TO_DATE", "TIMESTAMP"}
_CUTS = {"LIMIT", "FETCH", "TOP"}
_AGGREGATES = {"COUNT", "SUM", "AVG", "MIN", "MAX", "TOTAL"}


def check_choices(gold: GoldQuery) -> Iterator[Finding]:
    """Yield random functions, the current time, and each LIMIT without ORDER BY."""
    words = gold.words
    calls = {word for word, after in pairwise(words) if after == "("}
    if found := sorted(calls & _RANDOM):
        yield gold.finding("gold-random", ", ".join(found))
    if found := sorted(_current_time(gold)):
        yield gold.finding("gold-depends-on-today", ", ".join(found))
    if _CUTS & set(words) and (cut := next(_unordered_cuts(gold), None)):
        yield gold.finding("limit-without-order", cut)


def _current_time(gold: GoldQuery) -> set[str]:
    words, found = gold.words, set[str]()
    for place, word in enumerate(words):
        before, after, later = (words[i] if 0 <= i < len(words) else "" for i in (place - 1, place + 1, place + 2))
        is_call = after == "("
        is_text = gold.is_text(place) and gold.tokens[place].text.lower() in _NOW_TEXTS
        if is_text and before in ("(", ",") and _DATE_CALLS & set(words):
            found.add(f"'{gold.tokens[place].text}'")
        elif (before != "." and after != "." and word in _NOW_WORDS) or (
            is_call and (word in _NOW_CALLS or (word in _SQLITE_DATES and later == ")" and gold.dialect == "sqlite"))
        ):
            found.add(word)
    return found


@dataclass(slots=True)
class _Query:
    """What a query between two brackets has so far.

    Args:
        is_sorted: whether it has ORDER BY.
        is_grouped: whether it has GROUP BY.
        is_one_row: whether its first output is an aggregate.
        is_test: whether it is the query of EXISTS, whose order does not matter.
        cut: its LIMIT as written, or "".
    """

    is_sorted: bool = False
    is_grouped: bool = False
    is_one_row: bool = False
    is_test: bool = False
    cut: str = ""

    @property
    def is_unordered(self) -> bool:
        return bool(self.cut) and not (self.is_sorted or self.is_test or (self.is_one_row and not self.is_grouped))


def _unordered_cuts(gold: GoldQuery) -> Iterator[str]:
    """Yield the LIMIT of each query and subquery that has no ORDER BY."""
    words = gold.words
    open_queries = [_Query()]
    for place, word in enumerate(words):
        query = open_queries[-1]
        if word == "(":
            open_queries.append(_Query(is_test=place > 0 and words[place - 1] == "EXISTS"))
        elif word == ")" and len(open_queries) > 1:
            if open_queries.pop().is_unordered:
                yield query.cut
        elif word.startswith("ORDER"):
            query.is_sorted = True
        elif word.startswith("GROUP"):
            query.is_grouped = True
        elif word == "SELECT":
            query.is_one_row = words[place + 1 : place + 2] != [] and words[place + 1] in _AGGREGATES
        elif word in _CUTS and place + 1 < len(words) and words[place + 1] not in (".", "=", ",", "("):
            query.cut = " ".join(token.text for token in gold.tokens[place : place + 2])
    if open_queries[0].is_unordered:
        yield open_queries[0].cut
