"""Write the tables of a database as compact CREATE TABLE text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from sqlquarry.data.database.tables import DatabaseColumn, DatabaseTable, Value

_COMMENT_END = re.compile(r"\*/|/\*")


def schema_text(
    tables: Iterable[DatabaseTable],
    quote: Callable[[str], str],
    *,
    keys: bool,
    comments: bool,
    most_values: int,
    examples: int,
) -> str:
    """Return one CREATE TABLE statement per table, each in one line.

    Args:
        tables: tables and views.
        quote: returns a name as an identifier.
        keys: write primary and foreign keys.
        comments: write the database's comments as SQL comments.
        most_values: write the values of columns that have at most this many distinct values, as SQL comments.
        examples: number of example values of the other columns.
    """
    tables = list(tables)
    named = {table.full_name: table for table in tables}

    def full(table: DatabaseTable) -> str:
        return f"{quote(table.schema)}.{quote(table.name)}" if table.schema else quote(table.name)

    lines = []
    for table in tables:
        parts = []
        single_key = keys and len(table.primary_key) == 1
        for column in table.columns:
            words = [quote(column.name), column.type]
            words += ["PRIMARY KEY"] if single_key and column.name == table.primary_key[0] else []
            words += [comment(notes)] if (notes := _notes(column, comments, most_values, examples)) else []
            parts.append(" ".join(filter(None, words)))
        if keys and len(table.primary_key) > 1:
            parts.append(f"PRIMARY KEY ({', '.join(map(quote, table.primary_key))})")
        for key in table.foreign_keys if keys else ():
            if key.table in named:
                targets = f" ({', '.join(map(quote, key.targets))})" if key.targets else ""
                columns = ", ".join(map(quote, key.columns))
                parts.append(f"FOREIGN KEY ({columns}) REFERENCES {full(named[key.table])}{targets}")
        about = f" {comment(table.comment)}" if comments and table.comment else ""
        lines.append(f"CREATE TABLE {full(table)}{about} ({', '.join(parts)});")
    return "\n".join(lines)


def comment(text: str) -> str:
    """Return a text as an SQL comment in one line."""
    text = _COMMENT_END.sub(lambda found: " ".join(found[0]), " ".join(text.split()))
    return f"/* {text} */"


def literal(value: Value) -> str:
    """Return a value as an SQL literal."""
    if isinstance(value, int | float | Decimal):
        return str(value)
    return "'" + value.replace("'", "''") + "'"


def _notes(column: DatabaseColumn, comments: bool, most_values: int, examples: int) -> str:
    notes = [column.comment] if comments and column.comment else []
    values: Sequence[Value] = ()
    if 0 < len(column.values) <= most_values:
        values = column.values
    elif examples:
        values = column.examples[:examples]
    more = ", …" if values and values is not column.values else ""
    return "; ".join([*notes, *([", ".join(map(literal, values)) + more] if values else [])])
