"""Read the tables of a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlquarry.data.database.reader import Reader
from sqlquarry.data.database.tables import Catalog, DatabaseColumn, DatabaseForeignKey, DatabaseTable, table_key
from sqlquarry.errors import ConfigError
from sqlquarry.execution.sandbox import Failure
from sqlquarry.options import did_you_mean

_INSPECTION = f"{__package__}.server_inspection"


def read_server(reader: Reader, schema_names: Sequence[str] | None) -> Catalog | Failure:
    """Return tables and views in the order of their names, or the reason why the server cannot be read.

    Raises:
        ConfigError: a schema does not exist.
    """
    found = reader.inspect(_INSPECTION, json.dumps(schema_names))
    if isinstance(found, Failure):
        return found
    catalog = json.loads(found)
    if missing := catalog.get("missing"):
        meant = did_you_mean(missing[0], catalog["known"])
        raise ConfigError(f"schema_names has {missing[0]!r}, but the server has no such schema{meant}")
    tables = [_table(table) for table in catalog["tables"]]
    notes = [f"not read: {name}, because the account may not read it" for name in catalog["unreadable"]]
    return Catalog({table.full_name: table for table in tables}, tuple(notes))


def _table(found: Mapping[str, Any]) -> DatabaseTable:
    columns = tuple(DatabaseColumn(**column | {"values": tuple(column["values"])}) for column in found["columns"])
    names = {column.name for column in columns}
    return DatabaseTable(
        found["name"],
        columns,
        primary_key=tuple(found["primary_key"]) if names.issuperset(found["primary_key"]) else (),
        foreign_keys=tuple(
            DatabaseForeignKey(tuple(key["columns"]), table_key(key["schema"], key["table"]), tuple(key["targets"]))
            for key in found["foreign_keys"]
            if names.issuperset(key["columns"])
        ),
        comment=found["comment"],
        rows=found["rows"],
        is_view=found["is_view"],
        schema=found["schema"],
    )
