"""Content of the sample data files: gold queries with their questions, and each database as SQL."""

import json
from hashlib import sha256
from itertools import groupby
from typing import NamedTuple

from sqlquarry.data.sample import Part
from tools.sample_data.conditions import literal
from tools.sample_data.domains import DOMAINS, HELD_OUT
from tools.sample_data.generate import queries_of
from tools.sample_data.lexicon import Domain, Query
from tools.sample_data.rows import columns_of

_TEST_SHARE = 0.12


class _Asked(NamedTuple):
    id: str
    domain: Domain
    query: Query


def data_files() -> dict[str, str]:
    """Return file name -> content."""
    return {"queries.jsonl": _queries(), **{f"{domain.name}.sql": _database(domain) for domain in DOMAINS}}


def _queries() -> str:
    everything = [
        _Asked(f"{domain.name}-{number:04d}", domain, query)
        for domain in DOMAINS
        for number, query in enumerate(queries_of(domain), start=1)
    ]
    test = _test_queries([asked.query for asked in everything if asked.domain not in HELD_OUT])
    return "".join(_line(asked, test) for asked in everything)


def _line(asked: _Asked, test: set[str]) -> str:
    part: Part = "held_out" if asked.domain in HELD_OUT else "test" if asked.query.sql in test else "train"
    kind, sql, questions = asked.query
    fields = {"id": asked.id, "database": asked.domain.name, "kind": kind, "part": part, "sql": sql}
    return json.dumps({**fields, "questions": questions}, ensure_ascii=False) + "\n"


def _test_queries(queries: list[Query]) -> set[str]:
    """Return the SQL queries of the test part. For each kind they are the queries with the smallest hashes."""
    different = {(query.kind, query.sql) for query in queries}
    test: set[str] = set()
    for _, same_kind in groupby(sorted(different, key=lambda one: (one[0], _hash(one[1]))), lambda one: one[0]):
        sqls = [sql for _, sql in same_kind]
        test.update(sqls[: round(_TEST_SHARE * len(sqls))])
    return test


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _database(domain: Domain) -> str:
    """Return the database as SQL: a paragraph with the schema, then a paragraph with the rows of each table."""
    paragraphs = [domain.schema]
    for table, columns in columns_of(domain).items():
        rows = (", ".join(map(literal, row)) for row in zip(*columns.values(), strict=True))
        paragraphs.append(f"INSERT INTO {table} VALUES\n" + ",\n".join(f"({row})" for row in rows) + ";")
    return "\n\n".join(paragraphs) + "\n"
