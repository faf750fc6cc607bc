"""Decides whether two queries return the same result on every database, or differ on some, if that can be decided."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from sqlquarry.answers import Judgement, Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.equivalence.canonical import canonical_form
from sqlquarry.judging.equivalence.counterexamples import counterexample
from sqlquarry.judging.equivalence.difference import certain_difference
from sqlquarry.judging.equivalence.forms import CanonicalQuery, OrderMattersError, walk
from sqlquarry.judging.equivalence.operators import UNSTEADY
from sqlquarry.judging.equivalence.refusals import invented_tables, is_certain, misread, refusal
from sqlquarry.options import check_options
from sqlquarry.records import Record
from sqlquarry.results.ordering import with_order_keys
from sqlquarry.sql.ddl import read_schema
from sqlquarry.sql.parsing import parse, tokens
from sqlquarry.sql.schema import Schema
from sqlquarry.sql.scopes import NoSuchNameError, UndecidedError

Answer = Literal["equivalent", "different", "unknown"]
_VERDICTS: dict[Answer, Verdict] = {"equivalent": "correct", "different": "wrong", "unknown": "unjudged"}
# In SQLite's other quotes an unknown name is an error, not text.
_OTHER_QUOTES = re.compile(r"[`\[]")
_UNARY_PLUS = re.compile(
    r"(?:[(,=<>+\-*/%|]|\b(?:select|distinct|and|or|not|when|then|else|case|where|on|having|by|between|in|like|is))\s*\+",
    re.IGNORECASE,
)


class EquivalenceFinding(NamedTuple):
    """An answer with its reason."""

    answer: Answer
    reason: str


@check_options()
class EquivalenceGrader:
    """A grader that proves that a prediction is equivalent to the gold or differs from it, without a database.

    A prediction is correct if it must return the gold's rows on every database of the schema, and wrong if it returns
    different rows on some database. Everything else is unjudged.

    Both queries are converted to a canonical form, after resolving names by the record's CREATE TABLE text and merging
    simple derived tables. The form does not depend on aliases, on the order of inner joins and conditions, or on how
    comparisons are written. Rows are compared as in `results_equal`, where the order and the names of columns do not
    matter. A query that the database would refuse is never equivalent.

    Queries count as different if the canonical forms show that they differ on some database, or if the database
    certainly refuses the prediction. SQLite queries that remain undecided run on generated databases with plausible
    rows. They are different if every database on which the gold returns something shows it, and at least three do.

    Args:
        use_schema: whether to resolve names by the record's schema. Without it, a query on several tables is compared
            only if all its columns are qualified.
        counterexamples: whether to run SQLite queries that nothing else decides on small generated databases in memory.
            There they can only read, and they are stopped early. False runs nothing.
        name: the grader's name in reports.

    Raises:
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(self, *, use_schema: bool = True, counterexamples: bool = True, name: str = "equivalence") -> None:
        require("judge", "EquivalenceGrader")
        self.use_schema, self.counterexamples, self.name = use_schema, counterexamples, name

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Judge a prediction: correct if it is equivalent to any accepted query, wrong if it differs from all."""
        if not record.golds:
            return Judgement(self.name, "unjudged", "the record has no gold SQL")
        if not predicted_sql:
            return Judgement(self.name, "wrong", "no SQL in the answer")
        schema = record.schema if self.use_schema else ""
        try:
            findings = [
                equivalence(gold, predicted_sql, schema, record.dialect, counterexamples=self.counterexamples)
                for gold in record.golds
            ]
        except JudgingError as error:
            return Judgement(self.name, "unjudged", str(error))
        found = next((one for one in findings if one.answer == "equivalent"), None)
        found = found or next((one for one in findings if one.answer == "unknown"), findings[0])
        return Judgement(self.name, _VERDICTS[found.answer], found.reason, {"answer": found.answer})


def equivalence(  # noqa: PLR0911 - by case
    gold: str, predicted: str, schema: str, dialect: str = "sqlite", *, counterexamples: bool = True
) -> EquivalenceFinding:
    """Compare two queries.

    Args:
        gold: the query that is known to be right.
        predicted: the query to judge.
        schema: CREATE TABLE text, or "" if it is unknown.
        dialect: the SQL dialect, by sqlglot's name.
        counterexamples: whether to run both on small generated databases if nothing else decides. SQLite only.

    Raises:
        JudgingError: sqlglot does not support the dialect.
    """
    from sqlglot import Dialect

    if Dialect.get(dialect) is None:
        raise JudgingError(
            f"sqlglot does not support the dialect {dialect!r}. Use one that it supports, such as sqlite or postgres."
        )
    tables = read_schema(schema, dialect)
    if dialect == "sqlite" and tables.mentions("COLLATE"):
        return EquivalenceFinding("unknown", "the schema has collations, which decide when values are equal")
    invented = invented_tables(gold, predicted) if dialect == "sqlite" and not tables.tables else ()
    if refused := refusal(gold, tables, dialect, invented):
        return EquivalenceFinding("unknown", f"the database may refuse the gold SQL: {refused}")
    if refused := refusal(predicted, tables, dialect, invented):
        certain = dialect == "sqlite" and is_certain(refused, tables)
        return EquivalenceFinding(
            "different" if certain else "unknown",
            f"the database {'refuses' if certain else 'may refuse'} the prediction: {refused}",
        )
    if _same_text(gold, predicted, dialect):
        return EquivalenceFinding("equivalent", "both queries have the same text")
    found = _compared(gold, predicted, tables, dialect)
    if found.answer == "equivalent":
        for name, sql in (("gold SQL", gold), ("prediction", predicted)):
            if replaced := misread(sql, dialect):
                return EquivalenceFinding("unknown", f"the {name} contains {replaced}")
    if counterexamples and found.answer == "unknown" and dialect == "sqlite":
        reason = counterexample(gold, predicted, tables)
        return EquivalenceFinding("different", reason) if reason else found
    return found


def _compared(gold: str, predicted: str, tables: Schema, dialect: str) -> EquivalenceFinding:  # noqa: PLR0911 - by case
    """Compare two queries that the database accepts, by their canonical forms."""
    mine, keep_plan = _meaning(gold, tables, dialect, keep_plan=False), False
    theirs = _meaning(predicted, tables, dialect, keep_plan=False)
    # To handle ties in ORDER BY, judging must be able to add the sort keys to the outputs.
    ties_by_plan = isinstance(mine, CanonicalQuery) and mine.order and with_order_keys(gold, dialect) is None
    if ties_by_plan or isinstance(mine, OrderMattersError) or isinstance(theirs, OrderMattersError):
        keep_plan = True
        mine = _meaning(gold, tables, dialect, keep_plan=True)
        theirs = _meaning(predicted, tables, dialect, keep_plan=True)
    if not isinstance(mine, CanonicalQuery):
        return EquivalenceFinding("unknown", f"the gold SQL cannot be compared: {mine}")
    if isinstance(theirs, NoSuchNameError) and dialect == "mysql" and tables.tables and tables.complete:
        return EquivalenceFinding("different", f"the prediction uses a name that does not exist: {theirs}")
    if not isinstance(theirs, CanonicalQuery):
        return EquivalenceFinding("unknown", f"the prediction cannot be compared: {theirs}")
    if mine.body == theirs.body and mine.order == (theirs.order if keep_plan else theirs.order[: len(mine.order)]):
        planned = keep_plan or any(form[0] == "planned" for form in walk(mine.body))
        if planned and _plan_words(gold, dialect) != _plan_words(predicted, dialect):
            return EquivalenceFinding(
                "unknown", "the queries use NOT or CROSS JOIN differently, which may change the order of rows"
            )
        return EquivalenceFinding("equivalent", "both queries have the same canonical form")
    if reason := certain_difference(mine, theirs, tables):
        return EquivalenceFinding("different", reason)
    return EquivalenceFinding(
        "unknown",
        "the ORDER BY clauses differ"
        if mine.body == theirs.body
        else "the canonical forms differ, which proves nothing",
    )


def _plan_words(sql: str, dialect: str) -> list[str]:
    """Return the words on which SQLite's plan depends although sqlglot's tree does not contain them.

    `a IS NOT NULL` and `NOT a IS NULL` have the same tree. A comma and CROSS JOIN also have the same tree, but SQLite
    never reorders a CROSS JOIN: https://sqlite.org/optoverview.html#manual_control_of_query_plans_using_cross_join.
    """
    words = [token.text.upper() for token in tokens(sql, dialect) or ()]
    crossed = [",", "CROSS"] if any(word.startswith("CROSS") for word in words) else []
    around = zip(["", *words], words, [*words[1:], ""], strict=False)
    return [
        "IS NOT" if before == "IS" or after == "NULL" or word == "NOTNULL" else word.partition(" ")[0]
        for before, word, after in around
        if word.partition(" ")[0] in ("NOT", "NOTNULL", *crossed)
    ]


def _same_text(gold: str, predicted: str, dialect: str) -> bool:
    """Return whether both texts are one query that always returns the same rows on the same database."""
    from sqlglot import expressions as exp

    mine, theirs = (sql.strip().rstrip(";").rstrip() for sql in (gold, predicted))
    return mine == theirs and not UNSTEADY.search(mine) and isinstance(parse(gold, dialect), exp.Query)


@lru_cache(maxsize=4096)
def _meaning(sql: str, schema: Schema, dialect: str, *, keep_plan: bool) -> CanonicalQuery | Exception:
    """Return the canonical form, or the error that explains why there is none."""
    tree = parse(sql, dialect)
    if tree is None:
        return UndecidedError("it cannot be parsed as one statement")
    if dialect == "sqlite" and '"' in sql and not schema.tables:
        return UndecidedError("double quotes may mark names or text, and the schema cannot be read")
    if dialect == "sqlite" and _UNARY_PLUS.search(sql):
        return UndecidedError("a unary plus changes how SQLite compares values")
    try:
        return canonical_form(tree, schema, dialect, keep_plan=keep_plan, quoted_text=not _OTHER_QUOTES.search(sql))
    except (UndecidedError, NoSuchNameError, OrderMattersError) as error:
        return error
    except RecursionError:
        return UndecidedError("it is nested too deeply")
