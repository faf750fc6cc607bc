"""Repair the spelling of gold queries: markup, semicolons, typographic characters, quotes and letter case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from sqlquarry.data.checkup.comparisons import comparisons
from sqlquarry.data.checkup.gold_query import GoldQuery, schema_of
from sqlquarry.data.checkup.repairs.literals import quotes_of
from sqlquarry.data.checkup.repairs.rule import RepairRule
from sqlquarry.records import Record
from sqlquarry.sql.double_quotes import quoted_columns
from sqlquarry.sql.parsing import Token, parse, statements, tokens
from sqlquarry.sql.schema import Schema

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_LANGUAGE = r"(?:sql|sqlite3?|mysql|postgres(?:ql)?|pgsql|tsql|plsql|bigquery|snowflake|duckdb)"
_MARKUP = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"\s*(?P<fence>```+|~~~+)[ \t]*(?:\w*[ \t]*\r?\n|{_LANGUAGE}\b)?(?P<sql>(?:(?!```|~~~).)+)(?P=fence)[;\s]*",
        r"\s*\[(?P<tag>SQL)\](?P<sql>(?:(?!\[/?SQL\]).)+)\[/SQL\][;\s]*",
        r"\s*<(?P<tag>sql|query|answer)>(?P<sql>(?:(?!</?(?P=tag)>).)+)</(?P=tag)>[;\s]*",
        r"\s*`(?P<sql>\s*(?:SELECT|WITH)\b[^`]+)`[;\s]*",
        r"\s*(?:SQL|SQL query|query|answer)\s*:\s*(?P<sql>(?:```|\[SQL\]|<sql>|SELECT\b|WITH\b).+)",
    )
)
_CURLY = r"‘(?P<single>[^‘’\n]*)’|[“„](?P<double>[^“”„\n]*)[“”]|’(?P<closing>[^‘’\n]*)’"
# Characters that text programs and translators write instead of those of SQL.
_SIGNS = str.maketrans(
    {"≤": "<=", "≥": ">=", "≠": "<>", "−": "-", "‐": "-", "‑": "-", "⁎": "*", "∗": "*"}
    # The wide forms of Chinese and Japanese keyboards.
    | {chr(ord(sign) + 0xFEE0): sign for sign in "()*+,-;<=>"}
)
_WORD = re.compile(r"\w+")


def _each_gold(change: Callable[[GoldQuery], str], record: Record) -> Record | None:
    golds = [change(GoldQuery(0, record, number)) for number in range(len(record.golds))]
    if tuple(golds) == record.golds:
        return None
    return replace(record, sql=golds[0], alternatives=golds[1:])


def _unwrapped(gold: GoldQuery) -> str:
    for pattern in _MARKUP:
        if found := pattern.fullmatch(gold.sql):
            return found["sql"].strip()
    return gold.sql


def _without_semicolon(gold: GoldQuery) -> str:
    old = gold.sql.rstrip()
    sql = old.rstrip("; \t\r\n")
    in_quotes = any(found.end() == len(old) for found in quotes_of(gold.dialect).finditer(old))
    # A block such as BEGIN … END needs its semicolon.
    return sql if sql != old and not in_quotes and _is_statement(sql, gold.dialect) else gold.sql


def _is_statement(sql: str, dialect: str) -> bool:
    """Return whether the text is a query, or a statement that changes rows."""
    from sqlglot import expressions as exp

    return isinstance(parse(sql, dialect), exp.Query | exp.DML)


def _plain(gold: GoldQuery) -> str:
    if gold.sql.isascii():
        return gold.sql
    found = schema_of(gold.record.schema, gold.dialect)
    tables = found.tables if isinstance(found, Schema) else {}
    names = {name.lower() for key, table in tables.items() for name in (key, *table.columns)}

    def quoted(match: re.Match[str]) -> str:
        if match["double"] is not None and match["double"].lower() in names:
            return f'"{match["double"]}"'
        text = next((match[kind] for kind in ("single", "double", "closing") if match[kind] is not None), None)
        return match[0] if text is None else "'" + text.replace("'", "''") + "'"

    pieces, end = [], 0
    for match in _literals_or_curly(gold.dialect).finditer(gold.sql):
        pieces += [gold.sql[end : match.start()].translate(_SIGNS), quoted(match)]
        end = match.end()
    sql = "".join((*pieces, gold.sql[end:].translate(_SIGNS)))
    return sql if _is_statement(sql, gold.dialect) else gold.sql


@lru_cache(maxsize=64)
def _literals_or_curly(dialect: str) -> re.Pattern[str]:
    return re.compile(f"{quotes_of(dialect).pattern}|{_CURLY}", re.DOTALL)


def _in_single_quotes(gold: GoldQuery) -> str:
    texts = gold.quoted_texts
    if not texts:
        return gold.sql
    misread = set(quoted_columns(gold.sql))
    # In WHERE 1987 = "a", a column was meant, too.
    constant = {
        place for found in comparisons(gold) if found.other is not None for place in (*found.literals, found.other)
    }
    pieces, end = [], 0
    for place in sorted(texts - constant):
        token = gold.tokens[place]
        if token.text not in misread:
            pieces += [gold.sql[end : token.start], "'" + token.text.replace("'", "''") + "'"]
            end = token.end
    return "".join((*pieces, gold.sql[end:]))


def _as_in_schema(gold: GoldQuery) -> str:
    # This test is fast and finds nearly all queries without a difference.
    known = _words(gold.record.schema)
    words = {*_WORD.findall(gold.sql)} - known.keys()
    if not any(word.lower() in known.values() for word in words):
        return gold.sql
    tree = parse(gold.sql, gold.dialect)
    if tree is None:
        return gold.sql
    sql = gold.sql
    for start, end, name in sorted(_renamed(tree, gold), reverse=True):
        sql = f"{sql[:start]}{name}{sql[end:]}"
    return sql


@lru_cache(maxsize=64)
def _words(schema: str) -> dict[str, str]:
    return {word: word.lower() for word in _WORD.findall(schema)}


def _renamed(tree: Expr, gold: GoldQuery) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and the schema's spelling of each name without quotes that is spelled in another case."""
    from sqlglot import expressions as exp

    tables, columns = _spellings(gold.record.schema, gold.dialect)
    aliases = {name.lower() for alias in tree.find_all(exp.Alias, exp.TableAlias) for name in _alias_names(alias)}
    for identifier in tree.find_all(exp.Identifier):
        parent, role = identifier.parent, identifier.arg_key
        is_table = (isinstance(parent, exp.Table) and role == "this") or role == "table"
        is_column = (isinstance(parent, exp.Column) and role == "this") or role == "using"
        spelled = (tables if is_table else columns if is_column else {}).get(identifier.name.lower())
        start, end = identifier.meta.get("start", 0), identifier.meta.get("end", -1)
        if spelled is None or identifier.args.get("quoted") or identifier.name.lower() in aliases:
            continue
        if gold.sql[start : end + 1] == identifier.name != spelled:
            yield start, end + 1, spelled


