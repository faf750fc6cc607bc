"""Derives the constraints that people expect beyond the DDL: unique names, foreign keys, no unexpected NULLs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from sqlquarry.judging.synthesis.hints import Hints
from sqlquarry.sql.schema import Column, ForeignKey, Schema, Table, parents_first

_ENTRY_NAMES = ("name", "title", "label", "email")
_WHOLE = ("full", "official", "display", "common")
_PARTIAL = ("first", "last", "middle", "family", "given", "f", "l", "m", "sur", "nick", "job", "user")


def expected_schema(schema: Schema, hints: Hints) -> Schema:
    """Return the schema with the additional constraints that its author probably took for granted.

    - The id of a table (`id`, or `customer_id` in `customer`) is its key and is not NULL.
    - A column of another table that has the same name as this key or is joined with it refers to the key.
    - The name or title of the entries in a table is unique, unless a query uses it in DISTINCT or groups by it.
    - Columns are not NULL, with two exceptions: nullable columns, if the DDL declares other columns that are not keys
      as NOT NULL, and columns that a query expects to be NULL (IS NULL, COALESCE, COUNT of the column).

    Rows that violate only these rules are legal, but a verdict that depends on such rows alone is marked.
    """
    keys = {name: key for name, table in schema.tables.items() if (key := _key(table))}
    tables = {}
    for name, table in schema.tables.items():
        links = list(_links(table, schema, keys, hints))
        entry = _entry_name(table, hints) if name in keys else None
        nullable = _says_not_null(table)
        referring = {column for link in (*table.foreign_keys, *links) for column in link.columns}
        columns = {}
        for folded, column in table.columns.items():
            is_key = folded == keys.get(name)
            named = column is entry or any(folded.endswith(word) for word in _ENTRY_NAMES)
            may_be_null = (name, folded) in hints.optional or (nullable and not named and folded not in referring)
            columns[folded] = replace(
                column,
                not_null=column.required or is_key or not may_be_null,
                unique=column.unique or is_key or column is entry,
            )
        tables[name] = replace(table, columns=columns, foreign_keys=(*table.foreign_keys, *links))
    return replace(schema, tables=parents_first(tables))


def _key(table: Table) -> str | None:
    """Return the column that identifies the rows: one that is unique and required, or an id named like the table."""
    declared = [name for name, column in table.columns.items() if column.unique and column.required]
    if declared:
        return declared[0]
    stem = _bare(table.name)
    known = {"id", *(f"{form}{end}" for form in (stem, stem.rstrip("s")) for end in ("id", "code", "number") if form)}
    found = [name for name in table.columns if _bare(name) in known]
    return found[0] if len(found) == 1 else None


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _entry_name(table: Table, hints: Hints) -> Column | None:
    """Return the column with the names of a table's entries. It must not be only part of a person's name."""
    stems = {_bare(table.name), _bare(table.name).rstrip("s")}
    for name, column in table.columns.items():
        bare = _bare(name)
        word = next((word for word in _ENTRY_NAMES if bare.endswith(word)), "" if bare in stems else None)
        if word is None or column.kind != "text":
            continue
        owner = bare.removesuffix(word)
        whole = owner in ("", *_WHOLE) or any(owner in stem or stem in owner for stem in stems)
        if owner in _PARTIAL:
            continue
        if whole and (table.name.lower(), name) not in hints.repeated:
            return column
    return None


def _says_not_null(table: Table) -> bool:
    """Return whether the DDL uses NOT NULL for columns that are not keys, so that its absence has a meaning."""
    linked = {column for link in table.foreign_keys for column in link.columns}
    return any(
        column.required and not column.unique and not column.in_key and name not in linked
        for name, column in table.columns.items()
    )


def _links(table: Table, schema: Schema, keys: dict[str, str], hints: Hints) -> Iterator[ForeignKey]:
    """Yield the foreign keys that the DDL does not declare."""
    name = table.name.lower()
    declared = {column for link in table.foreign_keys for column in link.columns}
    for folded, column in table.columns.items():
        if folded in declared or folded == keys.get(name):
            continue
        for parent, key in keys.items():
            names = (f"{_bare(parent)}id", f"{_bare(parent).rstrip('s')}id")
            same_name = folded == key != "id" or _bare(folded) in names
            same_kind = column.kind == schema.column((parent, key)).kind
            joined = hints.domain((name, folded)) == hints.domain((parent, key))
            if parent != name and (joined or (same_name and same_kind)):
                yield ForeignKey((folded,), parent, (key,))
                break
