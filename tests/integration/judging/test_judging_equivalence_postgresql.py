"""Queries that the equivalence grader considers accepted by PostgreSQL are accepted by a real server."""

from itertools import product

import psycopg

from judging_postgresql import throwaway_server
from sqlquarry.judging.equivalence.refusals import misread, refusal
from sqlquarry.sql.ddl import read_schema

SCHEMA = """CREATE TABLE t (id INT PRIMARY KEY, a INT, b TEXT, d DATE, r DOUBLE PRECISION, yes BOOLEAN, j JSON);
CREATE TABLE u (id INT PRIMARY KEY, t_id INT, c VARCHAR(20), n NUMERIC(8, 2), s TIMESTAMP)"""
OPERANDS = (
    "a",
    "b",
    "d",
    "r",
    "yes",
    "j",
    "3",
    "'x'",
    "'2024-05-06'",
    "NULL",
    "count(*)",
    "a + 1",
    "b || 'x'",
    "lower(b)",
)
SHAPES = (
    "SELECT {0} FROM t WHERE {1} = {2}",
    "SELECT b FROM t WHERE {0} LIKE {1} OR {2} IN (1, 2)",
    "SELECT {0}, max({1}) FROM t GROUP BY {2}",
    "SELECT DISTINCT {0} FROM t ORDER BY {1}, {2}",
    "SELECT b AS z FROM t GROUP BY b HAVING {0} > {1} OR z = {2}",
    "SELECT sum({0}), coalesce({1}, {2}) FROM t GROUP BY 2",
    "SELECT CASE WHEN {0} IS NULL THEN {1} ELSE {2} END FROM t",
    "SELECT {0} FROM t UNION SELECT {1} FROM t WHERE {2} BETWEEN 1 AND 2",
    "SELECT x.b FROM t AS x JOIN u ON x.id = u.t_id WHERE u.c = {0} AND (SELECT max(n) FROM u WHERE s > {1}) > {2}",
    "SELECT CAST({0} AS TEXT), abs({1}), {2} / 2 FROM t",
)


def test_a_server_accepts_all_queries_that_are_considered_accepted():
    schema = read_schema(SCHEMA, "postgres")
    queries = [shape.format(*parts) for shape in SHAPES for parts in product(OPERANDS, repeat=3)][::7]
    accepted = [sql for sql in queries if refusal(sql, schema, "postgres") is None and misread(sql, "postgres") is None]
    assert len(accepted) > 150
    refused = []
    with throwaway_server() as url, psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(SCHEMA)
        for sql in accepted:
            try:
                connection.execute(f"EXPLAIN {sql}")
            except psycopg.Error as error:
                refused.append((sql, str(error)))
    assert refused == []
