"""Child processes of the judge: they end with it, inherit no secrets, and leave databases unchanged."""

import contextlib
import gc
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from processes import is_running, query_processes, stopped_within
from sqlquarry.execution.engines import sqlite_copy
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.judging import ExecutionGrader, SynthesizedDatabases
from sqlquarry.records import Record

FOR_EVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
JUDGE = """
import sys
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.execution.sandbox import Sandbox
box = Sandbox(ExecutionLimits(time_s=60))
print(box.run(sys.argv[1], "SELECT 1"), flush=True)
box.run(sys.argv[1], sys.argv[2])
"""


@pytest.fixture
def sandbox():
    box = Sandbox(ExecutionLimits())
    yield box
    box.close()


@pytest.fixture(autouse=True)
def earlier() -> set[int]:
    """Query processes of other tests, which may still run."""
    return query_processes()


def environment_of(process: int) -> dict[str, str]:
    return psutil.Process(process).environ()


@pytest.mark.parametrize(
    ("suffix", "heavy"),
    [
        ("sqlite", FOR_EVER),
        ("duckdb", "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0"),
    ],
)
def test_a_child_ends_soon_after_a_judge_that_is_killed_during_a_query(tmp_path, suffix, heavy) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "duckdb":
        import duckdb

        duckdb.connect(path).close()
    else:
        sqlite3.connect(path).close()
    judge = subprocess.Popen([sys.executable, "-c", JUDGE, str(path), heavy], stdout=subprocess.PIPE)
    assert b"Rows" in judge.stdout.readline()
    (child,) = query_processes(judge.pid)
    time.sleep(0.5)  # the heavy query has started
    assert is_running(child)
    judge.kill()
    judge.wait()
    judge.stdout.close()
    try:
        assert stopped_within(child, 2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_child_outlives_the_thread_that_started_it(sandbox, earlier, tmp_path) -> None:
    path = tmp_path / "a.sqlite"
    sqlite3.connect(path).close()
    starter = threading.Thread(target=sandbox.run, args=(path, "SELECT 1"))
    starter.start()
    starter.join()
    children = query_processes() - earlier
    time.sleep(1.2)  # the child checks twice whether the judge still runs
    assert sandbox.run(path, "SELECT 2") == Rows(("2",), [(2,)])
    assert query_processes() - earlier == children
    assert len(children) == 1


def test_a_child_inherits_neither_secrets_nor_open_files(sandbox, earlier, tmp_path, monkeypatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD", "GITHUB_TOKEN", "PYTHONPATH", "HOME", "LD_PRELOAD"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    path = tmp_path / "a.sqlite"
    sqlite3.connect(path).close()
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        sandbox.run(path, "SELECT 1")
        (child,) = query_processes() - earlier
        environment = environment_of(child)
        assert "hush" not in environment.values()
        assert environment["TZ"] == "Asia/Kolkata"
        assert str(file.name) not in {opened.path for opened in psutil.Process(child).open_files()}
    # Python may add the encoding of text.
    assert environment.keys() <= {"TZ", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH"}


INHERITED = {
    "a.sqlite": set(),
    "postgresql://127.0.0.1:1/shop": {"PGPASSWORD", "PGSSLROOTCERT", "HOME"},
    "oracle://127.0.0.1:1/shop": {"HOME", "TNS_ADMIN"},
}


@pytest.mark.parametrize("database", INHERITED)
def test_clients_of_servers_inherit_only_their_own_settings(sandbox, earlier, monkeypatch, database) -> None:
    settings = {"PGPASSWORD", "PGSSLROOTCERT", "PGP_KEY", "HOME", "AWS_PROFILE", "TNS_ADMIN", "PATH", "SNOWFLAKE_TOKEN"}
    for name in settings:
        monkeypatch.setenv(name, "x")
    sandbox.run(database, "SELECT 1")  # whether it succeeds does not matter
    (child,) = query_processes() - earlier
    assert settings & environment_of(child).keys() == INHERITED[database]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the limits of another process")
def test_cpu_time_is_limited_for_each_query_and_not_for_the_process(earlier, tmp_path) -> None:
    box = Sandbox(ExecutionLimits(time_s=0.5))
    path = tmp_path / "a.sqlite"
    sqlite3.connect(path).close()
    limits = []
    for _ in range(40):  # on a busy machine several queries use little CPU time
        outcome = box.run(path, FOR_EVER)
        assert isinstance(outcome, Failure)
        assert (outcome.kind, re.findall(r"[\d.]+", outcome.message)) == ("timeout", ["0.5"])
        (child,) = query_processes() - earlier
        limits.append(psutil.Process(child).rlimit(psutil.RLIMIT_CPU)[0])
        if limits[-1] > limits[0]:
            break
    assert limits[0] < limits[-1] <= 6  # of the same child
    # The signal comes if the engine does not stop by itself.
    threading.Timer(0.2, os.kill, (child, signal.SIGXCPU)).start()
    assert box.run(path, FOR_EVER).kind == "timeout"
    assert box.run(path, "SELECT 1") == Rows(("1",), [(1,)])
    box.close()


# ---- Nothing is written next to an SQLite database, and its logs are read.

WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("PRAGMA cache_size = 2")
connection.execute("CREATE TABLE t (a, b)")
connection.execute("INSERT INTO t VALUES (1, 1)")
if sys.argv[3] == "unfinished":
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, "x" * 3000) for i in range(200)])
print("ready", flush=True)
for line in sys.stdin:
    connection.execute("INSERT INTO t VALUES (2, 2)")
    print("ready", flush=True)