def _alias_names(alias: Expr) -> Iterator[str]:
    yield alias.alias or alias.name
    yield from (column.name for column in alias.args.get("columns") or ())


@lru_cache(maxsize=512)
def _spellings(schema: str, dialect: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the spellings of tables and of columns by their lower-case names, without those that have several."""
    found: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
    for table, columns in _declared(schema, dialect):
        found[0].setdefault(table.lower(), set()).add(table)
        for column in columns:
            found[1].setdefault(column.lower(), set()).add(column)
    tables, columns_by_name = (
        {key: next(iter(names)) for key, names in group.items() if len(names) == 1} for group in found
    )
    return tables, columns_by_name


def _declared(schema: str, dialect: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each table with its columns as written. In dialects with case-sensitive quotes, quoted names are left out.

    A name that needs quotes is left out too.
    """
    from sqlglot import expressions as exp

    if dialect == "sqlite":
        found = schema_of(schema, dialect)
        for table in found.tables.values() if isinstance(found, Schema) else ():
            yield table.name, [column.name for column in table.columns.values()]
        return
    for statement in statements(schema, dialect) or ():
        if isinstance(statement, exp.Create) and isinstance(statement.this, exp.Schema):
            names = [part.this for part in statement.this.expressions if isinstance(part, exp.ColumnDef)]
            plain = [name.name for name in names if not name.args.get("quoted")]
            table = statement.this.this.this
            if not table.args.get("quoted"):
                yield table.name, plain


def _without_repeats(record: Record) -> Record | None:
    """Drop each alternative that is equal to an earlier gold except for white space, keywords and comments."""
    if not record.alternatives:
        return None
    kept = {_tokens(sql, record.dialect): sql for sql in reversed(record.golds)}
    alternatives = [sql for sql in record.alternatives if sql in kept.values() and sql != record.sql]
    distinct = tuple(dict.fromkeys(alternatives))
    return None if distinct == tuple(record.alternatives) else replace(record, alternatives=distinct)


def _tokens(sql: str, dialect: str) -> tuple[str, ...]:
    found = tokens(sql, dialect)
    return (sql,) if not found else tuple(_spelled(sql, token) for token in found)


def _spelled(sql: str, token: Token) -> str:
    return token.text.upper() if token.any_case else sql[token.start : token.end]


WRAPPED_ANSWER = RepairRule(
    "wrapped-answer",
    "Code fences, [SQL] … [/SQL] and similar marks around a query are removed",
    "The marks enclose the whole answer, and no database accepts them.",
    partial(_each_gold, _unwrapped),
)
RULES = (
    RepairRule(
        "final-semicolon",
        "Semicolons at the end of a query are removed",
        "The rest must be a query or a statement that changes rows, and a semicolon only ends it.",
        partial(_each_gold, _without_semicolon),
    ),
    RepairRule(
        "typographic-characters",
        "Curly quotes and signs such as ≤ outside of literals become those of SQL",
        "A text in curly quotes becomes a literal, or a name if the schema has it, and the result must be a query.",
        partial(_each_gold, _plain),
    ),
    RepairRule(
        "double-quoted-text",
        "Text in double quotes is put into single quotes",
        "SQLite itself reads it as text, because no column, table or alias has this name. A word that must be a "
        "misspelled column stays.",
        partial(_each_gold, _in_single_quotes),
    ),
    RepairRule(
        "letter-case",
        "Tables and columns are spelled as in the schema",
        "Names without quotes have no case, and the schema has one spelling of the name.",
        partial(_each_gold, _as_in_schema),
    ),
    RepairRule(
        "repeated-golds",
        "Alternatives that repeat another gold are removed",
        "They have the same tokens, so they accept no other answer.",
        _without_repeats,
    ),
)
