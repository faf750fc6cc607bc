"""Fill a collector with the queries of a log and questions that a model writes for them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlquarry.answers import TextGenerator
from sqlquarry.data.database import Database
from sqlquarry.data.proposals.collecting import Collector
from sqlquarry.data.proposals.from_model import described
from sqlquarry.sql.parsing import statements

_BATCH = 16  # queries per call of the generator


def fill(
    collector: Collector, queries: Sequence[str], database: Database, generator: TextGenerator, *, deadline: float
) -> None:
    """Add a record for each query that passes the checks.

    Args:
        collector: keeps the records.
        queries: the queries.
        database: the database.
        generator: the model that writes the questions.
        deadline: the time of `time.monotonic` at which the work ends.
    """
    schema = database.schema_text(values=True)
    personal = {
        column.name.lower() for table in database.tables.values() for column in table.columns if column.personal
    }
    kept = []
    for query in dict.fromkeys(query.strip().rstrip(";").strip() for query in queries):
        if compares_any(query, personal, database.dialect):
            collector.rejected["personal"] += 1
        elif query and time.monotonic() < deadline and collector.accepts(query):
            kept.append(query)
    for start in range(0, len(kept), _BATCH):
        batch = kept[start : start + _BATCH]
        if time.monotonic() > deadline:
            collector.rejected["out of time"] += len(kept) - start
            return
        for question, sql in zip(
            described(batch, generator, schema=schema, dialect=database.dialect), batch, strict=True
        ):
            if question:
                collector.offer(question, sql, "log")
            else:
                collector.rejected["no question"] += 1


def compares_any(sql: str, columns: set[str], dialect: str) -> bool:
    """Return whether a query compares one of the columns with a literal."""
    from sqlglot import expressions as exp

    found = statements(sql, dialect) or ()
    comparisons = (node for tree in found for node in tree.find_all(exp.Predicate) if node.find(exp.Literal))
    return any(column.name.lower() in columns for node in comparisons for column in node.find_all(exp.Column))
