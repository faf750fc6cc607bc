"""Define a question about a database, and the turns of a conversation that are made of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from sqlquarry.dialects import dialect_name
from sqlquarry.errors import RecordError


@dataclass(frozen=True, slots=True)
class Record:
    """One question about one database, with its gold SQL where it is known.

    Args:
        question: what the user asks, in words.
        schema: the CREATE TABLE statements that the model may use.
        sql: the gold query; None where only an answer is wanted.
        alternatives: other gold queries; an answer that is equal to any of them is right too.
        database: the name of the database that `sql` runs on; None where only the schema is known.
        dialect: the SQL dialect; other common names become sqlglot's, such as "PostgreSQL" or "pg" "postgres".
        id: the record's name in reports; None lets its place in the sequence stand for it.

    Raises:
        RecordError: a text is blank, a name no text, the dialect unknown, or there are alternatives without `sql`.
    """

    question: str
    schema: str
    sql: str | None = None
    database: str | None = None
    dialect: str = "sqlite"
    id: str | None = None
    alternatives: Sequence[str] = ()

    def __post_init__(self) -> None:
        given: object = self.alternatives
        if isinstance(given, str) or (given and self.sql is None):
            raise RecordError(f"{self._name}: alternatives is {given!r}, but must be queries, given with `sql`")
        object.__setattr__(self, "alternatives", tuple(self.alternatives))
        object.__setattr__(self, "dialect", dialect_name(self.dialect, lambda why: RecordError(f"{self._name}: {why}")))
        texts = {"question": self.question, "schema": self.schema} | ({} if self.sql is None else {"sql": self.sql})
        for name, value in (*texts.items(), *(("alternatives", query) for query in self.alternatives)):
            if not isinstance(value, str) or not value.strip():
                hint = "; leave it out if it is unknown" if name == "sql" else ""
                raise RecordError(f"{self._name}: {name} is {value!r}, but must be text that is not empty{hint}")
        if not all(isinstance(name, str | None) for name in (self.id, self.database)):
            raise RecordError(f"{self._name}: id {self.id!r} and database {self.database!r} must be text or None")

    @property
    def golds(self) -> tuple[str, ...]:
        """Every accepted query, the record's own first; empty where none is known."""
        return () if self.sql is None else (self.sql, *self.alternatives)

    @property
    def asked(self) -> Self:
        """The record as a model may see it: without any gold query."""
        return dataclasses.replace(self, sql=None, alternatives=())

    @property
    def _name(self) -> str:
        return f"record {self.id or '(no id)'}"


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def json_lines(records: Iterable[Record]) -> str:
    """Return one JSON object a line, with every field of each record; `load_records` reads them back."""
    return "".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records)
