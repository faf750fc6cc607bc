"""Read live databases: tables, keys, comments and sample values, as text for prompts."""

from sqlquarry.data.database.database import Database
from sqlquarry.data.database.tables import DatabaseColumn, DatabaseForeignKey, DatabaseTable
from sqlquarry.data.database.value_index import MatchedValue

__all__ = ["Database", "DatabaseColumn", "DatabaseForeignKey", "DatabaseTable", "MatchedValue"]
