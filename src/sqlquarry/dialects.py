"""Names of SQL dialects: sqlglot's names and other common names. sqlglot itself need not be installed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from sqlquarry.errors import ConfigError, SQLQuarryError

# sqlglot's names (`sqlglot.Dialect.classes`). A test compares them.
DIALECTS = frozenset(
    """athena bigquery clickhouse databricks dax doris dremio drill druid duckdb dune exasol fabric hive materialize
    mysql oracle postgres presto prql redshift risingwave singlestore snowflake solr spark spark2 sqlite starrocks
    tableau teradata trino tsql""".split()  # noqa: SIM905 - a text of words is easier to read and to change
)
# Other common names, in lower case and reduced to letters and digits.
ALIASES = {
    "amazonathena": "athena",
    "amazonauroramysql": "mysql",
    "amazonaurorapostgresql": "postgres",
    "amazonredshift": "redshift",
    "apachedoris": "doris",
    "apachedrill": "drill",
    "apachedruid": "druid",
    "apachehive": "hive",
    "apachespark": "spark",
    "auroramysql": "mysql",
    "aurorapostgresql": "postgres",
    "awsathena": "athena",
    "awsredshift": "redshift",
    "azuredatabricks": "databricks",
    "azuresql": "tsql",
    "azuresqlserver": "tsql",
    "azuresynapse": "tsql",
    "bigquerystandardsql": "bigquery",
    "bq": "bigquery",
    "ch": "clickhouse",
    "cockroachdb": "postgres",
    "databrickssql": "databricks",
    "duck": "duckdb",
    "gbq": "bigquery",
    "googlebigquery": "bigquery",
    "googlecloudbigquery": "bigquery",
    "googlesql": "bigquery",
    "googlestandardsql": "bigquery",
    "greenplum": "postgres",
    "hiveql": "hive",
    "mariadb": "mysql",
    "memsql": "singlestore",
    "microsoftfabric": "fabric",
    "microsoftsql": "tsql",
    "microsoftsqlserver": "tsql",
    "microsofttsql": "tsql",
    "ms": "tsql",
    "mssql": "tsql",
    "mssqlserver": "tsql",
    "oracledb": "oracle",
    "oraclemysql": "mysql",
    "oracleplsql": "oracle",
    "oraclesql": "oracle",
    "pg": "postgres",
    "pgsql": "postgres",
    "plpgsql": "postgres",
    "plsql": "oracle",
    "postgre": "postgres",
    "postgresql": "postgres",
    "prestodb": "presto",
    "prestosql": "trino",
    "psql": "postgres",
    "pyspark": "spark",
    "snowsql": "snowflake",
    "spark3": "spark",
    "sparksql": "spark",
    "sqlite3": "sqlite",
    "sqlserver": "tsql",
    "sqlservertsql": "tsql",
    "standardsql": "bigquery",
    "tidb": "mysql",
    "timescaledb": "postgres",
    "transactsql": "tsql",
    "trinodb": "trino",
    "yugabytedb": "postgres",
}
# The end of "MySQL 8.0", "Oracle 19c" and "Snowflake SQL", reduced to letters and digits.
_VERSION = re.compile(r"v?\d+[a-z]{0,2}$")
_SUFFIX = re.compile(r"(sql|database|db)$")


def dialect_name(name: object, refusal: Callable[[str], SQLQuarryError] = ConfigError) -> str:
    """Return sqlglot's name for a dialect, such as ``"postgres"`` for ``"PostgreSQL"`` and ``"pg"``.

    Args:
        name: any common name of the dialect, also with a version, such as "MySQL 8.0".
        refusal: builds the error to raise from its message.

    Raises:
        ConfigError: the dialect is unknown. Another error if `refusal` builds one.
    """
    if isinstance(name, str) and name in DIALECTS:
        return name
    plain = re.sub(r"[^a-z0-9]", "", name.lower()) if isinstance(name, str) else ""
    versionless = _VERSION.sub("", plain)
    for known in (plain, versionless, _SUFFIX.sub("", versionless)):
        if found := known if known in DIALECTS else ALIASES.get(known):
            return found
    near = difflib.get_close_matches(plain, [*sorted(DIALECTS), *ALIASES], n=1, cutoff=0.75)
    meant = f" Did you mean {ALIASES.get(near[0], near[0])!r}?" if near else ""
    raise refusal(f"dialect {name!r:.80} is unknown.{meant} Use one of {', '.join(sorted(DIALECTS))}.")
