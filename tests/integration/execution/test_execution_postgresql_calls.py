"""Generated SQL on PostgreSQL calls no function that could do more than read, for any caller and account."""

import shutil
import tempfile
from pathlib import Path

import psycopg
import pytest

from judging_postgresql import PASSWORD, throwaway_server
from judging_postgresql_attacks import CHECKS, EXTENSIONS, FORBIDDEN, LITERALS, READS, ROLES, SETUP, UNKNOWN
from sqlquarry.errors import ConfigError, JudgingError
from sqlquarry.execution.engines import postgresql_calls
from sqlquarry.execution.limits import ExecutionLimits, Permissions
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.judging.execution import ExecutionGrader
from sqlquarry.records import Record


@pytest.fixture(scope="module")
def folder():
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def shop(folder):
    with throwaway_server() as server:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET autovacuum = off")  # it takes transaction ids
            admin.execute("SELECT pg_reload_conf()")
            admin.execute("CREATE DATABASE shop")
        with psycopg.connect(f"{server}/shop") as admin:
            admin.execute(SETUP.format(folder=folder).encode())
            admin.execute(";".join(f'CREATE EXTENSION "{name}"' for name in EXTENSIONS).encode())
            admin.execute(ROLES)
        with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
            admin.execute("CREATE DATABASE checked TEMPLATE shop")
            admin.execute("CREATE DATABASE ranged TEMPLATE shop")
            admin.execute("CREATE DATABASE changing TEMPLATE shop")
        with psycopg.connect(f"{server}/checked") as admin:
            admin.execute(CHECKS)
        with psycopg.connect(f"{server}/ranged") as admin:
            admin.execute("CREATE TYPE key_range AS RANGE (subtype = key)")
        yield f"{server}/shop"


def as_account(shop: str, account: str) -> str:
    return shop if account == "judge" else f"postgresql://{account}:x@{shop.partition('@')[2]}"


@pytest.fixture(scope="module")
def reader(shop):
    return as_account(shop, "reader")


@pytest.fixture(scope="module")
def sandbox():
    box = Sandbox(ExecutionLimits())
    yield box
    box.close()


@pytest.fixture(scope="module")
def privileged():
    box = Sandbox(ExecutionLimits(), Permissions(allow_privileged_accounts=True))
    yield box
    box.close()


@pytest.fixture(scope="module")
def graders(reader):
    return [ExecutionGrader({"shop": reader}, allow_functions=names) for names in ([], ["public.doubled"])]


def state(admin: psycopg.Connection, folder: Path) -> list:
    """Return everything that a query could change. An equal snapshot also proves that no transaction wrote anything."""
    queries = (
        "SELECT pg_current_snapshot()::text, pg_postmaster_start_time(), pg_conf_load_time()",
        "SELECT * FROM item ORDER BY id",
        "SELECT last_value, is_called FROM counter",
        "SELECT oid FROM pg_largeobject_metadata",
        "SELECT relname FROM pg_class ORDER BY oid",
        "SELECT objid FROM pg_locks WHERE locktype = 'advisory'",
        "SELECT name, setting FROM pg_settings ORDER BY 1",
        "SELECT slot_name FROM pg_replication_slots",
        "SELECT stats_reset FROM pg_stat_database WHERE datname = 'shop'",
    )
    return [admin.execute(query).fetchall() for query in queries] + [sorted(folder.iterdir())]


@pytest.mark.parametrize("account", ["judge", "reader", "filer"])
def test_no_attack_runs_and_nothing_is_changed(shop, folder, sandbox, privileged, account):
    # A superuser is not subject to row-level security.
    guarded = [] if account == "judge" else ["SELECT * FROM guarded", "SELECT count(*) FROM guarded WHERE id = 1"]
    sandbox = sandbox if account == "reader" else privileged
    url = as_account(shop, account)
    with psycopg.connect(shop, autocommit=True) as admin:
        before = state(admin, folder)
        wrong = {}
        for kind, attacks in (("unknown_function", UNKNOWN + guarded), ("forbidden", FORBIDDEN)):
            for sql in attacks:
                outcome = sandbox.run(url, sql.replace("{folder}", str(folder)))
                if not (isinstance(outcome, Failure) and outcome.kind == kind):
                    wrong[sql] = outcome
        assert wrong == {}
        assert state(admin, folder) == before
        assert sandbox.run(url, "SELECT count(*) FROM item") == Rows(("count",), [(40,)])


def test_literals_run_no_checks(shop, folder, privileged):
    with psycopg.connect(shop, autocommit=True) as admin:
        before = state(admin, folder)
        for account in ("judge", "reader"):
            url = as_account(shop, account).replace("/shop", "/checked")
            assert {privileged.run(url, sql).kind for sql in LITERALS} == {"unknown_function"}
            url = as_account(shop, account).replace("/shop", "/ranged")
            assert privileged.run(url, "SELECT '[(1),(2))'::key_range").kind == "unknown_function"
        assert state(admin, folder) == before


