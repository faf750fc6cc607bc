"""The schema that people would expect behind a DDL: names that tell entries apart, keys that are met, no odd NULLs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from sqlquarry.judging.synthesis.hints import Hints
from sqlquarry.judging.synthesis.schema import Column, ForeignKey, Schema, Table, parents_first

_ENTRY_NAMES = ("name", "title", "label", "email")
_WHOLE = ("full", "official", "display", "common")
_PARTIAL = ("first", "last", "middle", "family", "given", "f", "l", "m", "sur", "nick", "job", "user")


def expected_schema(schema: Schema, hints: Hints) -> Schema:
    """The same tables under the constraints that their author would have written down, had there been a need to.

    - A table's own id (`id`, `customer_id` in `customer`) is its key, and not NULL.
    - A column of another table that is called like that key, or joined with it, refers to it.
    - The name or title of a table's entries is unique, unless a query takes DISTINCT of it or groups by it.
    - Columns are not NULL, except those that the DDL leaves nullable while it says NOT NULL of others that are not
      keys, and those that a query expects to be NULL (IS NULL, COALESCE, COUNT of the column).

    Rows that only break these rules are legal, but a verdict that rests on them alone is marked.
    """
    keys = {name: key for name, table in schema.tables.items() if (key := _key(table))}
    tables = {}
    for name, table in schema.tables.items():
        links = list(_links(table, schema, keys, hints))
        entry = _entry_name(table, hints) if name in keys else None
        nullable = _says_not_null(table)
        referring = {column.lower() for link in (*table.foreign_keys, *links) for column in link.columns}
        columns = []
        for column in table.columns:
            place = (name, column.name.lower())
            is_key = column.name == keys.get(name)
            named = column is entry or any(column.name.lower().endswith(word) for word in _ENTRY_NAMES)
            may_be_null = place in hints.optional or (nullable and not named and place[1] not in referring)
            columns.append(
                replace(
                    column,
                    required=column.required or is_key or not may_be_null,
                    unique=column.unique or is_key or column is entry,
                )
            )
        tables[name] = Table(table.name, tuple(columns), (*table.foreign_keys, *links))
    return Schema(schema.ddl, parents_first(tables))


def _key(table: Table) -> str | None:
    """The column that numbers a table's rows: one that is declared unique and required, or called like the table."""
    declared = [column.name for column in table.columns if column.unique and column.required]
    if declared:
        return declared[0]
    stem = _bare(table.name)
    known = {"id", *(f"{form}{end}" for form in (stem, stem.rstrip("s")) for end in ("id", "code", "number") if form)}
    found = [column.name for column in table.columns if _bare(column.name) in known]
    return found[0] if len(found) == 1 else None


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _entry_name(table: Table, hints: Hints) -> Column | None:
    """The one column that names the entries of a table, not just part of a person's name."""
    stems = {_bare(table.name), _bare(table.name).rstrip("s")}
    for column in table.columns:
        bare = _bare(column.name)
        word = next((word for word in _ENTRY_NAMES if bare.endswith(word)), "" if bare in stems else None)
        if word is None or column.kind != "text":
            continue
        owner = bare.removesuffix(word)
        whole = owner in ("", *_WHOLE) or any(owner in stem or stem in owner for stem in stems)
        if owner in _PARTIAL:
            continue
        if whole and (table.name.lower(), column.name.lower()) not in hints.repeated:
            return column
    return None


def _says_not_null(table: Table) -> bool:
    """Whether the DDL says NOT NULL of a column that is not a key, so that leaving it out means something."""
    linked = {column.lower() for link in table.foreign_keys for column in link.columns}
    return any(
        column.required and not column.unique and not column.in_key and column.name.lower() not in linked
        for column in table.columns
    )


def _links(table: Table, schema: Schema, keys: dict[str, str], hints: Hints) -> Iterator[ForeignKey]:
    """References that the DDL does not declare."""
    name = table.name.lower()
    declared = {column.lower() for link in table.foreign_keys for column in link.columns}
    for column in table.columns:
        mine = column.name.lower()
        if mine in declared or column.name == keys.get(name):
            continue
        for parent, key in keys.items():
            same = mine == key.lower() != "id" or _bare(mine) in (
                f"{_bare(parent)}id",
                f"{_bare(parent).rstrip('s')}id",
            )
            joined = hints.domain((name, mine)) == hints.domain((parent, key.lower()))
            kinds = {column.kind, next(c.kind for c in schema.tables[parent].columns if c.name == key)}
            if parent != name and (joined or (same and len(kinds) == 1)):
                yield ForeignKey((column.name,), parent, (key,))
                break
