"""Say of two queries whether every database gives them the same result, some does not, or that it cannot be told."""

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
from sqlquarry.judging.results.ordering import with_order_keys
from sqlquarry.judging.sql.ddl import read_schema
from sqlquarry.judging.sql.parsing import parse, tokens
from sqlquarry.judging.sql.schema import Schema
from sqlquarry.judging.sql.scopes import NoSuchNameError, UndecidedError
from sqlquarry.options import check_options
from sqlquarry.records import Record

Answer = Literal["equivalent", "different", "unknown"]
_VERDICTS: dict[Answer, Verdict] = {"equivalent": "correct", "different": "wrong", "unknown": "unjudged"}
# SQLite's other quotes, in which an unknown name is an error.
_OTHER_QUOTES = re.compile(r"[`\[]")
_UNARY_PLUS = re.compile(
    r"(?:[(,=<>+\-*/%|]|\b(?:select|distinct|and|or|not|when|then|else|case|where|on|having|by|between|in|like|is))\s*\+",
    re.IGNORECASE,
)


class EquivalenceFinding(NamedTuple):
    """An answer and its reason."""

    answer: Answer
    reason: str


@check_options()
class EquivalenceGrader:
    """Correct if the prediction must return the gold's rows on every database of the schema, wrong if it cannot.

    Both queries are brought to a canonical form: names are resolved against the record's CREATE TABLE text, aliases,
    the order of inner joins and of conditions and the spelling of comparisons no longer show, and simple derived tables
    are merged. Rows are the same as in `results_equal`: the order of columns and their names mean nothing. A query that
    the database would refuse is never equivalent. Different is said only if a database is known that tells the two
    apart: by construction, or for SQLite because all databases of plausible made rows do. Everything else is unjudged.

    Args:
        use_schema: resolve names against the record's schema; without it, only queries on one table are compared.
        counterexamples: run SQLite queries that nothing else decides on small made databases in memory, where they
            can only read and soon stop. False runs nothing.
        name: the grader's name in reports.

    Raises:
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(self, *, use_schema: bool = True, counterexamples: bool = True, name: str = "equivalence") -> None:
        require("judge", "EquivalenceGrader")
        self.use_schema, self.counterexamples, self.name = use_schema, counterexamples, name

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Compare with each accepted query; correct if equivalent to one, wrong if different from all."""
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
        predicted: the other one.
        schema: CREATE TABLE text; "" if it is not known.
        dialect: the SQL dialect, by sqlglot's name.
        counterexamples: run both on small made databases if nothing else decides; SQLite only.

    Raises:
        JudgingError: sqlglot knows no such dialect.
    """
    from sqlglot import Dialect

    if Dialect.get(dialect) is None:
        raise JudgingError(f"sqlglot knows no dialect {dialect!r}. Use one of its names, such as sqlite or postgres.")
    tables = read_schema(schema, dialect)
    if dialect == "sqlite" and tables.mentions("COLLATE"):
        return EquivalenceFinding("unknown", "the schema has collations, which say what is equal")
    invented = invented_tables(gold, predicted) if dialect == "sqlite" and not tables.tables else ()
    if refused := refusal(gold, tables, dialect, invented):
        return EquivalenceFinding("unknown", f"the database may refuse the gold SQL: {refused}")
    if refused := refusal(predicted, tables, dialect, invented):
        certain = dialect == "sqlite" and is_certain(refused, tables)
        return EquivalenceFinding(
            "different" if certain else "unknown", f"the database refuses the prediction: {refused}"
        )
    if _same_text(gold, predicted, dialect):
        return EquivalenceFinding("equivalent", "the same text")
    found = _compared(gold, predicted, tables, dialect)
    if found.answer == "equivalent":
        for name, sql in (("gold SQL", gold), ("prediction", predicted)):
            if replaced := misread(sql, dialect):
                return EquivalenceFinding("unknown", f"the {name} has {replaced}")
    if counterexamples and found.answer == "unknown" and dialect == "sqlite":
        reason = counterexample(gold, predicted, tables)
        return EquivalenceFinding("different", reason) if reason else found
    return found


def _compared(gold: str, predicted: str, tables: Schema, dialect: str) -> EquivalenceFinding:  # noqa: PLR0911 - by case
    """Compare two queries that the database accepts, by their canonical forms."""
    mine, keep_plan = _meaning(gold, tables, dialect, keep_plan=False), False
    theirs = _meaning(predicted, tables, dialect, keep_plan=False)
    # How judging breaks ties of ORDER BY: it must be able to add the keys to the outputs.
    ties_by_plan = isinstance(mine, CanonicalQuery) and mine.order and with_order_keys(gold, dialect) is None
    if ties_by_plan or isinstance(mine, OrderMattersError) or isinstance(theirs, OrderMattersError):
        keep_plan = True
        mine = _meaning(gold, tables, dialect, keep_plan=True)
        theirs = _meaning(predicted, tables, dialect, keep_plan=True)
    if not isinstance(mine, CanonicalQuery):
        return EquivalenceFinding("unknown", f"the gold SQL has {mine}")
    if isinstance(theirs, NoSuchNameError) and dialect == "mysql" and tables.tables and tables.complete:
        return EquivalenceFinding("different", f"the prediction has {theirs} in its schema")
    if not isinstance(theirs, CanonicalQuery):
        return EquivalenceFinding("unknown", f"the prediction has {theirs}")
    if mine.body == theirs.body and mine.order == (theirs.order if keep_plan else theirs.order[: len(mine.order)]):
        planned = keep_plan or any(form[0] == "planned" for form in walk(mine.body))
        if planned and _plan_words(gold, dialect) != _plan_words(predicted, dialect):
            return EquivalenceFinding(
                "unknown", "NOT or CROSS JOIN in other places, which may change the order of rows"
            )
        return EquivalenceFinding("equivalent", "the same canonical form")
    if reason := certain_difference(mine, theirs, tables):
        return EquivalenceFinding("different", reason)
    return EquivalenceFinding(
        "unknown", "another ORDER BY" if mine.body == theirs.body else "another form, which proves nothing"
    )


def _plan_words(sql: str, dialect: str) -> list[str]:
    """Return what sqlglot's tree does not keep, but SQLite's plan depends on.

    `a IS NOT NULL` and `NOT a IS NULL` have one tree, and so have a comma and CROSS JOIN, which SQLite never
    reorders: https://sqlite.org/optoverview.html#manual_control_of_query_plans_using_cross_join.
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
    """Whether both are one query that gives the same rows whenever it runs on the same database."""
    from sqlglot import expressions as exp

    mine, theirs = (sql.strip().rstrip(";").rstrip() for sql in (gold, predicted))
    return mine == theirs and not UNSTEADY.search(mine) and isinstance(parse(gold, dialect), exp.Query)


@lru_cache(maxsize=4096)
def _meaning(sql: str, schema: Schema, dialect: str, *, keep_plan: bool) -> CanonicalQuery | Exception:
    """Return the canonical form, or why there is none."""
    tree = parse(sql, dialect)
    if tree is None:
        return UndecidedError("a text that cannot be read as one statement")
    if dialect == "sqlite" and '"' in sql and not schema.tables:
        return UndecidedError("double quotes, which are for names and text, and a schema that cannot be read")
    if dialect == "sqlite" and _UNARY_PLUS.search(sql):
        return UndecidedError("a unary plus, which changes how SQLite compares")
    try:
        return canonical_form(tree, schema, dialect, keep_plan=keep_plan, quoted_text=not _OTHER_QUOTES.search(sql))
    except (UndecidedError, NoSuchNameError, OrderMattersError) as error:
        return error
    except RecursionError:
        return UndecidedError("too many levels")
