"""Read live databases: tables, keys, comments and sample values, as text for prompts."""

from sqlquarry.data.database.database import Database
from sqlquarry.data.database.tables import DatabaseColumn, DatabaseForeignKey, DatabaseTable

__all__ = ["Database", "DatabaseColumn", "DatabaseForeignKey", "DatabaseTable"]
