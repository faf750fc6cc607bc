"""Find and fill the placeholders in the wording of a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sqlquarry.options import did_you_mean

PLACEHOLDERS = ("schema", "question", "dialect")
# A name in double braces is plain text, because Jinja and str.format use double braces for other purposes.
_PLACEHOLDER = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")
_FILLED = re.compile(r"(?:(?<!\{)\{(?=\w+\})|\{(?=\w+\}(?!\})))(schema|question|dialect)\}")
_FORMATTED = re.compile(r"\{(?:schema|question|dialect)[!:][^{}]*\}")
# The usual spelling of dialect names. Other dialects get sqlglot's name, capitalized.
_DIALECTS = {
    "athena": "Amazon Athena",
    "bigquery": "BigQuery",
    "clickhouse": "ClickHouse",
    "databricks": "Databricks SQL",
    "duckdb": "DuckDB",
    "mysql": "MySQL",
    "postgres": "PostgreSQL",
    "postgresql": "PostgreSQL",
    "redshift": "Amazon Redshift",
    "spark": "Spark SQL",
    "sqlite": "SQLite",
    "tsql": "T-SQL",
}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder in a text by its value.

    There is one pass only, so that text in a schema that looks like a placeholder is not replaced.
    """
    return _FILLED.sub(lambda found: values[found[1]], text)


def spelled_dialect(name: str) -> str:
    """Return the usual spelling of sqlglot's name of a dialect, such as "PostgreSQL"."""
    return _DIALECTS.get(name.lower(), name.capitalize())


def placeholder_problems(system: str, user: str) -> Iterator[str]:
    """Yield what is wrong with the placeholders of a system message and a user message."""
    found = {name: {one[1] for one in _FILLED.finditer(text)} for name, text in (("system", system), ("user", user))}
    if "schema" not in found["system"] | found["user"]:
        yield f"system or user must contain {{schema}}, but system is {system!r}"
    if "question" not in found["user"]:
        yield f"user must contain {{question}}, but is {user!r}"
    for name, text in (("system", system), ("user", user)):
        for unknown in sorted({found[1] for found in _PLACEHOLDER.finditer(text)} - {*PLACEHOLDERS}):
            meant = did_you_mean(f"{{{unknown}}}", [f"{{{name}}}" for name in PLACEHOLDERS])
            hint = meant or "; use {schema}, {question} or {dialect}"
            yield f"{name} has the unknown placeholder {{{unknown}}}{hint}"
        for formatted in _FORMATTED.findall(text):
            yield f"{name} has {formatted}, but a placeholder cannot have a format; use only the name in braces"
