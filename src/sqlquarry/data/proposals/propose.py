"""Propose records for a database that has no questions yet, and turn a log of queries into records."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace

from sqlquarry.answers import TextGenerator
from sqlquarry.data.database import Database
from sqlquarry.data.proposals import from_log, from_model, from_templates
from sqlquarry.data.proposals.asked import AskedDatabase, asked_database
from sqlquarry.data.proposals.collecting import Collector
from sqlquarry.data.proposals.report import Proposals
from sqlquarry.errors import ConfigError, DatabaseError
from sqlquarry.extras import require
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)


def propose_records(
    database: Database,
    n: int,
    *,
    generator: TextGenerator | None = None,
    model_share: float = 0.5,
    rephrase: bool = False,
    schema: str | None = None,
    seed: int = 42,
    time_s: float = 600.0,
) -> Proposals:
    """Return questions with SQL about a database, from templates and from a model.

    Each query runs on the database. It is kept if it returns rows that are not only NULL or 0, if each of its
    conditions has an effect, if its order and limit leave one answer, and if it repeats no other query, question or
    result. The four levels of hardness of Spider get the same number of records if the tables allow it. Values in
    questions are the database's own, without those of columns that look personal.

    The same content of the database, arguments and seed give the same records if the generator is deterministic and
    the time suffices.

    Args:
        database: the database.
        n: the number of records. Fewer are returned, with a warning, if no more are found.
        generator: a model that proposes pairs. None uses only templates.
        model_share: share of the records that the model should propose. Templates make those that it does not find.
        rephrase: let the model write the questions of templates in other words.
        schema: the text of the schema in the records. None is `database.schema_text()`.
        seed: seed of all choices.
        time_s: seconds after which no further proposals are made.

    Returns:
        The records. Their `report` has the coverage, and the numbers by hardness, template and reason of rejection.

    Raises:
        DatabaseError: no table has rows, or no table can be read. The message has the reasons.
        ConfigError: an option is invalid.
        MissingExtraError: the extra "judge" is not installed.
    """
    require("judge", "propose_records")
    _check(n, time_s)
    if not 0 <= model_share <= 1:
        raise ConfigError(f"model_share is {model_share!r}, but must be from 0 to 1")
    if rephrase and generator is None:
        raise ConfigError("rephrase is True, but generator is None. Pass a model that writes other words.")
    deadline = time.monotonic() + time_s
    asked = _asked(database)
    with ProgressBar("proposing records", n) as bar:
        collector = Collector(database, n, database.schema_text() if schema is None else schema, bar)
        of_model = math.floor(n * model_share) if generator is not None else 0
        from_templates.fill(collector, asked, wanted=n - of_model, seed=seed, deadline=deadline)
        if generator is not None and rephrase:
            questions = from_model.rephrased(collector.records, generator)
            collector.records = [
                replace(record, question=question)
                for record, question in zip(collector.records, questions, strict=True)
            ]
        if generator is not None and of_model:
            text = database.schema_text(values=True, examples=2)
            from_model.fill(
                collector, asked, generator,
                wanted=n, schema=text, dialect=database.dialect, seed=seed, deadline=deadline,
            )  # fmt: skip
            from_templates.fill(collector, asked, wanted=n, seed=seed + 1, deadline=deadline)
    found = collector.proposals(asked)
    if len(found) < n:
        logger.warning(
            "Only %d of %d records were found for %s. More tables, rows or time_s, or a generator, give more.",
            len(found), n, database.name,
        )  # fmt: skip
    return found


def records_from_log(
    queries: Iterable[str],
    database: Database,
    generator: TextGenerator,
    *,
    schema: str | None = None,
    time_s: float = 600.0,
) -> Proposals:
    """Return a record for each query of a log that is worth learning, with a question that a model writes.

    Queries are checked as those of `propose_records`. Queries that compare a column that looks personal with a value
    are left out.

    Args:
        queries: the queries, in the database's dialect.
        database: the database.
        generator: the model that writes the questions.
        schema: the text of the schema in the records. None is `database.schema_text()`.
        time_s: seconds after which no further queries are read.

    Raises:
        DatabaseError: no table has rows, or no table can be read. The message has the reasons.
        ConfigError: an option is invalid.
        MissingExtraError: the extra "judge" is not installed.
    """
    require("judge", "records_from_log")
    if isinstance(queries, str):
        raise ConfigError("queries is a string, but must be a list of queries")
    log = list(queries)
    _check(max(len(log), 1), time_s)
    asked = _asked(database)
    with ProgressBar("reading the log", len(log)) as bar:
        collector = Collector(database, len(log), database.schema_text() if schema is None else schema, bar)
        from_log.fill(collector, log, database, generator, deadline=time.monotonic() + time_s)
    return collector.proposals(asked)


def _check(n: int, time_s: float) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"n is {n!r}, but must be a whole number above 0")
    if not time_s > 0:
        raise ConfigError(f"time_s is {time_s!r}, but must be above 0")


def _asked(database: Database) -> AskedDatabase:
    asked = asked_database(database)
    if not asked.tables:
        reasons = "; ".join(asked.notes) or "it has no tables"
        raise DatabaseError(f"no records can be proposed for {database.name}: {reasons}. Fill its tables first.")
    return asked
