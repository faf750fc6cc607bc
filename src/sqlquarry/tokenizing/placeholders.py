"""Find and fill the placeholders in the wording of a prompt."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence

from sqlquarry.options import did_you_mean

PLACEHOLDERS = ("schema", "question", "dialect", "notes")
# A name in double braces is plain text, because Jinja and str.format use double braces for other purposes.
_PLACEHOLDER = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")
_FILLED = re.compile(r"(?:(?<!\{)\{(?=\w+\})|\{(?=\w+\}(?!\})))(schema|question|dialect|notes)\}")
_FORMATTED = re.compile(r"\{(?:schema|question|dialect|notes)[!:][^{}]*\}")
# The usual spelling of dialect names. Other dialects get sqlglot's name, capitalized.
_DIALECTS = {
    "athena": "Amazon Athena",
    "bigquery": "BigQuery",
    "clickhouse": "ClickHouse",
    "databricks": "Databricks SQL",
    "dax": "DAX",
    "duckdb": "DuckDB",
    "mysql": "MySQL",
    "postgres": "PostgreSQL",
    "postgresql": "PostgreSQL",
    "prql": "PRQL",
    "redshift": "Amazon Redshift",
    "risingwave": "RisingWave",
    "singlestore": "SingleStore",
    "spark": "Spark SQL",
    "sqlite": "SQLite",
    "starrocks": "StarRocks",
    "tsql": "T-SQL",
}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder in a text by its value.

    There is one pass only, so that text in a schema that looks like a placeholder is not replaced.
    """
    return "".join([values[part] if index % 2 else part for index, part in enumerate(_parts(text))])


@functools.lru_cache(maxsize=32)
def _parts(text: str) -> Sequence[str]:
    """Return the constant parts of a text with the names of placeholders between them."""
    return _FILLED.split(text)


@functools.lru_cache(maxsize=32)
def has_notes(text: str) -> bool:
    """Return whether a text contains ``{notes}``."""
    return any(found[1] == "notes" for found in _FILLED.finditer(text))


@functools.lru_cache(maxsize=32)
def without_notes(text: str) -> str:
    """Leave out each line whose only placeholder is ``{notes}``, and the blank lines after it.

    So a label such as "Notes: {notes}" does not remain if there are no notes.
    """
    kept, is_left_out = [], False
    for line in text.split("\n"):
        is_blank = not line.strip()
        is_left_out = {found[1] for found in _FILLED.finditer(line)} == {"notes"} or (is_left_out and is_blank)
        kept += [] if is_left_out else [line]
    shorter = "\n".join(kept)
    return shorter.rstrip() if is_left_out else shorter


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
            hint = meant or "; use {schema}, {question}, {dialect} or {notes}"
            yield f"{name} has the unknown placeholder {{{unknown}}}{hint}"
        for formatted in _FORMATTED.findall(text):
            yield f"{name} has {formatted}, but a placeholder cannot have a format; use only the name in braces"
