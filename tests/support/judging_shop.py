"""An SQLite database of a shop with a thousand items."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlquarry.records import Record


def create_shop(folder: Path) -> Path:
    """Create the database in a file whose name has to be quoted in a URL."""
    path = folder / "shop #1?.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE item (id INTEGER, name TEXT, price REAL)")
    connection.executemany("INSERT INTO item VALUES (?, ?, ?)", [(i, f"item {i}", i % 3 + 0.1) for i in range(1, 1001)])
    connection.execute("CREATE VIRTUAL TABLE note USING fts5(body)")
    connection.execute("INSERT INTO note VALUES ('hello world')")
    connection.execute("CREATE TABLE broken (x TEXT)")
    connection.executemany("INSERT INTO broken VALUES (CAST(? AS TEXT))", [(b"\xffA",), (b"\xfeA",)])
    connection.commit()
    connection.close()
    return path


def record(sql: str | None, database: str | None = "shop") -> Record:
    """Return a record with this gold SQL."""
    return Record("q", "CREATE TABLE item (id, name, price)", sql, database)
