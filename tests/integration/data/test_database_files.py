"""SQLite and DuckDB files are read with their keys and values, and nothing is written or revealed."""

import pickle
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

import sqlquarry as sq
from sqlquarry.data.database.reader import Reader
from sqlquarry.errors import ConfigError, DatabaseError, JudgingError

SHOP = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, "größe" TEXT, email TEXT, tier TEXT, level INT, note TEXT, photo BLOB);
CREATE TABLE "order" (customer INT REFERENCES Customer, day DATE, price REAL, next INT, PRIMARY KEY (customer, day));
CREATE TABLE a (id INTEGER PRIMARY KEY, b INT REFERENCES b);
CREATE TABLE b (id INTEGER PRIMARY KEY, a INT REFERENCES a (ID), total INT AS (id + a));
CREATE VIEW 顧客 AS SELECT id AS 番号 FROM customer;
CREATE VIEW broken AS SELECT absent FROM nowhere;
CREATE TABLE empty (x);
"""
CUSTOMERS = [
    (i, f"S{i % 3}", f"c{i}@mail.org", ("gold", "silver")[i % 2], i % 4, f"line\n{i % 2}", b"\0" * 9) for i in range(40)
]


def make(path: Path, rows: list[tuple[object, ...]] = CUSTOMERS) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)
        connection.executemany("INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make(tmp_path / "shop.sqlite")


def test_the_structure_is_read_with_keys_views_and_generated_columns(shop: Path) -> None:
    database = sq.Database(shop)
    assert (database.name, database.dialect) == ("shop", "sqlite")
    assert list(database.tables) == ["customer", "order", "a", "b", "顧客", "empty"]
    order = database.tables["order"]
    assert order.primary_key == ("customer", "day")
    assert [(key.columns, key.table, key.targets) for key in order.foreign_keys] == [
        (("customer",), "customer", ("id",))
    ]
    assert database.tables["a"].foreign_keys[0].targets == database.tables["b"].foreign_keys[0].targets == ("id",)
    assert database.tables["b"].by_name["total"].generated
    assert not database.tables["b"].by_name["a"].generated
    assert (database.tables["顧客"].is_view, order.is_view) == (True, False)
    assert any("broken" in note for note in database.notes)
    assert database.tables["customer"].rows == 40
    assert database.tables["empty"].rows == 0


def test_few_values_are_listed_and_personal_ones_only_if_asked_for(shop: Path) -> None:
    customer = sq.Database(shop).tables["customer"].by_name
    assert customer["tier"].values == ("gold", "silver")
    assert customer["level"].values == (0, 1, 2, 3)
    assert customer["größe"].examples == ("S0", "S1", "S2")
    assert (customer["email"].personal, customer["email"].examples, customer["email"].distinct) == (
        "e-mail address",
        (),
        40,
    )
    assert (customer["id"].examples, customer["photo"].examples, customer["note"].values) == ((), (), ())
    asked = sq.Database(shop, personal=True).tables["customer"].by_name["email"]
    assert asked.examples[0] == "c0@mail.org"
    text = sq.Database(shop).schema_text(values=True, examples=2)
    assert "tier TEXT /* 'gold', 'silver' */" in text
    assert "mail.org" not in text


def test_a_single_personal_value_among_others_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (about TEXT)")
        connection.execute("CREATE TABLE person (name TEXT)")
        connection.executemany("INSERT INTO person VALUES (?)", [("Ada",), ("Ada",)])
        texts = [*(f"v{i}" for i in range(30)), *["ask somebody@mail.org"] * 5]
        connection.executemany("INSERT INTO t VALUES (?)", [(text,) for text in texts])
        connection.commit()
    about = sq.Database(path).tables["t"].by_name["about"]
    assert (about.personal, about.examples[0]) == ("", "v0")
    asked = sq.Database(path, personal=True).tables
    assert asked["t"].by_name["about"].examples[0] == "ask somebody@mail.org"
    names = [tables["person"].by_name["name"] for tables in (sq.Database(path).tables, asked)]
    assert [(column.values, column.examples) for column in names] == [((), ()), (("Ada",), ("Ada",))]


def test_the_text_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    one, other = (make(tmp_path / f"{name}.sqlite", rows) for name, rows in (("a", CUSTOMERS), ("b", CUSTOMERS[::-1])))
    assert sq.Database(one).schema_text(values=True, examples=3) == sq.Database(other).schema_text(
        values=True, examples=3
    )


def test_the_text_builds_the_same_database(shop: Path, tmp_path: Path) -> None:
    text = sq.Database(shop).schema_text()
    copy = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(copy)) as connection:
        connection.executescript(text)
    database, read = sq.Database(shop), sq.Database(copy)
    assert read.schema_text() == text
    for name, table in read.tables.items():
        assert table.foreign_keys == database.tables[name].foreign_keys


def test_tables_can_be_chosen(shop: Path) -> None:
    assert list(sq.Database(shop, tables=["order"]).tables) == ["order"]
    text = sq.Database(shop).schema_text(tables=["order", "a"])
    assert text.startswith('CREATE TABLE "order" (customer INT, day DATE')
    with pytest.raises(ConfigError, match=r"'ordr'.*'order'"):
        sq.Database(shop, tables=["ordr"])
    with pytest.raises(ConfigError, match=r"'ordr'.*'order'"):
        sq.Database(shop).schema_text(tables=["ordr"])
    with pytest.raises(ConfigError, match="main"):
        sq.Database(shop, schema_names=["main"])


def test_records_have_schema_and_name_and_graders_take_the_database(shop: Path) -> None:
    database = sq.Database(shop)
    record = database.record("How many?", "SELECT count(*) FROM customer", id="q1", notes="all of them")
    assert (record.database, record.dialect, record.schema) == ("shop", "sqlite", database.schema_text())
    assert (record.id, record.notes) == ("q1", "all of them")
    grader = sq.ExecutionGrader(database)
    assert grader.grade(record, "SELECT 40").verdict == "correct"
    other = grader.grade(replace(record, database="other"), "SELECT 40")
    assert (other.verdict, "'other'" in other.reason) == ("unjudged", True)
    with pytest.raises(JudgingError, match="'other'"):
        database.databases_for(replace(record, database="other"), "")
    before = database.fingerprint(record)
    with closing(sqlite3.connect(shop)) as connection:
        connection.execute("INSERT INTO empty VALUES (1)")
        connection.commit()
    assert before != database.fingerprint(record)


def test_queries_only_read_and_are_limited(shop: Path) -> None:
    database = sq.Database(shop, limits=sq.ExecutionLimits(time_s=0.5, rows=30))
    assert database.run("SELECT count(*) AS n FROM customer").columns == ("n",)
    failures = {
        "SELECT absent FROM customer": "no_such_column",
        "DELETE FROM customer": "forbidden",
        "SELECT * FROM customer": "too_many_rows",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t": "timeout",
    }
    for sql, kind in failures.items():
        with pytest.raises(DatabaseError) as caught:
            database.run(sql)
        assert caught.value.kind == kind
    database.close()
    assert database.run("SELECT 1").rows == [(1,)]


def test_a_large_table_is_sampled_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "large.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE log (rowid TEXT, kind TEXT, at INT)")
        many = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 60000) "
        connection.execute(f"INSERT INTO log {many} SELECT 'r' || n, 'kind' || (n / 6001), n FROM t")
        connection.execute("INSERT INTO log (_rowid_, kind) VALUES (100000000, 'late'), (99999999, 'late')")
        connection.execute("CREATE TABLE sparse (name TEXT)")
        sparse = [(-5 + i * 10_000_000, f"n{i}") for i in range(20)]
        connection.executemany("INSERT INTO sparse (rowid, name) VALUES (?, ?)", sparse)
        connection.commit()
    start = time.monotonic()
    log, sparse_table = sq.Database(path).tables.values()
    assert time.monotonic() - start < 5
    assert log.rows == 100_000_000
    assert log.by_name["kind"].values == ("kind0", "late")  # the last block is read
    assert log.by_name["at"].distinct == 1_000
    name = sparse_table.by_name["name"]
    assert (name.distinct, name.values) == (20, ())  # no row is read twice, so no name repeats


def test_a_view_that_takes_too_long_has_no_values(tmp_path: Path) -> None:
    path = tmp_path / "slow.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) AS n FROM t"
        connection.executescript(
            f"CREATE TABLE t (a TEXT); CREATE VIEW a_view AS {endless}; CREATE VIEW v AS {endless};"
        )
        connection.executemany("INSERT INTO t VALUES (?)", [("x",), ("x",)])
        connection.commit()
    start = time.monotonic()
    database = sq.Database(path, limits=sq.ExecutionLimits(time_s=1), reading_time_s=1.5)
    assert database.tables["t"].by_name["a"].values == ("x",)
    assert [note.split()[2] for note in database.notes] == ["a_view", "v"]
    assert time.monotonic() - start < 4
    assert "CREATE TABLE a_view (n)" in database.schema_text(values=True)


def test_a_long_value_does_not_hide_the_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "long.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a TEXT, kind TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, 'k')", [("x" * 17_000_000,), ("y",)])
        connection.commit()
    database = sq.Database(path)
    assert database.tables["t"].by_name["kind"].values == ("k",)
    assert any("a: " in note for note in database.notes)


def test_files_that_are_no_database_have_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"nothing\.sqlite"):
        sq.Database(tmp_path / "nothing.sqlite")
    (tmp_path / "text.sqlite").write_text("not a database" * 100)
    with pytest.raises(DatabaseError, match="text") as caught:
        sq.Database(f"sqlite:///{tmp_path / 'text.sqlite'}")
    assert caught.value.kind == "unavailable"
    with closing(sqlite3.connect(tmp_path / "empty.sqlite")) as connection:
        connection.execute("VACUUM")
    with pytest.raises(DatabaseError, match="empty"):
        sq.Database(tmp_path / "empty.sqlite")
    with pytest.raises(ConfigError, match="reading_time_s is 0"):
        sq.Database(tmp_path / "text.sqlite", reading_time_s=0)


def test_nothing_is_written_next_to_a_file_with_a_log(tmp_path: Path) -> None:
    path = tmp_path / "live.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (a TEXT)")
        writer.execute("INSERT INTO t VALUES ('x')")
        writer.commit()
        before = sorted(tmp_path.iterdir())
        assert sq.Database(path).tables["t"].rows == 1
        assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("""
            CREATE SCHEMA hr;
            CREATE TABLE "Order" (id INTEGER PRIMARY KEY, mood ENUM('sad', 'ok'), price DECIMAL(10, 2), tags VARCHAR[]);
            CREATE TABLE item (
                "order" INTEGER REFERENCES "Order" (id), n INTEGER, kind VARCHAR, PRIMARY KEY ("order", n)
            );
            COMMENT ON TABLE item IS 'lines of orders'; COMMENT ON COLUMN item.kind IS 'A or B';
            CREATE VIEW totals AS SELECT "order", count(*) AS n FROM item GROUP BY ALL;
            CREATE TABLE hr.person (name VARCHAR);
            INSERT INTO "Order" SELECT i, ['sad', 'ok'][1 + i // 27000], 1.5, ['a'] FROM range(30000) t(i);
            INSERT INTO item SELECT i, i % 5, 'AB'[1 + i % 2] FROM range(100) t(i);
        """)
    return path


def test_a_duckdb_file_is_read_with_keys_comments_and_values(warehouse: Path) -> None:
    database = sq.Database(warehouse)
    assert database.dialect == "duckdb"
    assert database.schema_text(values=True) == (
        "CREATE TABLE \"Order\" (id INTEGER PRIMARY KEY, mood ENUM('sad', 'ok') /* 'ok', 'sad' */, "
        "price DECIMAL(10,2), tags VARCHAR[]);\n"
        'CREATE TABLE item /* lines of orders */ ("order" INTEGER REFERENCES "Order" (id), n INTEGER, '
        "kind VARCHAR /* A or B; 'A', 'B' */, PRIMARY KEY (\"order\", n));\n"
        'CREATE TABLE totals ("order" INTEGER, n BIGINT);'
    )
    assert database.tables["Order"].rows == 30_000
    assert database.run('SELECT count(*) FROM "Order"').rows == [(30_000,)]


def test_schemas_of_a_duckdb_file_can_be_chosen(warehouse: Path) -> None:
    database = sq.Database(f"duckdb:///{warehouse}", schema_names=["hr", "main"])
    assert list(database.tables) == ["hr.person", "Order", "item", "totals"]
    assert database.schema_text(tables=["hr.person"]) == "CREATE TABLE hr.person (name VARCHAR);"
    with pytest.raises(ConfigError, match=r"'hrr'.*'hr'"):
        sq.Database(warehouse, schema_names=["hrr"])


def test_the_reader_counts_the_time_of_all_queries(shop: Path) -> None:
    reader = Reader(shop, sq.ExecutionLimits(), time_s=0.2)
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"
    assert getattr(reader.run(endless), "kind", "") == "timeout"
    assert getattr(reader.run("SELECT 1"), "kind", "") == "timeout"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://judge:hunter2-pw@127.0.0.1:1/shop",
        "postgresql://judge@127.0.0.1:1/shop?password=hunter2-pw",
        "postgresql+psycopg://judge:hunter2%2Dpw@127.0.0.1:1/shop?sslmode=require&sslkey=/keys/hunter2-pw",
        "postgresql://judge:hunter2-pw@127.0.0.1:port/shop",
        "postgresql://judge:hunter2-pw#@127.0.0.1:1/shop",
        "postgresql://judge:hunter2-pw@127.0.0.1:1/shop?nonsense=hunter2-pw",
        "mssql+nodriver://judge:hunter2-pw@127.0.0.1:1/shop?token=hunter2-pw",
        "nosuchserver://judge:hunter2-pw@127.0.0.1:1/shop",
        "mysql+nodriver://judge:hunter2-pw@127.0.0.1:1/shop",
    ],
)
def test_an_unreachable_server_has_an_error_without_credentials(url: str) -> None:
    with pytest.raises(sq.SQLQuarryError) as caught:
        sq.Database(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__


def test_pickled_tables_stay_equal(shop: Path) -> None:
    tables = dict(sq.Database(shop).tables)
    assert pickle.loads(pickle.dumps(tables)) == tables
