"""Normal forms of schemas, queries and questions. Two texts have the same form if a model learns the same from them.

Computing a form takes microseconds, needs no parser and works for any text. Texts with different meanings may get the
same form, which only keeps two records together. Two spellings of one text must never get different forms.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Quoted text comes first, because "--" within quotes does not start a comment.
_COMMENT = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)|(?:--|#(?=\s))[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL)
_STRING = re.compile(r"'(?:[^']|'')*'?")
_QUOTED = re.compile(r"""('(?:[^']|'')*'?)|"((?:[^"]|"")*)"|`([^`]*)`|\[([^\[\]]*)\]""")
_PLAIN = r"[^\W\d]\w*|[<>=!|]+|[^\w\s;']"
_LITERAL = r"\d[\w.]*|'(?:[^']|'')*'?"
_TOKEN = re.compile(f"{_PLAIN}|{_LITERAL}")
_TOKEN_OR_LITERAL = re.compile(f"({_PLAIN})|{_LITERAL}")  # `findall` returns "" for a literal.
_WORD = re.compile(r"\w+")
_NAME = re.compile(r"[^\W\d]\w*")

# Words of a schema that are not names of tables or columns: statements, constraints and types.
_SCHEMA_WORDS = frozenset(
    """add alter always auto_increment autoincrement bigint bigserial binary bit blob bool boolean by bytea cascade char
    character charset check collate comment constraint create date datetime db dbo decimal default deferrable delete
    double engine exists float float4 float8 foreign generated identity if index innodb int int2 int4 int8 integer json
    jsonb key long longblob longtext mediumint mediumtext money nchar no not ntext null number numeric nvarchar on
    precision primary public real references restrict serial set smallint smallserial string table temp temporary text
    time timestamp timestamptz tinyint tinytext unique unsigned update utf8 utf8mb4 uuid varbinary varchar varchar2
    varying with without year zone
    array bytes clob cluster clustered datetime2 drop enum float64 go insert int64 interval into nonclustered nvarchar2
    uniqueidentifier use values""".split()  # noqa: SIM905 - a text of words is easier to read and to change
)
# Words that can follow a table or a column in a query and are not its alias.
_KEYWORDS = (
    "and|as|asc|between|by|case|collate|cross|desc|else|end|escape|except|fetch|filter|for|from|full|glob|group|having|"
    "ilike|in|inner|intersect|is|join|lateral|left|like|limit|minus|natural|not|nulls|offset|on|or|order|outer|over|"
    "partition|qualify|regexp|right|select|set|similar|tablesample|then|union|using|when|where|window|with"
)
# These patterns expect a text in which one space separates two tokens.
_QUALIFIER = re.compile(r"(?<!\S)\w+ \. ")
_ALIAS = re.compile(rf" as (?!(?:{_KEYWORDS})\b)(\w+)(?!\S)")
_BARE_ALIAS = re.compile(rf"((?<!\S)(?:from|join|,) (?!(?:{_KEYWORDS})\b)\w+) (?!(?:{_KEYWORDS})\b)(\w+)(?!\S)")
_SIGN = re.compile(r"((?:[=<>(,*/-]|and|between|else|limit|offset|then|select|when|where) )[-+] \?")
_TYPED = re.compile(r"(?<!\S)(?:[benx]|date|time|timestamp) \? ")  # N'text' and DATE '2020-01-01'
_BOOLEAN = re.compile(r"(?<!\S)(?:true|false)(?!\S)")
_LIST = re.compile(r"\? (?:, \? )+")
_SAME = {
    " <> ": " != ",
    " == ": " = ",
    " inner join ": " join ",
    " outer join ": " join ",
    " asc ": " ",
    " . ? ": " ? ",
}
# Words that do not change the meaning of a question.
_FILLERS = frozenset(["a", "all", "an", "me", "of", "please", "the"])
# Quoted text. A quote within a word is an apostrophe.
_VALUE = re.compile(r"""(?<!\w)(?:'[^']*'(?!\w)|"[^"]*"|“[^”]*”)""")


def schema_form(schema: str) -> str:
    """Return the sorted names in a schema. Case, quotes, comments, types, constraints and literals are dropped."""
    # A text without names is only equal to itself.
    return " ".join(sorted({*_names(schema)} - _SCHEMA_WORDS)) or " ".join(schema.lower().split())


def query_form(sql: str, schema: str = "", *, literals: bool = False) -> str:
    """Return a query's tokens without case, quotes, comments, aliases, qualifiers and optional words.

    ``SELECT T1."Name" FROM head AS T1 WHERE T1.age > 56;`` becomes ``select name from head where age > ?``.

    Args:
        sql: the query.
        schema: the schema of the database. A text in double quotes is a name if it occurs here and a literal otherwise,
            because SQLite and MySQL accept both.
        literals: keep each literal. By default ``?`` replaces a literal or a list of literals.
    """
    text = _without_comments(sql.lower())
    if '"' in text or "`" in text or "[" in text:
        text = _QUOTED.sub(lambda found: _name_or_literal(found, schema), text)
    if literals:
        text = " ".join([token.replace(" ", "_") for token in _TOKEN.findall(text)]) + " "
    else:
        text = " ".join(_TOKEN_OR_LITERAL.findall(text)).replace("  ", " ? ") + " "
        text = text.replace("  ", " ? ")  # literals at the end or next to each other
        if "'" in sql:
            text = _TYPED.sub("? ", text)
        if " true " in text or " false " in text:
            text = _BOOLEAN.sub("?", text)
    for spelling, same in _SAME.items():
        if spelling in text:
            text = text.replace(spelling, same)
    if " . " in text or " as " in text:
        text = _without_aliases(text)
    if " - ? " in text or " + ? " in text:
        text = _SIGN.sub(r"\1?", text)
    return (_LIST.sub("? ", text) if "? , ?" in text else text).rstrip()


def question_form(question: str, *, values: bool) -> frozenset[str]:
    """Return the words of a question without case, punctuation and filler words.

    Args:
        question: the question.
        values: keep numbers and quoted text.
    """
    text = question.lower()
    words = _WORD.findall(text)
    if not values:
        words = [word for word in _WORD.findall(_VALUE.sub(" ", text)) if not word.isdigit()] or words
    return frozenset(words) - _FILLERS or frozenset(words or [text.strip()])


def _names(schema: str) -> list[str]:
    text = _without_comments(schema.lower())
    return _NAME.findall(_STRING.sub(" ", text) if "'" in text else text)


@lru_cache(maxsize=64)  # records of one schema often follow each other
def _words(schema: str) -> frozenset[str]:
    return frozenset(_names(schema))


def _without_comments(text: str) -> str:
    if "--" not in text and "/*" not in text and "#" not in text:
        return text
    return _COMMENT.sub(lambda found: found[1] or " ", text)


def _name_or_literal(found: re.Match[str], schema: str) -> str:
    string, double, backtick, bracket = found.groups()
    if string is not None:
        return str(string)
    text = double or backtick or bracket or ""
    if double is not None and not ((names := _NAME.findall(text)) and _words(schema).issuperset(names)):
        return " '" + double.replace("'", "''") + "' "
    return f" {'_'.join(_WORD.findall(text))} "  # A name of several words becomes one token too.


def _without_aliases(text: str) -> str:
    text = _QUALIFIER.sub("", text)
    aliases = {*_ALIAS.findall(text)}
    text = _ALIAS.sub("", text)
    aliases.update(alias for _, alias in _BARE_ALIAS.findall(text))
    text = _BARE_ALIAS.sub(r"\1", text)
    return " ".join(["?" if word in aliases else word for word in text.split(" ")])
