"""Hold one gold query with what several checks need to know about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache

from sqlquarry.data.checkup.findings import Finding
from sqlquarry.errors import JudgingError
from sqlquarry.records import Record
from sqlquarry.sql.ddl import read_schema
from sqlquarry.sql.memory_database import memory_database
from sqlquarry.sql.parsing import Token, tokens
from sqlquarry.sql.portable_ddl import schema_in_sqlite
from sqlquarry.sql.schema import Column, Schema

_VIEW = re.compile(r"\bCREATE\s+(?:OR\s+REPLACE\s+|TEMP\s+|TEMPORARY\s+)?VIEW\b", re.IGNORECASE)
# SQLite expands queries in WITH and FROM while it compiles. Beyond this number, that can take exponential time.
_MOST_SELECTS = 24
_SELECT = re.compile(r"\bselect\b", re.IGNORECASE)
_BEFORE_VALUES = {"=", "<>", "<", ">", "<=", ">=", "IS", "LIKE", "GLOB", "BETWEEN"}
_TOO_LARGE = ("string or blob too big", "query string is too large", "out of memory", "interrupted")


class GoldQuery:
    """One gold query of one record.

    Args:
        place: position of the record.
        record: the record.
        number: 0 for `record.sql`, and the number of the alternative otherwise.
    """

    def __init__(self, place: int, record: Record, number: int) -> None:
        self.place, self.record, self.number = place, record, number
        self.sql = record.golds[number]
        self.dialect = record.dialect

    def finding(self, kind: str, detail: str = "") -> Finding:
        """Return a finding about this query."""
        return Finding(kind, (self.place,), f"alternative {self.number}: {detail}" if self.number else detail)

    @cached_property
    def tokens(self) -> list[Token]:
        """The tokens, or [] if a quote is not closed."""
        return tokens(self.sql, self.dialect) or []

    @cached_property
    def words(self) -> list[str]:
        """Each keyword, name of a function and symbol in upper case, and "" for other tokens."""
        return [
            token.text.upper() if token.kind == "word" and self.sql[token.start] not in '"`[' else ""
            for token in self.tokens
        ]

    @cached_property
    def schema(self) -> Schema | None:
        """The schema of the record, or None if its text declares no table that can be read."""
        found = schema_of(self.record.schema, self.dialect)
        return found if isinstance(found, Schema) else None

    @property
    def has_whole_schema(self) -> bool:
        """Whether the schema was read with all views that its text declares."""
        return self.schema is not None and len(_VIEW.findall(self.record.schema)) <= len(self.schema.views)

    @cached_property
    def refusal(self) -> str | None:
        """The message with which SQLite refuses to compile the query on its schema, or None.

        Without a readable schema, SQLite only checks the syntax.
        """
        return self.refusal_of(self.sql)

    def refusal_of(self, sql: str) -> str | None:
        """Return the message with which SQLite refuses to compile a variant of the query, or None."""
        if len(_SELECT.findall(sql)) > _MOST_SELECTS:
            return None
        refusal = memory_database(self.schema.ddl if self.schema else ()).refusal(sql)
        return None if refusal is None or refusal.startswith(_TOO_LARGE) else refusal

    @cached_property
    def quoted_texts(self) -> frozenset[int]:
        """Indices of the tokens in double quotes that SQLite reads as text, because no name is spelled that way.

        See https://sqlite.org/quirks.html#dblquote. Empty in other dialects.
        """
        if self.dialect != "sqlite" or '"' not in self.sql:
            return frozenset()
        return frozenset(place for place in self.double_quoted if self._is_text(place))

    @cached_property
    def double_quoted(self) -> list[int]:
        """Indices of the tokens in double quotes that are not literals in the dialect."""
        return [
            place for place, token in enumerate(self.tokens) if token.kind == "word" and self.sql[token.start] == '"'
        ]

    def _is_text(self, place: int) -> bool:
        token, around = self.tokens[place], self.words[max(place - 1, 0) : place + 2]
        if "." in around:
            return False
        if around[0] in _BEFORE_VALUES and not self._is_elsewhere(place):
            return True  # avoids compiling most queries
        if self.refusal is not None:
            return False
        name = "`" + token.text.replace("`", "``") + "`"  # SQLite never reads these quotes as text.
        refusal = self.refusal_of(f"{self.sql[: token.start]}{name}{self.sql[token.end :]}")
        return refusal is not None and refusal.startswith("no such column")

    @cached_property
    def _names(self) -> frozenset[str]:
        """The words of the query in lower case, without those in double quotes behind an operator."""
        before = ["", *self.words]
        return frozenset(
            token.text.lower()
            for token, word, last in zip(self.tokens, self.words, before, strict=False)
            if token.kind == "word" and (word or last not in _BEFORE_VALUES)
        )

    def _is_elsewhere(self, place: int) -> bool:
        """Return whether the text of a token is also in the schema or another word of the query."""
        name = self.tokens[place].text.lower()
        return name in self._names or name in self.record.schema.lower()

    def is_text(self, place: int) -> bool:
        """Return whether the token at an index is text, in whatever quotes."""
        return self.tokens[place].kind.endswith("STRING") or place in self.quoted_texts

    def is_number(self, place: int) -> bool:
        """Return whether the token at an index is a number."""
        return self.tokens[place].kind == "NUMBER"

    def is_name(self, place: int) -> bool:
        """Return whether the token at an index is the name of a column or table, or a function."""
        token = self.tokens[place]
        if token.kind != "word" or place in self.quoted_texts or not token.text:
            return False
        return self.sql[token.start] in '"`[' or token.text[0].isalpha() or token.text[0] == "_"

    @cached_property
    def named(self) -> frozenset[str]:
        """All words of the query in lower case, with or without quotes."""
        return frozenset(token.text.lower() for token in self.tokens if token.kind == "word")

    def columns(self, name: str) -> list[Column]:
        """Return the columns with this name in the tables that the query names."""
        tables = self.schema.tables if self.schema else {}
        return [
            table.columns[name.lower()]
            for key, table in tables.items()
            if key.lower() in self.named and name.lower() in table.columns
        ]


def gold_queries(place: int, record: Record) -> Iterator[GoldQuery]:
    """Yield the distinct gold queries of a record."""
    for number, sql in enumerate(record.golds):
        if sql not in record.golds[:number]:
            yield GoldQuery(place, record, number)


@lru_cache(maxsize=512)
def schema_of(text: str, dialect: str) -> Schema | str:
    """Return the schema that a text declares, or the reason why it cannot be read."""
    if dialect != "sqlite":
        return read_schema(text, dialect) if read_schema(text, dialect).tables else "no CREATE TABLE can be read"
    try:
        return schema_in_sqlite(text, dialect)
    except JudgingError as error:
        return str(error)
