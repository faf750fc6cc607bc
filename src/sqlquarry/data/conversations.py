"""Find schema, question and SQL again in the turns of a conversation, or in an instruction with its input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from sqlquarry.data.ddl import Parted, has_table, part_schema
from sqlquarry.data.wording import Wording
from sqlquarry.errors import RecordError
from sqlquarry.files.metadata import parse_json
from sqlquarry.prompt import PromptFormatter

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
}
_FENCE = re.compile(r"```[ \t]*(?:\w+)?[ \t]*\r?\n?(.*?)```", re.DOTALL)
_SQL = re.compile(
    r"(?:\[SQL\]|--|/\*|\(|(?:SELECT|WITH|INSERT|UPDATE|DELETE|REPLACE|MERGE|CREATE|ALTER|DROP|TRUNCATE|EXPLAIN|PRAGMA|"
    r"SHOW|DESCRIBE|DESC|VALUES|SET|USE|CALL|EXEC|EXECUTE|DECLARE|BEGIN|GRANT|REVOKE|IF)\b)",
    re.IGNORECASE,
)
# Words around schema and question in prompts of many origins.
_OPEN = re.compile(r"(?:<[\w -]+>|```\w*|\"\"\")\s*\Z")
_CLOSE = re.compile(r"\A\s*(?:</[\w -]+>|```|\"\"\")")
_ABOUT_SCHEMA = r"[^\n.?!:]{0,60}\b(?:schema|context|tables?|ddl|database|structure|input|sql)\b[^\n.?!:]{0,40}"
_ANNOUNCEMENT = re.compile(
    rf"(?:\A|(?<=[\n.?!:]))(?:{_ABOUT_SCHEMA}[:：][*]*|[ \t]*[#*]{_ABOUT_SCHEMA})\s*\Z", re.IGNORECASE
)
_LABEL = re.compile(
    r"\A(?:[^\n:?]{0,80}\bquestion[*]*\s*[:：][*]*|[#*<\[]*\s*(?:(?:user|input)[ _]?)?"
    r"(?:question|query|request|instruction|input|q)\s*(?:[>\]]|[*]*\s*[:：][*]*|\n))\s*",
    re.IGNORECASE,
)
_TRAILER = re.compile(
    r"\s*\n[#*\[<]*\s*(?:sql(?: query)?|answer|response|output|a)[\]>]?\s*[*]*\s*[:：]?[*]*\s*\Z", re.IGNORECASE
)
_TAGGED = re.compile(r"<([\w-]+)>(.*)</\1>", re.DOTALL)
_PLAIN_ROLES = {"prompt": "user", "completion": "assistant"}


class _Exchange(NamedTuple):
    """One question with its answer.

    Args:
        first: the system message, or Alpaca's instruction.
        second: the user message, or Alpaca's input.
        answer: the answer, or None if there is none.
        is_system: whether `first` is a system message, which is dropped if it contains no schema.
    """

    first: str
    second: str
    answer: str | None
    is_system: bool


class Conversations:
    """Find schema, question and SQL in conversations.

    Args:
        formatter: the wording around schema and question. None tries SQLQuarry's own wording, and otherwise looks for
            CREATE TABLE statements.
        needs_schema: whether the schema must be in the text. Otherwise the caller has it.
    """

    def __init__(self, formatter: PromptFormatter | None, *, needs_schema: bool) -> None:
        self._is_stated = formatter is not None
        self._wording = lru_cache(maxsize=64)(partial(Wording, formatter or PromptFormatter()))  # by dialect and notes
        self._needs_schema = needs_schema

    def texts(self, parts: Mapping[str, object], dialect: str, notes: str) -> tuple[str | None, str, str | None]:
        """Return schema, question and SQL. The schema is None if the text has none and the caller has it.

        Args:
            parts: the columns of a row by their plain names.
            dialect: the dialect that `{dialect}` in the wording stands for.
            notes: the notes of the row, which may also be in the text. There they do not belong to the question.

        Raises:
            RecordError: there is more than one question, or the schema cannot be separated from the question, or the
                answer is not SQL, or the dialect is unknown.
        """
        exchange = _exchange(parts)
        sql = None if exchange.answer is None else _query(exchange.answer)
        found = self._wording(dialect, notes).find(exchange.first, exchange.second)
        if found is None and notes:
            found = self._wording(dialect, "").find(exchange.first, exchange.second)
        if isinstance(found, tuple):
            return *found, sql
        if found == "ambiguous":
            raise _inseparable(exchange, "contains words of the prompt more than once")
        if self._is_stated:
            raise _inseparable(exchange, "does not have the wording of formatter")
        schema, question = _separated(exchange)
        if schema is None and self._needs_schema:
            raise _inseparable(exchange, "contains no CREATE TABLE statement. Pass schema= if it has no schema")
        return schema, question, sql


def _separated(exchange: _Exchange) -> tuple[str | None, str]:
    """Return schema and question of a prompt with unknown wording. The schema is None if there is none.

    Raises:
        RecordError: the schema cannot be separated from the question.
    """
    first, second = part_schema(exchange.first), part_schema(exchange.second)
    if (
        (first and second)
        or (first is None and has_table(exchange.first))
        or (second is None and has_table(exchange.second))
    ):
        raise _inseparable(exchange, "contains CREATE TABLE statements in several places")
    if second:
        question = _question_beside(second)
        if question == "" and not exchange.is_system:
            question = _unlabelled(exchange.first)
        elif question is None or (exchange.first.strip() and not exchange.is_system):
            raise _inseparable(exchange, "contains the schema among other words")
    elif first or exchange.is_system or not exchange.first.strip():
        question = _unlabelled(exchange.second)
    else:
        raise _inseparable(exchange, "contains no CREATE TABLE statement. Pass schema= if it has no schema")
    if not question:
        raise _inseparable(exchange, "contains no question next to the schema")
    found = first or second
    return found and found.schema, question


def _question_beside(parted: Parted) -> str | None:
    """Return the question before or after a schema, "" if there are no words, or None if it is not clear which it is.

    Words that only announce the schema, such as "Schema:", do not count.
    """
    before = _ANNOUNCEMENT.sub("", _OPEN.sub("", parted.before)).strip()
    after = _TRAILER.sub("", _CLOSE.sub("", parted.after)).strip()
    labelled = [text for text in (before, after) if _LABEL.match(text)]
    candidates = labelled or [text for text in (before, after) if text]
    if len(candidates) > 1:
        return None
    question = _unlabelled(candidates[0]) if candidates else ""
    return None if "\n\n" in question.replace("\r", "") else question


def _unlabelled(question: str) -> str:
    question = _TRAILER.sub("", question.strip())
    tagged = _TAGGED.fullmatch(question)
    return (tagged[2] if tagged else _LABEL.sub("", question)).strip()


def _exchange(parts: Mapping[str, object]) -> _Exchange:
    system = _content(parts.get("system"), "system")
    if "instruction" in parts:
        if parts.get("history") not in (None, "", "[]", [], ()):
            raise RecordError("'history' has earlier turns, but a record is one question. Write one row per question")
        column = "response" if "response" in parts else "output"
        instruction, given = (_content(parts.get(name), name) for name in ("instruction", "input"))
        answer = _content(parts[column], column)
        if not answer.strip():
            raise RecordError(f"{column!r} is empty")
        if system and given:
            return _Exchange(system, f"{instruction}\n\n{given}", answer, is_system=True)
        return _Exchange(instruction if given else system, given or instruction, answer, is_system=not given)
    turns = [turn for name in ("messages", "conversations", "prompt", "completion") for turn in _turns(parts, name)]
    systems = [text for role, text in turns if role == "system"]
    questions = [text for role, text in turns if role == "user"]
    answers = [text for role, text in turns if role == "assistant"]
    roles = [role for role, _ in turns if role != "system"]
    if roles not in (["user"], ["user", "assistant"]):
        raise RecordError(
            f"has the turns {', '.join(roles) or 'none'}, but a record is one question (user) with one answer "
            "(assistant). Write one row per question"
        )
    if len(systems) + bool(system) > 1:
        raise RecordError("has two system messages. Keep one of them")
    return _Exchange(systems[0] if systems else system, questions[0], answers[0] if answers else None, is_system=True)


def _turns(parts: Mapping[str, object], column: str) -> list[tuple[str, str]]:
    """Return the turns in a column as (role, text)."""
    turns = parts.get(column)
    if isinstance(turns, str) and turns.lstrip().startswith("["):  # in CSV
        try:
            turns = parse_json(turns, "it", lenient=True)
        except ValueError as error:
            raise RecordError(f"{column!r} is {turns!r:.40}, which is not a JSON list: {error}") from error
    if isinstance(turns, str) and column in _PLAIN_ROLES:
        return [(_PLAIN_ROLES[column], turns)]
    if turns is None:
        return []
    if not isinstance(turns, list | tuple):
        raise RecordError(f"{column!r} is {turns!r:.40} ({type(turns).__name__}), but must be a list of turns")
    found = []
    for turn in turns:
        given = turn if isinstance(turn, Mapping) else {}
        role = given.get("role", given.get("from"))
        if (known := _ROLES.get(str(role).strip().lower())) is None:
            raise RecordError(f"{column!r} has the role {role!r:.40}. Known roles are {', '.join(_ROLES)}")
        found.append((known, _content(given.get("content", given.get("value")), column)))
    return found


def _content(value: object, column: str) -> str:
    """Return the text of a message, which may be in parts: [{"type": "text", "text": …}]."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        texts = [part.get("text") if isinstance(part, Mapping) else None for part in value]
        value = "".join(text for text in texts if isinstance(text, str)) if None not in texts else value
    if not isinstance(value, str):
        raise RecordError(f"{column!r} has {value!r:.40} ({type(value).__name__}), but must have text")
    return value


def _query(answer: str) -> str:
    """Return the SQL of an answer: the whole answer, or the only block in it that is fenced by ```."""
    fenced: Sequence[str] = _FENCE.findall(answer)
    sql = (fenced[0] if len(fenced) == 1 else answer).strip()
    if not _SQL.match(sql):
        raise RecordError(f"the answer {answer.strip()!r:.60} does not begin with SQL")
    return sql


def _inseparable(exchange: _Exchange, why: str) -> RecordError:
    text = exchange.first if part_schema(exchange.first) and not part_schema(exchange.second) else exchange.second
    return RecordError(
        f"the prompt {' '.join(text.split())!r:.80} {why}. Describe its wording with formatter=PromptFormatter("
        "system=…, user=…), where {schema} and {question} mark their places"
    )
