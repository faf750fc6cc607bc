"""Child processes of the judge: they end with it, know nothing of its secrets, and leave databases as they were."""

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sqlquarry.judging.execution.engines import POSTGRESQL, SQLITE, engine_of, sqlite_copy
from sqlquarry.judging.execution.limits import ExecutionLimits
from sqlquarry.judging.execution.sandbox import Failure, Rows, Sandbox, _environment

FOR_EVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
JUDGE = """
import sys, threading
from sqlquarry.judging.execution.limits import ExecutionLimits
from sqlquarry.judging.execution.sandbox import Sandbox
box = Sandbox(ExecutionLimits(time_s=60))
print(box.run(sys.argv[1], "SELECT 1"), flush=True)
threading.Timer(0.5, lambda: print(box_child.process.pid, flush=True)).start()
(box_child,) = next(iter(box._idle.values()))
box.run(sys.argv[1], sys.argv[2])
"""


@pytest.fixture
def sandbox():
    box = Sandbox(ExecutionLimits())
    yield box
    box.close()


def child_of(box: Sandbox) -> int:
    return next(iter(box._idle.values()))[0].process.pid


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def stopped_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


@pytest.mark.parametrize(
    ("suffix", "heavy"),
    [
        ("sqlite", FOR_EVER),
        ("duckdb", "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0"),
    ],
)
def test_a_child_ends_soon_after_a_judge_that_was_killed_in_the_middle_of_a_query(tmp_path, suffix, heavy) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "duckdb":
        import duckdb

        duckdb.connect(path).close()
    else:
        sqlite3.connect(path).close()
    judge = subprocess.Popen([sys.executable, "-c", JUDGE, str(path), heavy], stdout=subprocess.PIPE)
    assert b"Rows" in judge.stdout.readline()
    child = int(judge.stdout.readline())
    assert is_running(child)
    judge.kill()
    judge.wait()
    judge.stdout.close()
    try:
        assert stopped_within(child, 2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_child_outlives_the_thread_that_started_it(sandbox, tmp_path) -> None:
    path = tmp_path / "a.sqlite"
    sqlite3.connect(path).close()
    starter = threading.Thread(target=sandbox.run, args=(path, "SELECT 1"))
    starter.start()
    starter.join()
    child = child_of(sandbox)
    time.sleep(1.2)  # two looks at the judge
    assert sandbox.run(path, "SELECT 2") == Rows(("2",), [(2,)])
    assert child_of(sandbox) == child


def test_a_child_inherits_neither_secrets_nor_open_files(sandbox, tmp_path, monkeypatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD", "GITHUB_TOKEN", "PYTHONPATH", "HOME", "LD_PRELOAD"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    path = tmp_path / "a.sqlite"
    sqlite3.connect(path).close()
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        sandbox.run(path, "SELECT 1")
        found = Path(f"/proc/{child_of(sandbox)}")
        environment = (found / "environ").read_text()
        assert "hush" not in environment
        assert "TZ=Asia/Kolkata" in environment
        assert str(file.name) not in {str(link.readlink()) for link in (found / "fd").iterdir()}
    # Python may add the coding of text by itself.
    names = {line.partition("=")[0] for line in environment.split("\0") if line}
    assert names <= {"TZ", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH"}


def test_the_clients_of_servers_get_their_own_settings_only(monkeypatch) -> None:
    for name in (
        "PGPASSWORD",
        "PGSSLROOTCERT",
        "PGP_KEY",
        "HOME",
        "AWS_PROFILE",
        "TNS_ADMIN",
        "PATH",
        "SNOWFLAKE_TOKEN",
    ):
        monkeypatch.setenv(name, "x")
    asked = {"PGPASSWORD", "PGSSLROOTCERT", "PGP_KEY", "HOME", "AWS_PROFILE", "TNS_ADMIN", "PATH", "SNOWFLAKE_TOKEN"}
    assert asked & set(_environment(SQLITE)) == set()
    assert asked & set(_environment(POSTGRESQL)) == {"PGPASSWORD", "PGSSLROOTCERT", "HOME"}
    assert asked & set(_environment(engine_of("oracle://host/db"))) == {"HOME", "TNS_ADMIN"}


def test_cpu_time_is_bounded_for_each_query_and_not_for_the_process(tmp_path) -> None:
    box = Sandbox(ExecutionLimits(time_s=0.5))
    path = tmp_path / "a.sqlite"
    sqlite3.connect(path).close()
    limits = []
    for _ in range(4):
        assert box.run(path, FOR_EVER) == Failure("timeout", "stopped after 0.5 s")
        limits.append(resource.prlimit(child_of(box), resource.RLIMIT_CPU)[0])
    assert limits[0] < limits[-1] <= 6  # of one child
    # As if the engine did not stop itself:
    threading.Timer(0.2, os.kill, (child_of(box), signal.SIGXCPU)).start()
    assert box.run(path, FOR_EVER).kind == "timeout"
    assert box.run(path, "SELECT 1") == Rows(("1",), [(1,)])
    box.close()


# ---- Nothing is written beside an SQLite database, and what its logs hold is read.

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
os._exit(0)  # as if it were killed: its logs stay
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
    """A database with one row, in one of the states that a writer can leave."""
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
def test_every_state_of_a_database_is_read_and_left_as_it_was(sandbox, tmp_path, state, locked) -> None:
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


def test_a_link_leads_to_the_logs_of_its_target(sandbox, tmp_path) -> None:
    (tmp_path / "databases").mkdir()
    path = prepared(tmp_path / "databases", "log without shm")
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    assert count(sandbox, link) == 1


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_what_a_live_writer_commits_is_seen_and_it_is_not_disturbed(sandbox, tmp_path, mode) -> None:
    path = tmp_path / "a.sqlite"
    with writer(path, mode) as process:
        for expected in (1, 2, 3):
            before = files(tmp_path)
            assert count(sandbox, path) == expected
            assert files(tmp_path) == before
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
    assert not sandbox._copies


def test_a_copy_is_made_once_for_each_content_and_removed_at_the_end(sandbox, tmp_path) -> None:
    path = prepared(tmp_path, "log without shm")
    assert count(sandbox, path) == 1
    (first,) = Path(sandbox._folder.name).iterdir()
    assert count(sandbox, path) == 1
    assert list(Path(sandbox._folder.name).iterdir()) == [first]
    with writer(tmp_path / "other.sqlite", "WAL") as process:
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        for end in ("", "-wal"):
            shutil.copyfile(f"{tmp_path / 'other.sqlite'}{end}", f"{path}{end}")
    assert count(sandbox, path) == 2
    (second,) = Path(sandbox._folder.name).iterdir()
    assert second != first
    sandbox.close()
    assert not second.parent.exists()


def test_a_copy_that_has_no_room_makes_the_database_unavailable(sandbox, tmp_path, monkeypatch) -> None:
    path = prepared(tmp_path, "log without shm")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert count(sandbox, path).kind == "unavailable"
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 10))
    answer = sqlite_copy.run_query(str(path), str(tmp_path / "copy"), {})
    assert answer[:2] == ("failure", "unavailable")
    assert "TMPDIR" in answer[2]
    assert not (tmp_path / "copy").exists()
