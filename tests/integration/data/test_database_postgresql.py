"""A PostgreSQL server is read with any account, quickly and without revealing its password."""

import time
from collections.abc import Iterator

import psycopg
import pytest

import sqlquarry as sq
from judging_postgresql import throwaway_server
from sqlquarry.errors import ConfigError, DatabaseError
from sqlquarry.sql.ddl import read_schema

PASSWORD = "r3ad@er/pw"
SETUP = f"""
CREATE SCHEMA hr;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN positive AS integer CHECK (value > 0);
CREATE TABLE "Order" (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "größe" varchar(20) NOT NULL, mood mood,
    total integer GENERATED ALWAYS AS (1) STORED, tags integer[], made timestamp(3), seen timestamptz,
    price numeric(10,2), count positive, data jsonb, "user" char(2), large numeric);
CREATE TABLE item ("order" integer REFERENCES "Order", n integer, kind text, token text, PRIMARY KEY ("order", n));
COMMENT ON TABLE item IS 'lines */ of orders';
COMMENT ON COLUMN item.kind IS 'A -- or
B';
CREATE VIEW totals AS SELECT "order", count(*) AS n FROM item GROUP BY 1;
CREATE MATERIALIZED VIEW stored AS SELECT * FROM totals;
CREATE TABLE x (id integer PRIMARY KEY, y integer);
CREATE TABLE y (id integer PRIMARY KEY, x integer REFERENCES x);
ALTER TABLE x ADD FOREIGN KEY (y) REFERENCES y;
CREATE TABLE day (d date, v integer) PARTITION BY RANGE (d);
CREATE TABLE day_2020 PARTITION OF day FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE hidden (a integer);
CREATE TABLE hr.staff (id integer PRIMARY KEY, name text, boss integer REFERENCES hr.staff,
    "order" integer REFERENCES "Order");
CREATE TABLE "表 ""1"" b" ("列" text);
CREATE FUNCTION unsafe() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE VIEW calling AS SELECT unsafe() AS a;
CREATE VIEW endless AS SELECT count(*) FROM "Order" a, "Order" b, "Order" c;
CREATE EXTENSION pg_buffercache;
INSERT INTO "Order" ("größe", mood, made, price, "user", large)
    SELECT 'S' || i % 3, 'ok', '2020-01-01 10:00', 1.5, 'ab',
    CASE WHEN i > 49995 THEN 10::numeric ^ 5000 END FROM generate_series(1, 50000) i;
INSERT INTO item SELECT i, i % 5, chr(65 + i % 2), 'secret' || i % 2 FROM generate_series(1, 100) i;
INSERT INTO hr.staff SELECT i, 'Name ' || i FROM generate_series(1, 10) i;
CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
REVOKE ALL ON hidden, item FROM reader;
GRANT SELECT ("order", n, kind) ON item TO reader;
CREATE ROLE outsider LOGIN PASSWORD '{PASSWORD}';
"""
TEXT = r"""
CREATE TABLE "Order" (id integer PRIMARY KEY, "größe" varchar(20), mood mood, total integer, tags integer[],
made timestamp(3), seen timestamptz, price numeric(10,2), count positive, data jsonb, "user" char(2), large numeric);
CREATE TABLE calling (a integer);
CREATE TABLE day (d date, v integer);
CREATE TABLE endless (count bigint);
CREATE TABLE item /* lines * / of orders */ ("order" integer REFERENCES "Order" (id), n integer,
kind text /* A -- or B */, PRIMARY KEY ("order", n));
CREATE TABLE stored ("order" integer, n bigint);
CREATE TABLE totals ("order" integer, n bigint);
CREATE TABLE x (id integer PRIMARY KEY, y integer REFERENCES y (id));
CREATE TABLE y (id integer PRIMARY KEY, x integer REFERENCES x (id));
CREATE TABLE "表 ""1"" b" ("列" text);
""".strip().replace(",\n", ", ")
LIMITS = sq.ExecutionLimits(time_s=1)


@pytest.fixture(scope="module")
def admin() -> Iterator[str]:
    with throwaway_server() as server:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        with psycopg.connect(f"{server}/shop") as connection:
            connection.execute(SETUP.encode())
        yield f"{server}/shop"


@pytest.fixture(scope="module")
def url(admin: str) -> str:
    return account(admin, "reader")


@pytest.fixture(scope="module")
def database(url: str) -> sq.Database:
    return sq.Database(f"{url}?application_name=hunter2", limits=LIMITS)


