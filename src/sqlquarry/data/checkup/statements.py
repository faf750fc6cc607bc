"""Check that a gold query is one statement that reads."""

from __future__ import annotations

from collections.abc import Iterator

from sqlquarry.data.checkup.findings import Finding, Kind
from sqlquarry.data.checkup.gold_query import GoldQuery
from sqlquarry.sql.parsing import error_place, parse, statements

KINDS = (
    Kind(
        "gold-not-sql",
        "error",
        "The gold query is not SQL",
        "Remove the record or write its query. A placeholder, prose or markup in training teaches the model to answer "
        "with it.",
    ),
    Kind(
        "gold-several-statements",
        "error",
        "The gold query consists of several statements",
        "Keep the one statement that answers the question. Graders refuse to run several statements.",
    ),
    Kind(
        "gold-writes",
        "error",
        "The gold statement is not a query that only reads",
        "Remove the record or write a SELECT. A model that learned to write may change a live database.",
    ),
    Kind(
        "gold-syntax",
        "error",
        "The gold query has a syntax error",
        "Correct the query, or set the dialect in which it is written. SQLite itself has refused it.",
    ),
    Kind(
        "gold-unparsed",
        "warning",
        "The gold query cannot be parsed in its dialect",
        "Check the query and the record's dialect. sqlglot parses most SQL but not all, and no database has decided.",
    ),
)

# The words with which a query starts. DuckDB also starts one with FROM.
_READING = {"SELECT", "WITH", "VALUES", "(", "FROM", "TABLE"}
_WRITING = {
    *("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "UPSERT", "CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME"),
    *("GRANT", "REVOKE", "ATTACH", "DETACH", "COPY", "LOAD", "IMPORT", "EXPORT", "CALL", "EXEC", "EXECUTE", "DO"),
    *("BEGIN", "COMMIT", "ROLLBACK", "VACUUM", "REINDEX", "SET", "USE", "DECLARE", "LOCK"),
}
# Statements that read but return no answer from the tables.
_DESCRIBING = {"EXPLAIN", "DESCRIBE", "DESC", "SHOW", "PRAGMA", "ANALYZE"}
_WRITING_LATER = {"INSERT", "UPDATE", "DELETE", "MERGE", "INTO"}
_SHOWN = 100  # characters of a query in a finding
_SYNTAX = ("syntax error", "unrecognized token", "incomplete input")


def check_statement(gold: GoldQuery) -> Finding | None:
    """Return why a gold query is not one statement that reads, or None if it is."""
    words = gold.words
    first = words[0] if words else ""
    if _is_prose(gold, first):
        return gold.finding("gold-not-sql", _shown(gold.sql))
    if ";" in words:
        return gold.finding("gold-several-statements", _shown(gold.sql))
    if first in _WRITING | _DESCRIBING or _writes_later(gold):
        return gold.finding("gold-writes", _shown(gold.sql))
    return None


def syntax_error(gold: GoldQuery) -> Finding | None:
    """Return the syntax error that SQLite finds in a query of its dialect, or None."""
    if gold.dialect != "sqlite" or gold.refusal is None or not any(word in gold.refusal for word in _SYNTAX):
        return None
    return gold.finding("gold-syntax", gold.refusal)


def unparsed(gold: GoldQuery) -> Iterator[Finding]:
    """Yield a finding if sqlglot cannot parse a query. It does not decide where SQLite has compiled the query."""
    if gold.dialect != "sqlite" and statements(gold.sql, gold.dialect) is None:
        place = error_place(gold.sql, gold.dialect) or 0
        yield gold.finding("gold-unparsed", f"at character {place + 1}: {_shown(gold.sql[place:]) or 'the end'}")


def _is_prose(gold: GoldQuery, first: str) -> bool:
    if not gold.tokens:  # an open quote or only comments
        return gold.sql.split(maxsplit=1)[0].upper() not in _READING | _WRITING
    if first not in _READING | _WRITING | _DESCRIBING:
        return True
    # SELECT 'I cannot answer this'
    return first == "SELECT" and len(gold.tokens) == 2 and gold.tokens[1].kind.endswith("STRING")


def _writes_later(gold: GoldQuery) -> bool:
    """Return whether a statement writes after its first word: WITH … INSERT, or SELECT … INTO a table."""
    from sqlglot import expressions as exp

    if not _WRITING_LATER & set(gold.words[1:]):  # avoids parsing most queries
        return False
    tree = parse(gold.sql, gold.dialect)
    return tree is not None and tree.find(exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Into) is not None


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
