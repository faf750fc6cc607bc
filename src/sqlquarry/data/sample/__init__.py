"""A data set of our own: 14 small businesses, their rows, and questions with gold SQL of graded difficulty.

Domains and their vocabulary are written by hand (`domains/`), generic questions come from patterns that are filled from
the domain's own rows (`patterns/`). Nothing is copied from a public data set. The content is the same on every machine
and in every Python version.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

from sqlquarry.artifacts import Record, write_atomically
from sqlquarry.data.records import Records
from sqlquarry.data.sample.domains import DOMAINS, HELD_OUT
from sqlquarry.data.sample.generate import queries_of
from sqlquarry.data.sample.lexicon import KINDS, Domain, Kind
from sqlquarry.data.sample.rows import connect
from sqlquarry.errors import ConfigError, DataError
from sqlquarry.files.locations import local_path

__all__ = ["KINDS", "Kind", "Part", "sample_databases", "sample_kind", "sample_records"]

Part = Literal["all", "train", "test", "held_out"]
_TEST_SHARE = 0.12


class _Asked(NamedTuple):
    kind: Kind
    part: Part
    record: Record


def sample_records(part: Part = "all") -> Records:
    """The sample questions, in a fixed shuffled order, so that any first part of them is a fair sample.

    Args:
        part: "held_out" is every question about the two held-out domains. The other twelve domains are divided by gold
            query: about 12 % of the queries of each kind are "test" with all their phrasings, the rest is "train", and
            no SQL text is on both sides. "all" is everything.

    Raises:
        ConfigError: there is no such part.
    """
    parts = ("all", "train", "test", "held_out")
    if part not in parts:
        raise ConfigError(f"there is no part {part!r} of the sample records; use one of {', '.join(parts)}")
    return Records(asked.record for asked in _everything().values() if part in ("all", asked.part))


def sample_kind(record: Record) -> Kind:
    """The kind of question that a sample record asks, from "projection" to "set_operation".

    Raises:
        DataError: the record is not one of the sample's.
    """
    asked = _everything().get(record.id or "")
    if asked is None:
        raise DataError(f"record {record.id!r} is not a sample record; take one of sample_records()")
    return asked.kind


def sample_databases(directory: str | Path) -> dict[str, Path]:
    """Write one SQLite file for each domain, `<domain>.sqlite`; files that exist already are left as they are.

    Returns the domain's name (a record's `database`) with the file's path.

    Raises:
        DataError: a file has that name but other content, on which the gold queries would give other answers.
    """
    paths = {domain.name: local_path(directory, "directory") / f"{domain.name}.sqlite" for domain in DOMAINS}
    for domain in DOMAINS:
        path = paths[domain.name]
        with closing(connect(domain)) as database:
            if not path.exists():
                write_atomically(path, database.serialize())
            elif _content(path) != list(database.iterdump()):
                raise DataError(
                    f"{path} is not the sample database of this version: delete it, or name another directory"
                )
    return paths


def _content(path: Path) -> list[str] | None:
    """The SQL that would write the database's content; None where the file is no database."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return list(database.iterdump())
    except sqlite3.Error:
        return None


@cache
def _everything() -> dict[str, _Asked]:
    everything = [asked for domain in DOMAINS for asked in _ask(domain)]
    test = _test_queries(everything)
    divided = (
        asked._replace(part="test") if asked.record.sql in test and asked.part == "train" else asked
        for asked in everything
    )
    return {asked.record.id or "": asked for asked in sorted(divided, key=lambda asked: _hash(asked.record.id))}


def _ask(domain: Domain) -> Iterator[_Asked]:
    part: Part = "held_out" if domain in HELD_OUT else "train"
    for number, query in enumerate(queries_of(domain), start=1):
        for letter, question in zip("abcd", query.questions, strict=False):
            name = f"{domain.name}-{number:04d}-{letter}"
            yield _Asked(query.kind, part, Record(question, domain.schema, query.sql, domain.name, "sqlite", name))


def _test_queries(everything: list[_Asked]) -> set[str | None]:
    """The SQL of the test part: of each kind the queries whose hashes come first, so the choice is blind but fixed."""
    queries = {(asked.kind, asked.record.sql) for asked in everything if asked.part == "train"}
    test: set[str | None] = set()
    for _, same_kind in groupby(sorted(queries, key=lambda query: (query[0], _hash(query[1]))), lambda query: query[0]):
        sqls = [sql for _, sql in same_kind]
        test.update(sqls[: round(_TEST_SHARE * len(sqls))])
    return test


def _hash(text: str | None) -> str:
    return sha256(str(text).encode()).hexdigest()