def account(admin: str, name: str, password: str = "r3ad%40er%2Fpw") -> str:
    return f"postgresql://{name}:{password}@{admin.rpartition('@')[2]}"


def test_tables_views_keys_types_and_comments_are_read(database: sq.Database) -> None:
    assert (database.name, database.dialect) == ("shop", "postgres")
    text = database.schema_text()
    assert text == TEXT
    assert {name: len(table.columns) for name, table in read_schema(text, "postgres").tables.items()} == {
        name: len(table.columns) for name, table in database.tables.items()
    }
    assert database.tables["Order"].by_name["total"].generated
    assert not database.tables["Order"].by_name["größe"].nullable
    assert [name for name, table in database.tables.items() if table.is_view] == [
        "calling",
        "endless",
        "stored",
        "totals",
    ]


def test_what_an_account_may_not_read_is_named_and_left_out(database: sq.Database, admin: str) -> None:
    notes = " ".join(database.notes)
    assert "hidden" in notes
    assert "item (token)" in notes
    assert "token" in sq.Database(admin).schema_text(tables=["item"])
    with pytest.raises(DatabaseError, match="Order"):
        sq.Database(account(admin, "outsider"))


def test_values_are_read_in_time_and_only_from_safe_views(url: str) -> None:
    start = time.monotonic()
    database = sq.Database(url, limits=LIMITS)
    order = database.tables["Order"].by_name
    assert time.monotonic() - start < 8
    assert order["mood"].values == ("sad", "ok")  # one of them does not occur
    assert order["größe"].values == ("S0", "S1", "S2")
    assert order["made"].examples == ("2020-01-01 10:00:00",)
    assert order["large"].examples == ()
    assert database.tables["item"].by_name["kind"].values == ("A", "B")
    assert database.tables["item"].rows == 100
    assert 20_000 < (database.tables["Order"].rows or 0) < 100_000  # estimated
    problems = {note.split()[2] for note in database.notes if note.startswith("values")}
    assert problems == {"calling", "endless"}


def test_schemas_can_be_chosen_and_references_lead_to_other_schemas(admin: str) -> None:
    database = sq.Database(admin, schema_names=["hr", "public"], tables=["hr.staff", "Order"])
    text = database.schema_text(values=True, examples=1)
    assert "CREATE TABLE hr.staff (id integer PRIMARY KEY, name text, boss integer REFERENCES hr.staff (id), " in text
    assert '"order" integer REFERENCES "Order" (id));' in text
    assert "'S0', 'S1', 'S2'" in text  # an account that may do more than read can be used for reading
    assert database.tables["hr.staff"].by_name["name"].personal == "name of a person"
    with pytest.raises(ConfigError, match=r"'hrr'.*'hr'"):
        sq.Database(admin, schema_names=["hrr"])


def test_queries_run_with_the_permissions_of_the_user(database: sq.Database, admin: str) -> None:
    assert database.run('SELECT count(*) AS n FROM "Order"').rows == [(50_000,)]
    with pytest.raises(DatabaseError, match="SUPERUSER") as caught:
        sq.Database(admin).run("SELECT 1")
    assert caught.value.kind == "unavailable"
    assert sq.Database(admin, allow_privileged_accounts=True).run("SELECT 1").rows == [(1,)]
    with pytest.raises(DatabaseError, match=r"public\.unsafe"):
        database.run("SELECT unsafe()")


def test_credentials_are_in_no_text(database: sq.Database, url: str, admin: str) -> None:
    record = database.record("How many?")
    shown = f"{database!r} {database} {database.notes} {record} {database.tables}"
    wrong = account(admin, "reader", "hunter2-pw")
    for bad in (
        wrong,
        f"{wrong}?sslmode=disable",
        url.replace("/shop", "/nothing"),
        f"{url}?passfile=/etc/hunter2&x=hunter2",
    ):
        with pytest.raises(DatabaseError) as caught:
            sq.Database(bad)
        error: BaseException | None = caught.value
        while error is not None:
            shown += f"{error} {error!r} {error.args}"
            error = error.__cause__ or error.__context__
    with pytest.raises(DatabaseError) as failed:
        database.run("SELECT nothing")
    shown += f"{failed.value} {failed.value.__context__} {failed.value.__cause__}"
    assert not [secret for secret in ("hunter2", PASSWORD, "r3ad%40er%2Fpw") if secret in shown]
