"""Generation of a domain's queries from question patterns. Only drafts that are worth asking are kept."""

import re
import sqlite3
from contextlib import closing

from tools.sample_data.chooser import Chooser, DeadEndError, Draft
from tools.sample_data.dice import Dice
from tools.sample_data.lexicon import Domain, Query
from tools.sample_data.patterns import PATTERNS
from tools.sample_data.rows import connect

_ATTEMPTS = 60
_PHRASINGS = 3
_ORDERED = re.compile(
    r"^SELECT (?P<shown>.+?) (?P<source>FROM .+ ORDER BY (?P<key>.+?)(?: DESC)?)(?: LIMIT (?P<limit>\d+))?$"
)


def queries_of(domain: Domain) -> list[Query]:
    """Return the domain's hand-written queries, then those from the patterns, without repeated SQL or questions."""
    found = list(domain.queries)
    taken = {text for query in found for text in (query.sql, *query.questions)}
    dice = Dice(domain.name)
    chooser = Chooser(domain, dice)
    with closing(connect(domain)) as database:
        for kind, per_domain, make in PATTERNS:
            wanted = len(found) + per_domain
            for _ in range(_ATTEMPTS):
                if len(found) == wanted:
                    break
                try:
                    draft = make(chooser)
                except DeadEndError:
                    continue
                if taken.isdisjoint((draft.sql, *draft.questions)) and _is_worth_asking(database, draft):
                    questions = dice.shuffled(draft.questions)[:_PHRASINGS]
                    found.append(Query(kind, draft.sql, tuple(questions)))
                    taken.update((draft.sql, *draft.questions))
    return found


def has_one_order(database: sqlite3.Connection, sql: str) -> bool:
    """Return whether ORDER BY leaves no ties among the returned rows or at the limit. True without ORDER BY."""
    match = _ORDERED.match(sql)
    if match is None:
        return True
    keys = database.execute(f"SELECT {match['key']} {match['source']}").fetchall()
    if match["limit"]:
        keys = keys[: int(match["limit"]) + 1]
    return len(set(keys)) == len(keys)


def _is_worth_asking(database: sqlite3.Connection, draft: Draft) -> bool:
    rows = _rows(database, draft.sql)
    return (
        any(value not in (None, 0) for row in rows for value in row)
        and all(rows != _rows(database, weaker) for weaker in draft.weaker)
        and has_one_order(database, draft.sql)
    )


def _rows(database: sqlite3.Connection, sql: str) -> list[tuple[object, ...]]:
    return sorted(database.execute(sql), key=repr)