os._exit(0)  # like a kill, so that its logs stay
"""


@contextlib.contextmanager
def writer(path: Path, mode: str, state: str = "finished"):
    command = [sys.executable, "-c", WRITER, str(path), mode, state]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def left_by_a_killed_writer(path: Path, mode: str, state: str = "finished") -> None:
    with writer(path, mode, state):
        pass


def files(folder: Path) -> dict:
    return {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes())
        for path in folder.iterdir()
    }


def count(box: Sandbox, path: Path):
    outcome = box.run(path, "SELECT count(*) FROM t")
    return outcome.rows[0][0] if isinstance(outcome, Rows) else outcome


def prepared(folder: Path, state: str) -> Path:
    """Create a database with one row, in one of the states that a writer can leave."""
    path = folder / "a b#?.sqlite"
    left_by_a_killed_writer(path, "DELETE" if "journal" in state else "WAL", "unfinished" if "journal" in state else "")
    log, shm = Path(f"{path}-wal"), Path(f"{path}-shm")
    if state in ("wal mode, no logs", "wal mode, empty log", "wal mode, shm only"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if "no logs" not in state:
            (log if "log" in state else shm).touch()
    elif state == "log without shm":
        shm.unlink()
    elif state == "journal that is not hot":
        with Path(f"{path}-journal").open("r+b") as journal:
            journal.write(bytes(28))
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript("DROP TABLE IF EXISTS t; CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        Path(f"{path}-journal").write_bytes(bytes(600))
    return path


STATES = [
    "wal mode, no logs",
    "wal mode, empty log",
    "wal mode, shm only",
    "log and shm of a killed writer",
    "log without shm",
    "hot journal of a killed writer",
    "journal that is not hot",
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("locked", [False, True], ids=["writable folder", "read-only folder"])
def test_every_state_of_a_database_is_read_and_left_unchanged(sandbox, tmp_path, state, locked) -> None:
    folder = tmp_path / "databases"
    folder.mkdir()
    path = prepared(folder, state)
    before = files(folder)
    folder.chmod(0o500 if locked else 0o700)
    try:
        assert [count(sandbox, path) for _ in range(2)] == [1, 1]
        assert sandbox.run(path, "SELECT x FROM t").kind == "no_such_column"
        assert sandbox.run(path, "INSERT INTO t VALUES (1, 1)").kind == "forbidden"
    finally:
        folder.chmod(0o700)
    assert files(folder) == before


def test_a_link_is_read_with_the_logs_of_its_target(sandbox, tmp_path) -> None:
    (tmp_path / "databases").mkdir()
    path = prepared(tmp_path / "databases", "log without shm")
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    assert count(sandbox, link) == 1


@pytest.fixture
def copies(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files, which is empty at first."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_commits_of_a_live_writer_are_seen_without_disturbing_it(sandbox, tmp_path, copies, mode) -> None:
    (tmp_path / "databases").mkdir()
    path = tmp_path / "databases" / "a.sqlite"
    with writer(path, mode) as process:
        for expected in (1, 2, 3):
            before = files(path.parent)
            assert count(sandbox, path) == expected
            assert files(path.parent) == before
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
    assert list(copies.iterdir()) == []


def test_a_copy_is_made_once_for_each_content_and_removed_at_the_end(sandbox, tmp_path, copies) -> None:
    path = prepared(tmp_path, "log without shm")
    assert count(sandbox, path) == 1
    (first,) = copies.glob("*/*")
    assert count(sandbox, path) == 1
    assert list(copies.glob("*/*")) == [first]
    with writer(tmp_path / "other.sqlite", "WAL") as process:
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        for end in ("", "-wal"):
            shutil.copyfile(f"{tmp_path / 'other.sqlite'}{end}", f"{path}{end}")
    assert count(sandbox, path) == 2
    (second,) = copies.glob("*/*")
    assert second != first
    sandbox.close()
    assert list(copies.iterdir()) == []


@pytest.mark.filterwarnings("error")
def test_processes_and_copies_end_with_the_last_reference_to_the_grader(tmp_path, copies, earlier) -> None:
    path = prepared(tmp_path, "log without shm")
    grader = ExecutionGrader({"a": path})
    made = SynthesizedDatabases()
    record = Record("q", "CREATE TABLE t (a)", "SELECT count(*) FROM t", "a")
    gc.disable()
    try:
        assert grader.grade(record, "SELECT count(*) FROM t").verdict == "correct"
        (child,) = query_processes() - earlier
        assert len(list(copies.iterdir())) == 2
        del grader, made
        assert list(copies.iterdir()) == []
        assert not is_running(child)
    finally:
        gc.enable()


def test_a_database_is_unavailable_if_its_copy_has_no_room(sandbox, tmp_path, monkeypatch) -> None:
    path = prepared(tmp_path, "log without shm")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert count(sandbox, path).kind == "unavailable"
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    answer = sqlite_copy.run_query(str(path), str(tmp_path / "copy"), {})
    assert answer[:2] == ("failure", "unavailable")
    assert "TMPDIR" in answer[2]
    assert not (tmp_path / "copy").exists()
