"""Records (a question about a database, with its gold SQL) and the messages of a conversation."""

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
    """One question about one database, with the gold SQL if it is known.

    Args:
        question: the user's question.
        schema: the CREATE TABLE statements that the model may use.
        sql: the gold query. None if you only need an answer from a model.
        alternatives: other gold queries. An answer that is equal to any of them is also correct.
        database: name of the database that `sql` runs on. None if only the schema is known.
        dialect: the SQL dialect. Other common names become sqlglot's: "PostgreSQL" and "pg" become "postgres".
        id: name of the record in reports. If it is None, reports use the record's index.
        notes: what the question needs beside the schema, such as business rules, definitions of metrics, or BIRD's
            evidence. A prompt without ``{notes}`` has them in parentheses after the question.

    Raises:
        RecordError: a text is blank, a name or the notes are not a string, the dialect is unknown, or there are
            alternatives without `sql`.
    """

    question: str
    schema: str
    sql: str | None = None
    database: str | None = None
    dialect: str = "sqlite"
    id: str | None = None
    alternatives: Sequence[str] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        given: object = self.alternatives
        if isinstance(given, str) or (given and self.sql is None):
            raise RecordError(f"{self._name}: alternatives is {given!r}, but must be a list of queries next to `sql`")
        object.__setattr__(self, "alternatives", tuple(self.alternatives))
        object.__setattr__(self, "dialect", dialect_name(self.dialect, lambda why: RecordError(f"{self._name}: {why}")))
        texts = {"question": self.question, "schema": self.schema} | ({} if self.sql is None else {"sql": self.sql})
        for name, value in (*texts.items(), *(("alternatives", query) for query in self.alternatives)):
            if not isinstance(value, str) or not value.strip():
                hint = ". Leave it out if it is unknown" if name == "sql" else ""
                raise RecordError(f"{self._name}: {name} is {value!r}, but must be a non-empty string{hint}")
        if not all(isinstance(name, str | None) for name in (self.id, self.database)):
            raise RecordError(f"{self._name}: id {self.id!r} and database {self.database!r} must be strings or None")
        if not isinstance(self.notes, str):
            raise RecordError(
                f"{self._name}: notes is {self.notes!r:.80}, but must be a string. Leave it out or use ''"
            )

    @property
    def golds(self) -> tuple[str, ...]:
        """All gold queries, `sql` first. Empty if there is none."""
        return () if self.sql is None else (self.sql, *self.alternatives)

    @property
    def asked(self) -> Self:
        """A copy without gold queries, which is what a model may see."""
        return dataclasses.replace(self, sql=None, alternatives=())

    @property
    def _name(self) -> str:
        return f"record {self.id or '(no id)'}"


def noted_question(record: Record) -> str:
    """Return the question, followed by the notes in parentheses if there are any."""
    notes = record.notes.strip()
    return f"{record.question.strip()} ({notes})" if notes else record.question


def record_fields(record: Record) -> dict[str, object]:
    """Return the fields to write or hash. Empty notes are left out, so that digests are those of older versions."""
    fields = dataclasses.asdict(record)
    return fields if record.notes else {name: value for name, value in fields.items() if name != "notes"}


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def json_lines(records: Iterable[Record]) -> str:
    """Return one line of JSON per record with its fields, in the format that `load_records` reads."""
    return "".join(json.dumps(record_fields(record)) + "\n" for record in records)
