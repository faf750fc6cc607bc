"""The installed sample data: its content is fixed, its files are in the wheel, and written files are not changed."""

import hashlib
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import cast

import pytest

from sqlquarry.data.sample import KINDS, Part, sample_databases, sample_kind, sample_records
from sqlquarry.errors import ConfigError, DataError
from sqlquarry.records import Record

ALL = sample_records()
REPOSITORY = Path(__file__).parents[3]
DIGESTS: dict[Part, str] = {
    "all": "b000700bb709494f081e567138e39a19ae2d183cbb334692f335c93ce558b8cd",
    "train": "e62cfa8ebf4e0975a756743a620f7850be82fd019b1e170007dbea3a8bb78133",
    "test": "bb871cb29f19f6f7e5d167b78d6788bd66495933b59483062f1fe22f5702f77f",
    "held_out": "b3c680e645e70d94af98e3246462207a0da9e99f7cd91378b27b88099ba3f606",
}
DATABASES_DIGEST = "c16ae7cac7e0d8d3b653fe836e20db1d4aa77849d9e9ee468d6d99cc93d355e4"


@pytest.mark.parametrize("part", DIGESTS)
def test_records_and_their_order_are_fixed(part: Part) -> None:
    assert sample_records(part).digest == DIGESTS[part]


def test_the_rows_of_the_databases_are_fixed(tmp_path: Path) -> None:
    digest = hashlib.sha256()
    for name, path in sample_databases(tmp_path).items():
        with closing(sqlite3.connect(path)) as database:
            tables = [table for (table,) in database.execute("SELECT name FROM sqlite_master")]
            rows = [database.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
        digest.update(repr((name, tables, rows)).encode())
    assert digest.hexdigest() == DATABASES_DIGEST


def test_a_built_wheel_has_the_files(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {path.name for path in resources.files("sqlquarry.data.sample").iterdir() if path.name != "__pycache__"}
    assert names == {"__init__.py", "queries.jsonl", *(f"{record.database}.sql" for record in ALL)}
    with zipfile.ZipFile(wheel) as archive:
        assert {f"sqlquarry/data/sample/{name}" for name in names} <= set(archive.namelist())
        assert not [name for name in archive.namelist() if name.startswith("tools/")]


def test_each_record_is_in_one_part() -> None:
    parts = [sample_records(part) for part in ("train", "test", "held_out")]
    assert sum(map(len, parts)) == len(ALL)
    assert set().union(*({r.id for r in part} for part in parts)) == {r.id for r in ALL}


def test_there_is_one_file_per_database(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    paths = sample_databases(folder)
    assert set(paths) == {record.database for record in sample_records()}
    assert sorted(paths.values()) == sorted(folder.iterdir())


def test_a_second_call_keeps_files_and_adds_missing_ones(tmp_path: Path) -> None:
    first = sample_databases(tmp_path)
    kept, lost = first["gym"], first["bakery"]
    before = kept.stat().st_mtime_ns, hashlib.sha256(lost.read_bytes()).hexdigest()
    lost.unlink()
    (tmp_path / "own.txt").write_text("mine")
    assert sample_databases(str(tmp_path)) == first
    assert (kept.stat().st_mtime_ns, hashlib.sha256(lost.read_bytes()).hexdigest()) == before
    assert (tmp_path / "own.txt").read_text() == "mine"


@pytest.mark.parametrize("stale", ["other rows", "no database"])
def test_an_existing_file_with_other_content_is_an_error(tmp_path: Path, stale: str) -> None:
    path = sample_databases(tmp_path)["gym"]
    if stale == "other rows":
        with closing(sqlite3.connect(path)) as database:
            database.execute("DELETE FROM members WHERE member_id = 1")
            database.commit()
    else:
        path.write_text("not a database")
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"gym\.sqlite"):
        sample_databases(tmp_path)
    assert path.read_bytes() == before


def test_every_kind_has_records_and_the_kind_fits_the_query() -> None:
    kinds = {record: sample_kind(record) for record in ALL}
    assert set(kinds.values()) == set(KINDS)
    for kind, word in {"count": "COUNT(", "having": "HAVING", "join": "JOIN", "order_limit": "ORDER BY"}.items():
        assert all(word in str(record.sql) for record, found in kinds.items() if found == kind)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="'dev'"):
        sample_records(cast("Part", "dev"))


def test_a_record_that_is_not_from_the_sample_has_no_kind() -> None:
    with pytest.raises(DataError, match="'mine'"):
        sample_kind(Record("q", "CREATE TABLE t (a)", "SELECT a FROM t", id="mine"))
