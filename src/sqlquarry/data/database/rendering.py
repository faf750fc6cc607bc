"""Write the tables of a database as compact CREATE TABLE text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlquarry.data.database.quoting import quoter, written_table, written_type
from sqlquarry.data.database.tables import DatabaseColumn, DatabaseTable, Value
from sqlquarry.text import visible

_COMMENT_MARK = re.compile(r"(?<=\*)(?=/)|(?<=/)(?=\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStyle:
    """What the text of a schema contains.

    Args:
        keys: write primary and foreign keys.
        comments: write the database's comments as SQL comments.
        most_values: write the values of columns that have at most this many distinct values, as SQL comments.
        examples: number of example values of the other columns.
    """

    keys: bool = True
    comments: bool = True
    most_values: int = 0
    examples: int = 0


def schema_text(tables: Collection[DatabaseTable], dialect: str, style: SchemaStyle) -> str:
    """Return one CREATE TABLE statement per table or view, each in one line.

    A reference of one column follows its type, because that is the shortest form. A reference to a table that is not
    among `tables` is left out.
    """
    names = {table.full_name: written_table(table, dialect) for table in tables}
    return "\n".join(
        f"CREATE TABLE {names[table.full_name]}{_note(table.comment if style.comments else '')} "
        f"({', '.join(_parts(table, names, dialect, style))});"
        for table in tables
    )


def _parts(table: DatabaseTable, names: Mapping[str, str], dialect: str, style: SchemaStyle) -> Iterator[str]:
    """Yield the definitions of columns, and the keys of several columns."""
    quote = quoter(dialect)

    def listed(columns: Sequence[str]) -> str:
        return f"({', '.join(map(quote, columns))})"

    keys = [key for key in table.foreign_keys if style.keys and key.table in names]
    references = [(key, f"REFERENCES {names[key.table]} {listed(key.targets)}".removesuffix(" ()")) for key in keys]
    for column in table.columns:
        words = [quote(column.name), written_type(column.type, dialect)]
        words += ["PRIMARY KEY"] if style.keys and table.primary_key == (column.name,) else []
        words += [text for key, text in references if key.columns == (column.name,)]
        yield " ".join(filter(None, words)) + _note(_about(column, style))
    if style.keys and len(table.primary_key) > 1:
        yield f"PRIMARY KEY {listed(table.primary_key)}"
    for key, text in references:
        if len(key.columns) > 1:
            yield f"FOREIGN KEY {listed(key.columns)} {text}"


def _note(text: str) -> str:
    """Return a blank and a text as an SQL comment in one line, or "" without text."""
    text = _COMMENT_MARK.sub(" ", visible(" ".join(text.split())))
    return f" /* {text} */" if text else ""


def _about(column: DatabaseColumn, style: SchemaStyle) -> str:
    """Return what the comment of a column contains: its comment and its values."""
    texts = [column.comment] if style.comments else []
    if 0 < len(column.values) <= style.most_values:
        texts.append(", ".join(map(literal, column.values)))
    elif examples := column.examples[: style.examples]:
        texts.append(", ".join([*map(literal, examples), "…"]))
    return "; ".join(filter(None, texts))


def literal(value: Value) -> str:
    """Return a value as an SQL literal."""
    if isinstance(value, int | float | Decimal):
        return str(value)
    return "'" + value.replace("'", "''") + "'"
