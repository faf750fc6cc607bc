"""Ask a model for questions with SQL, for other words of a question, and for the question of a query."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

from sqlquarry.answers import TextGenerator
from sqlquarry.data.proposals.asked import AskedDatabase
from sqlquarry.data.proposals.collecting import Collector
from sqlquarry.data.proposals.dice import Dice
from sqlquarry.records import Record

_PAIRS = 5  # per prompt
_PROMPTS = 8  # per call of the generator
_IDLE_CALLS = 3  # calls without a new record, after which the model has no more ideas
_EXAMPLES = 3
_PAIR = re.compile(
    r"question\W*?:\W*(?P<question>[^\n]+)\n+\W*(?:sql|query)\W*?:\s*(?P<sql>.+?)(?=\n[\W\d]*question\W*?:|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_FENCE = re.compile(r"```(?:\w+\n)?(.*?)(?:```|\Z)", re.DOTALL)
_VALUE = re.compile(r"'((?:[^']|'')*)'|(?<![\w.'])(\d+(?:\.\d+)?)(?![\w'])")
_LONGEST_QUESTION = 300  # characters
_STYLES = (
    "Ask about single rows and filters.",
    "Ask for counts, averages and totals by group.",
    "Ask about rows of two or three related tables.",
    "Ask for extremes, comparisons with an average, and rows without related rows.",
)

_PROPOSE = """\
Write {pairs} different questions that people ask about this database, each with one {dialect} query that answers it.
{style} Use the tables {tables} and only values that exist in the database. Write each pair as two lines:
Question: ...
SQL: ...

Database:
{schema}

Examples:
{examples}
"""
_REPHRASE = """\
Ask the same question in other words. Keep its meaning and all names and numbers. Answer with the question only.

Question: {question}
SQL: {sql}
"""
_DESCRIBE = """\
Write the question that this {dialect} query answers, in plain English as a user would ask it, without names of tables.
Mention every value of the query. Answer with the question only.

Database:
{schema}

SQL: {sql}
"""


def fill(
    collector: Collector, asked: AskedDatabase, generator: TextGenerator, *,
    wanted: int, schema: str, dialect: str, seed: int, deadline: float,
) -> None:  # fmt: skip
    """Add records that a model proposes until there are `wanted`, or until nothing new comes.

    Args:
        collector: keeps the records. Those that it has are the examples in prompts.
        asked: the tables.
        generator: the model.
        wanted: number of records in the collector at the end.
        schema: the text of the schema in prompts, with values.
        dialect: the database's SQL dialect.
        seed: seed of the choice of tables and examples.
        deadline: the time of `time.monotonic` at which the search ends.
    """
    dice = Dice(f"model {seed}")
    idle = 0
    while len(collector.records) < wanted and idle < _IDLE_CALLS and time.monotonic() < deadline:
        before = len(collector.records)
        prompts = [_prompt(asked, collector.records, schema, dialect, dice) for _ in range(_PROMPTS)]
        for answer in generator.generate(prompts):
            for question, sql in pairs_in(answer.text):
                if len(collector.records) < wanted:
                    collector.offer(question, sql, "model")
        idle = 0 if len(collector.records) > before else idle + 1


def rephrased(records: Sequence[Record], generator: TextGenerator) -> list[str]:
    """Return other words for each question.

    A question stays if the answer lacks a value of the query that it has, or if it is another record's question.
    """
    prompts = [_REPHRASE.format(question=record.question, sql=record.sql) for record in records]
    taken = {record.question.lower() for record in records}
    questions = []
    for record, answer in zip(records, generator.generate(prompts), strict=True):
        question = _question_in(answer.text)
        is_good = has_values(question, record.question, record.sql or "") and question.lower() not in taken
        questions.append(question if is_good else record.question)
        taken.add(questions[-1].lower())
    return questions


def described(queries: Sequence[str], generator: TextGenerator, *, schema: str, dialect: str) -> list[str]:
    """Return the question of each query, or "" if the model does not answer with one."""
    prompts = [_DESCRIBE.format(dialect=dialect, schema=schema, sql=sql) for sql in queries]
    return [_question_in(answer.text) for answer in generator.generate(prompts)]


def pairs_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield the questions and queries in an answer."""
    for found in _PAIR.finditer(text):
        sql = found["sql"].strip()
        fenced = _FENCE.search(sql)
        sql = (fenced[1] if fenced else re.split(r"\n\s*\n", sql)[0]).strip().rstrip(";").strip()
        question = found["question"].strip(' *"')
        if sql and 0 < len(question) <= _LONGEST_QUESTION:
            yield question, " ".join(sql.split("\n")) if "--" not in sql else sql


def has_values(answer: str, question: str, sql: str) -> bool:
    """Return whether an answer has each value of the query that the question has."""
    values = {(text or number).replace("''", "'").strip("%") for text, number in _VALUE.findall(sql)}
    return bool(answer) and all(value.lower() in answer.lower() for value in values if value in question)


def _question_in(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    question = re.sub(r"^\W*question\W*?:\s*", "", lines[0], flags=re.IGNORECASE).strip('" *') if lines else ""
    return question if len(question) <= _LONGEST_QUESTION else ""


def _prompt(asked: AskedDatabase, records: Sequence[Record], schema: str, dialect: str, dice: Dice) -> str:
    tables = sorted({dice.pick(asked.tables).name for _ in range(2)})
    shown = [dice.pick(records) for _ in range(_EXAMPLES)] if records else []
    return _PROPOSE.format(
        pairs=_PAIRS,
        dialect=dialect,
        style=dice.pick(_STYLES),
        tables=" and ".join(tables),
        schema=schema,
        examples="\n".join(f"Question: {record.question}\nSQL: {record.sql}" for record in shown),
    )