@pytest.mark.parametrize("sql", READS)
def test_queries_that_only_read_are_run(reader, sandbox, sql):
    outcome = sandbox.run(reader, sql)
    assert isinstance(outcome, Rows), outcome


@pytest.mark.parametrize(
    "account", ["judge", "filer", "executer", "indirect", "signaler", "creator", "copier", "hidden"]
)
def test_accounts_that_may_do_more_than_read_are_refused(shop, sandbox, privileged, account):
    outcome = sandbox.run(as_account(shop, account), "SELECT 1")
    assert isinstance(outcome, Failure)
    assert outcome.kind == "unavailable"
    assert PASSWORD not in outcome.message
    assert isinstance(privileged.run(as_account(shop, account), "SELECT 1"), Rows)


def test_the_user_may_allow_functions(reader):
    sandbox = Sandbox(ExecutionLimits(), Permissions(allow_functions=["public.doubled", "public.xp*"]))
    assert sandbox.run(reader, "SELECT doubled(id) FROM item WHERE id = 4") == Rows(("doubled",), [(8,)])
    assert isinstance(sandbox.run(reader, "SELECT xpath_string('<a>1</a>', '/a')"), Rows)
    assert sandbox.run(reader, "SELECT doubled(1), trap()").kind == "unknown_function"
    assert sandbox.run(reader, "SELECT pg_sleep(1)").kind == "forbidden"
    sandbox.close()
    for bad in ("public.doubled", [1], [""]):
        with pytest.raises(ConfigError):
            Permissions(allow_functions=bad)


def test_an_open_connection_sees_changes_of_the_catalog(shop, reader, sandbox):
    shop, reader = shop.replace("/shop", "/changing"), reader.replace("/shop", "/changing")
    queries = ("SELECT length('a'::varchar)", "SELECT to_json('low'::tone)", "SELECT count(*) FROM moody")
    assert all(isinstance(sandbox.run(reader, sql), Rows) for sql in queries)
    with psycopg.connect(shop) as admin:
        admin.execute("CREATE FUNCTION length(varchar) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT trap()'")
        admin.execute("CREATE FUNCTION trap_json(tone) RETURNS json LANGUAGE sql AS 'SELECT to_json(trap())'")
        admin.execute("CREATE CAST (tone AS json) WITH FUNCTION trap_json(tone)")
        admin.execute("ALTER TABLE moody ENABLE ROW LEVEL SECURITY")
        admin.execute("CREATE POLICY guard ON moody USING (trap_if(id))")
    assert {sandbox.run(reader, sql).kind for sql in queries} == {"unknown_function"}
    assert isinstance(sandbox.run(reader, "SELECT '{5}'::grown[]"), Rows)
    with psycopg.connect(shop) as admin:
        admin.execute("ALTER DOMAIN grown ADD CHECK (trap_if(VALUE)) NOT VALID")
    assert sandbox.run(reader, "SELECT '{5}'::grown[]").kind == "unknown_function"


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        ("SELECT max(id) FROM item", "SELECT id AS trap FROM item ORDER BY trap DESC LIMIT 1", "correct"),
        ("SELECT max(id) AS doubled FROM item", "SELECT max(id) FROM item", "correct"),
        ("SELECT name FROM item WHERE name <> 'trap()'", "SELECT name FROM item", "correct"),
        ("SELECT 2 * id FROM item", "SELECT doubled(id) FROM item", "unjudged"),
        ("SELECT doubled(id) FROM item", "SELECT 2 * id FROM item", "unjudged"),
        ("SELECT id FROM trapped", "SELECT id FROM item", "unjudged"),
        ("SELECT pg_sleep(0)", "SELECT 1", "unjudged"),
        ("SELECT 1", "SELECT 1 FROM pg_sleep(0)", "wrong"),
        ("SELECT 1", "DELETE FROM item", "wrong"),
        ("SELECT 1", "SELECT unheard_of(1)", "wrong"),
    ],
)
def test_only_unknown_functions_leave_a_record_unjudged(graders, gold, predicted, verdict):
    asked = Record("q", "CREATE TABLE item (id)", gold, "shop", dialect="postgres")
    judgement, known = [grader.grade(asked, predicted) for grader in graders]
    assert judgement.verdict == verdict, judgement
    assert known.verdict == ("correct" if "doubled(" in gold + predicted else verdict)


def test_a_server_that_hides_its_trees_runs_nothing(reader, monkeypatch):
    monkeypatch.setattr(postgresql_calls, "_MESSAGE", "nothing of the kind")
    with psycopg.connect(reader, autocommit=True) as connection, pytest.raises(JudgingError):
        postgresql_calls.CallCheck(connection, ())
