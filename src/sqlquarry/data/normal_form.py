"""Normal forms of schemas, queries and questions: keys that are equal where a model learns the same from both texts.

They take microseconds, need no parser and accept any text. They may make two texts equal that differ in meaning, which
only keeps two records together; two spellings of one text must not differ.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Quoted text first, because "--" within quotes begins no comment.
_COMMENT = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)|(?:--|#(?=\s))[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL)
_STRING = re.compile(r"'(?:[^']|'')*'?")
_QUOTED = re.compile(r"""('(?:[^']|'')*'?)|"((?:[^"]|"")*)"|`([^`]*)`|\[([^\[\]]*)\]""")
_PLAIN = r"[^\W\d]\w*|[<>=!|]+|[^\w\s;']"
_LITERAL = r"\d[\w.]*|'(?:[^']|'')*'?"
_TOKEN = re.compile(f"{_PLAIN}|{_LITERAL}")
_TOKEN_OR_LITERAL = re.compile(f"({_PLAIN})|{_LITERAL}")  # finds a literal as ""
_WORD = re.compile(r"\w+")
_NAME = re.compile(r"[^\W\d]\w*")

# Statements, constraints and types: the words of a schema that name nothing.
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
# Words that follow a table or a column in a query without being its alias.
_KEYWORDS = (
    "and|as|asc|between|by|case|collate|cross|desc|else|end|escape|except|fetch|filter|for|from|full|glob|group|having|"
    "ilike|in|inner|intersect|is|join|lateral|left|like|limit|minus|natural|not|nulls|offset|on|or|order|outer|over|"
    "partition|qualify|regexp|right|select|set|similar|tablesample|then|union|using|when|where|window|with"
)
# These read a text in which one space separates two tokens.
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
# Words that change no question.
_FILLERS = frozenset(["a", "all", "an", "me", "of", "please", "the"])
# A quote within a word is an apostrophe.
_VALUE = re.compile(r"""(?<!\w)(?:'[^']*'(?!\w)|"[^"]*"|“[^”]*”)""")


def schema_form(schema: str) -> str:
    """Return the names in a schema, sorted, without case, quotes, comments, types, constraints and literals."""
    # A text that names nothing is equal to itself alone.
    return " ".join(sorted({*_names(schema)} - _SCHEMA_WORDS)) or " ".join(schema.lower().split())


def query_form(sql: str, schema: str = "", *, literals: bool = False) -> str:
    """Return a query's tokens without case, quotes, comments, aliases, qualifiers, and words that may be left out.

    ``SELECT T1."Name" FROM head AS T1 WHERE T1.age > 56;`` becomes ``select name from head where age > ?``.

    Args:
        sql: the query.
        schema: what it runs on. A text in double quotes is a literal unless it occurs here; SQLite and MySQL read it
            in either way.
        literals: keep each literal; by default ``?`` takes its place, and that of a list of them.
    """
    text = _without_comments(sql.lower())
    if '"' in text or "`" in text or "[" in text:
        text = _QUOTED.sub(lambda found: _name_or_literal(found, schema), text)
    if literals:
        text = " ".join([token.replace(" ", "_") for token in _TOKEN.findall(text)]) + " "
    else:
        text = " ".join(_TOKEN_OR_LITERAL.findall(text)).replace("  ", " ? ") + " "
        text = text.replace("  ", " ? ")  # a literal at the end, or one after another
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
    """Return the words of a question without case, punctuation and fillers.

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
    return f" {'_'.join(_WORD.findall(text))} "  # one token, also for a name of several words


def _without_aliases(text: str) -> str:
    text = _QUALIFIER.sub("", text)
    aliases = {*_ALIAS.findall(text)}
    text = _ALIAS.sub("", text)
    aliases.update(alias for _, alias in _BARE_ALIAS.findall(text))
    text = _BARE_ALIAS.sub(r"\1", text)
    return " ".join(["?" if word in aliases else word for word in text.split(" ")])
