"""Quote names of tables and columns in the dialect of a database, only if they need it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from sqlquarry.data.database.tables import DatabaseTable
from sqlquarry.data.identifiers import quoted

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_TYPE = re.compile(r"[A-Za-z_]\w*(?: [A-Za-z_]\w*)* ?(?:\( ?\d+ ?(?:, ?\d+ ?)?\))?", re.ASCII)
# These dialects fold names without quotes to one case, so names in other cases need quotes. Oracle and Snowflake fold
# to upper case, but SQLAlchemy gives their ordinary names in lower case.
_FOLDED = {"materialize", "oracle", "postgres", "redshift", "risingwave", "snowflake"}
_BACKTICKS = {"bigquery", "clickhouse", "databricks", "doris", "hive", "mysql", "singlestore", "spark", "starrocks"}
# Words that PostgreSQL 15 or DuckDB 2.0 refuses as a plain name, or that sqlglot 28 reads as something else, found by
# trying all keywords of these and of MySQL. They are in addition to the words of `quoted`.
_RESERVED = frozenset(
    """analyse analyze anti any array asof asymmetric at authorization begin binary both collation concurrently
    current_catalog current_role current_schema current_user describe do exclude false fetch for force freeze function
    glob ilike initially install lambda lateral leading localtime localtimestamp macro map only option overlaps
    partitioned_by pivot pivot_longer pivot_wider placing positional prior qualify regexp revoke rlike rollback sample
    semi session_user show similar some summarize symmetric tablesample trailing true uncache unpack unpivot variadic
    verbose window xor""".split()  # noqa: SIM905 - a text of words is easier to read and to change
)
_SQLALCHEMY_NAMES = {"tsql": "mssql"}
_OWN_WORDS = {"duckdb", "postgres", "redshift"}  # dialects whose words are all in `_RESERVED`


@lru_cache
def quoter(dialect: str) -> Callable[[str], str]:
    """Return the function that writes a name as an identifier of this dialect."""
    if dialect == "sqlite":
        return quoted
    opening, closing = "[]" if dialect == "tsql" else "``" if dialect in _BACKTICKS else '""'
    reserved = _RESERVED if dialect in _OWN_WORDS else _RESERVED | _words_of_sqlalchemy(dialect)

    def quote(name: str) -> str:
        is_folded = dialect in _FOLDED and name != name.lower()
        # `quoted` changes a plain name only if it is reserved in standard SQL.
        if _PLAIN.fullmatch(name) and name.lower() not in reserved and not is_folded and quoted(name) == name:
            return name
        return opening + name.replace(closing, 2 * closing) + closing

    return quote


def written_table(table: DatabaseTable, dialect: str) -> str:
    """Return the name of a table as an identifier, after its schema if that is not the default one."""
    quote = quoter(dialect)
    return f"{quote(table.schema)}.{quote(table.name)}" if table.schema else quote(table.name)


def written_type(type_: str, dialect: str) -> str:
    """Return a type as it is written in CREATE TABLE. SQLite accepts any text in quotes as a type."""
    if dialect != "sqlite" or not type_:
        return type_
    words = _WORD.findall(type_)
    is_plain = _TYPE.fullmatch(type_) and "generated" not in type_.lower()
    return type_ if is_plain and all(quoted(word) == word for word in words) else '"' + type_.replace('"', '""') + '"'


@lru_cache
def _words_of_sqlalchemy(dialect: str) -> frozenset[str]:
    """Return the reserved words that SQLAlchemy knows for a server. Its package is there if the server can be read."""
    from sqlalchemy.dialects import registry
    from sqlalchemy.dialects.mysql import reserved_words
    from sqlalchemy.exc import NoSuchModuleError

    if dialect == "mysql":
        return frozenset(reserved_words.RESERVED_WORDS_MYSQL | reserved_words.RESERVED_WORDS_MARIADB)
    try:
        words = registry.load(_SQLALCHEMY_NAMES.get(dialect, dialect)).preparer.reserved_words
    except (NoSuchModuleError, ImportError):
        return frozenset()
    return frozenset(words)
