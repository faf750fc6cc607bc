"""Quote the names of tables and columns in SQL that this library writes."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# These dialects fold names without quotes to one case, so names in other cases need quotes. Oracle and Snowflake fold
# to upper case, but SQLAlchemy gives their ordinary names in lower case.
_FOLDED = {"materialize", "oracle", "postgres", "redshift", "risingwave", "snowflake"}
_BACKTICKS = {"bigquery", "clickhouse", "databricks", "doris", "hive", "mysql", "singlestore", "spark", "starrocks"}
# Words that SQLite refuses as a plain name (found by trying all of https://sqlite.org/lang_keywords.html in 3.40), and
# words that are reserved in standard SQL.
_RESERVED = frozenset(
    """add all alter and as asc autoincrement between by case cast check collate column commit constraint create cross
    current_date current_time current_timestamp default deferrable delete desc distinct drop else end escape except
    exists foreign from full grant group having if in index inner insert intersect into is isnull join left like limit
    natural not nothing notnull null offset on or order outer primary raise references returning right select set table
    then to transaction union unique update user using values when where with""".split()  # noqa: SIM905 - a text of words is easier to read and to change
)


# More words that are reserved in PostgreSQL or MySQL, or that sqlglot reads as the start of something else.
_SERVERS_RESERVED = frozenset(
    """accessible analyse analyze any array asensitive asymmetric authorization before bigint binary blob both call
    cascade change char character collation column_name concurrently condition continue convert cube cume_dist
    current_catalog current_role current_schema current_user cursor database databases day_hour day_microsecond
    day_minute day_second dec decimal declare delayed dense_rank desc describe deterministic div do double dual each
    elseif empty enclosed escaped except exit explain false fetch first_value float float4 float8 force freeze fulltext
    function generated get grouping groups high_priority hour_microsecond hour_minute hour_second if ignore ilike
    infile initially inout insensitive int int1 int2 int3 int4 int8 integer interval iterate keys kill lag last_value
    lateral lead leading leave like limit linear lines load localtime localtimestamp lock long longblob longtext loop
    low_priority manual match mediumblob mediumint mediumtext middleint minute_microsecond minute_second mod modifies
    no_write_to_binlog nth_value ntile numeric of only open optimize option optionally out outfile over overlaps
    parallel parse_json partition percent_rank placing precision procedure purge qualify range rank read reads real
    recursive regexp release rename repeat replace require resignal return revoke rlike row row_number rows schema
    schemas second_microsecond sensitive separator session_user show signal similar smallint some spatial specific sql
    sql_big_result sql_calc_found_rows sql_small_result sqlexception sqlstate sqlwarning ssl starting stored
    straight_join summarize symmetric system tablesample terminated tinyblob tinyint tinytext trailing trigger true
    undo unlock unsigned usage use user utc_date utc_time utc_timestamp varbinary varchar varcharacter variadic varying
    verbose virtual while window write xor year_month zerofill""".split()  # noqa: SIM905 - see above
)


def quoted(name: str, dialect: str = "sqlite") -> str:
    """Return a name as an identifier of the dialect, in quotes only if it needs them."""
    reserved = _RESERVED if dialect == "sqlite" else _RESERVED | _SERVERS_RESERVED
    is_folded = dialect in _FOLDED and name != name.lower()
    if _PLAIN.fullmatch(name) and name.lower() not in reserved and not is_folded:
        return name
    if dialect in _BACKTICKS:
        return "`" + name.replace("`", "``") + "`"
    return "[" + name.replace("]", "]]") + "]" if dialect == "tsql" else '"' + name.replace('"', '""') + '"'
