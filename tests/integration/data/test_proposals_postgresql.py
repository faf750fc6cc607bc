"""Records are proposed for a PostgreSQL server with an account that only reads."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

import sqlquarry as sq
from judging_postgresql import throwaway_server

PASSWORD = "r3ad@er/pw"
SETUP = f"""
CREATE TABLE "Customer" (id integer PRIMARY KEY, "Company" varchar(40), city text, "order" integer);
COMMENT ON COLUMN "Customer"."order" IS 'Place in the queue';
CREATE TABLE invoice (id integer PRIMARY KEY, customer_id integer REFERENCES "Customer", paid timestamp,
    issued date NOT NULL, total numeric(10,2), state char(4), tags text[], is_open boolean, data jsonb);
CREATE TABLE x (id integer PRIMARY KEY, y integer);
CREATE TABLE y (id integer PRIMARY KEY, x integer REFERENCES x);
ALTER TABLE x ADD FOREIGN KEY (y) REFERENCES y;
CREATE TABLE hidden (a integer);
INSERT INTO "Customer" SELECT i, 'Company ' || chr(64 + i), 'City' || i % 5, i * 37 % 101
    FROM generate_series(1, 26) i;
INSERT INTO invoice SELECT i, 1 + i * i % 20,
    CASE WHEN i % 4 > 0 THEN timestamp '2021-02-03 04:05' + i * interval '31 h' END,
    date '2020-01-01' + i * 7 % 1000, i * 12.5, 'st' || i % 3, '{{a}}', i % 2 = 0, '{{}}'
    FROM generate_series(1, 180) i;
CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
REVOKE ALL ON hidden FROM reader;
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with throwaway_server() as server:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        with psycopg.connect(f"{server}/shop") as connection:
            connection.execute(SETUP.encode())
        place = server.rpartition("@")[2]
        yield f"postgresql://reader:r3ad%40er%2Fpw@{place}/shop"


def test_records_for_a_server(url: str) -> None:
    with closing(sq.Database(url)) as database:
        found = sq.propose_records(database, 200)
        assert len(found) == 200
        for record in found:
            assert database.run(record.sql or "").rows
        assert sq.propose_records(database, 200) == found
    report = found.report
    assert report.columns >= 0.95, report.unused
    assert min(report.by_hardness.values()) >= 45
    assert any("is_open = TRUE" in (record.sql or "") for record in found)
    assert any("EXTRACT(YEAR" in (record.sql or "") for record in found)
    assert any("place in the queue" in record.question.lower() for record in found)
    assert any('"Customer"."' in (record.sql or "") for record in found)
    assert {"postgres"} == {record.dialect for record in found}
    assert not [record for record in found if "r3ad" in repr(record)]
