"""load_records on files from Excel, pandas and other tools, and on files that no tool would write."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry import Record, Records, load_records
from sqlquarry.data import json_rows, rows
from sqlquarry.errors import ConfigError, DataError, RecordError, SQLQuarryError

ROW = {"question": "How many pubs?", "schema": "CREATE TABLE pub (id)", "sql": "SELECT COUNT(*) FROM pub"}
RECORD = Record(*ROW.values())


def loaded(path: Path, content: str | bytes):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(record.question, record.schema, record.sql) for record in load_records(path)]


def table(delimiter: str, *more: str, header: tuple[str, ...] = tuple(ROW)) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([(*header, *more), (*ROW.values(), *[""] * len(more))])
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("A.JSONL", json.dumps(ROW)),
        ("a.Json", json.dumps([ROW])),
        ("a.CSV", table(",")),
        ("a.jsonl.GZ", gzip.compress(json.dumps(ROW).encode())),
        ("a.jsonl", json.dumps([ROW], indent=2)),
        ("a.ndjson", json.dumps([ROW])),
        ("a.jsonl", json.dumps(ROW, indent=2)),
        ("a.json", json.dumps({"data": [ROW]})),
        ("a.json", json.dumps({"version": "1.1", "meta": {"n": [1]}, "rows": [ROW], "end": None}, indent=1)),
        ("a.jsonl", json.dumps({"records": [ROW]})),
        ("a.json", json.dumps({"examples": [ROW]})),
        ("a.jsonl", json.dumps(ROW | {"data": [{"x": 1}]})),
        ("a.csv", table(";")),
        ("a.csv", table("\t")),
        ("a.tsv", table("\t")),
        ("a.csv", table("|")),
        ("a.csv", "sep=;\n" + table(";")),
        ("a.csv", "\ufeff" + table(";")),
        ("a.csv", table(",", "", "", "")),
        ("a.csv", table(",") + ",,\n\n,,\n"),
        ("a.csv", table(",").replace("sql\r\n", "sql,,\r\n")),
        ("a.json", json.dumps({"train": [ROW]})),
        ("a.csv", table(",").replace("pub\r\n", "pub,,\r\n")),
        ("a.csv", "\n" + table(",", header=("Question", " schema", "SQL "))),
    ],
)
def test_files_as_tools_write_them(tmp_path: Path, name: str, content: str | bytes):
    assert loaded(tmp_path / name, content) == [tuple(ROW.values())]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.csv", table(",").encode("utf-16"), "line 1.*UTF-16"),
        ("a.jsonl", json.dumps(ROW).encode("utf-16-be"), "line 1"),
        ("a.csv", table(",").replace("How many", "Wie viele Läden").encode("cp1252"), r"line 2.*0xe4"),
        ("a.csv", table(",") + "a,b,c,d\n", r"line 3.*\b4\b.*\b3\b"),
        ("a.csv", table(",", "").replace("pub,\r\n", "pub,note\r\n"), "line 2.*'note'"),
        ("a.csv", ",question,schema\nx,q,s\n", "line 2.*'x'"),
        ("a.csv", "question,,schema\nq,7,s\n", "line 2.*'7'"),
        ("a.json", json.dumps({"data": [ROW], "rows": [ROW]}), "'data'.*'rows'"),
        ("a.json", json.dumps({"train": [ROW], "test": [ROW]}), "'train'.*'test'"),
        ("a.json", json.dumps({"data": [ROW]})[:-1], "line 1"),
        ("a.json", json.dumps([ROW]) + "\n[]", "line 2"),
        ("a.json", json.dumps([ROW, ROW], indent=1)[:-40], "line 10"),
        ("a.json", '[{"question": ' + "1" * 200 + "}]", r"line 1.*\b200\b"),
    ],
)
def test_the_error_has_the_position_and_the_value(tmp_path: Path, name: str, content: str | bytes, error: str):
    with pytest.raises(RecordError, match=rf"(?s){name}.*{error}"):
        loaded(tmp_path / name, content)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_long_values(tmp_path: Path, name: str):
    long = ROW | {"schema": "CREATE TABLE t (" + "x, " * 100_000 + "y)"}
    content = {".csv": table(",").replace(ROW["schema"], f'"{long["schema"]}"'), ".json": json.dumps([long])}
    before = csv.field_size_limit()
    assert loaded(tmp_path / name, content.get(Path(name).suffix, json.dumps(long))) == [tuple(long.values())]
    assert csv.field_size_limit() == before


@settings(max_examples=40)
@given(
    st.lists(st.fixed_dictionaries({name: st.text(min_size=1).filter(str.strip) for name in ROW}), min_size=1),
    st.data(),
)
def test_an_array_can_be_read_in_pieces_of_any_size(tmp_path_factory, objects, data):
    path = tmp_path_factory.getbasetemp() / "pieces.json"
    text = json.dumps(objects, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=data.draw(st.booleans()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_PIECE_BYTES", data.draw(st.integers(1, 9)))
        assert loaded(path, text) == [(row["question"], row["schema"], row["sql"]) for row in objects]


@pytest.mark.parametrize("piece_bytes", [1, 7, 64, 2**16])
def test_the_line_of_a_byte_that_is_not_utf8_is_counted_in_every_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
):
    monkeypatch.setattr(json_rows, "_PIECE_BYTES", piece_bytes)
    rows_of_array = ",\n".join([json.dumps(ROW | {"question": "Wie viele Läden?"}, ensure_ascii=False)] * 5)
    with pytest.raises(RecordError, match=r"line 7: .*0xff"):
        loaded(tmp_path / "a.json", f"[\n{rows_of_array},\n".encode() + b'"\xff"]')


def test_with_a_limit_only_the_beginning_of_an_array_is_read(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text("[" + ",\n".join([json.dumps(ROW)] * 50_000) + ", broken")
    tracemalloc.start()
    assert len(load_records(path, limit=10)) == 10
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_equal_schemas_are_stored_once(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for n in range(1000):
            file.write(json.dumps(ROW | {"schema": f"CREATE TABLE t{n % 5} (" + "x" * 20_000 + ")"}) + "\n")
    tracemalloc.start()
    records = load_records(path)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len({id(record.schema) for record in records}) == 5
    assert size < 2**20
    own = Records(Record("q", f"CREATE TABLE t{n % 2}") for n in range(10))
    assert len({id(record.schema) for record in own}) == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_to_jsonl_needs_no_copy_of_the_records_in_memory(tmp_path: Path, suffix: str):
    records = Records([Record("q" * 5000, "CREATE TABLE t (a)")] * 2000)
    tracemalloc.start()
    records.to_jsonl(tmp_path / f"a{suffix}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    assert load_records(tmp_path / f"a{suffix}", limit=1)[0].question == "q" * 5000


def test_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("b.jsonl", "a.jsonl", "c.csv"):
        loaded(tmp_path / name, table(",") if name == "c.csv" else json.dumps(ROW))
    assert [record.id for record in load_records(tmp_path / "*.jsonl")] == ["a:1", "b:1"]
    assert [record.id for record in load_records(f"{tmp_path}/[bc].*", limit=2)] == ["b:1", "c:2"]
    monkeypatch.chdir(tmp_path)
    assert len(load_records("*.csv")) == 1
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_records("~/a.jsonl")) == 1
    Records([RECORD]).to_jsonl("~/own.jsonl")
    assert load_records(tmp_path / "own.jsonl") == Records([RECORD])
    (tmp_path / "b.jsonl").write_text("{}")
    with pytest.raises(RecordError, match=r"b\.jsonl, line 1"):
        load_records("*.jsonl")
    with pytest.raises(DataError, match=r"none\*\.jsonl"):
        load_records("none*.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl.*\*\.jsonl"):
        load_records(tmp_path)


@pytest.mark.parametrize("source", ["", "~nobody-of-that-name/a.jsonl", "x" * 5000 + ".jsonl", "a\0.jsonl", "**x.csv"])
def test_sources_that_cannot_exist(source: str):
    with pytest.raises(DataError):
        load_records(source)


def test_ids_that_pandas_wrote_as_floats(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("id,question,schema\n1.0,q,s\n,q,s\n1.5,q,s\nv1.0,q,s\n")
    assert [record.id for record in load_records(path)] == ["1", None, "1.5", "v1.0"]


def test_dialects(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "a.jsonl"
    loaded(path, json.dumps(ROW) + "\n" + json.dumps(ROW | {"dialect": "Snowflake"}))
    assert [record.dialect for record in load_records(path, dialect="PostgreSQL")] == ["postgres", "snowflake"]
    assert not caplog.records
    with pytest.raises(ConfigError, match="klingon"):
        load_records(path, dialect="klingon")
    with pytest.raises(RecordError, match=r"line 1.*'klingon'"):
        loaded(path, json.dumps(ROW | {"dialect": "klingon"}))
    loaded(path, json.dumps(ROW | {"sql": "SELECT a FROM t WHERE b = '::x'"}))
    assert not caplog.records
    loaded(path, json.dumps(ROW | {"sql": "SELECT a::int FROM t WHERE b ILIKE 'x'"}))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


SEEDS = {
    ".jsonl": (json.dumps(ROW) + "\n" + json.dumps(ROW | {"id": 1.0})).encode(),
    ".json": json.dumps({"version": [1, {}], "data": [ROW, ROW]}, indent=1).encode(),
    ".csv": (table(";", "") + '"a ""quoted"" text";b;c\n').encode(),
    ".jsonl.gz": gzip.compress(json.dumps(ROW).encode()),
}
PIECES = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b";",
    b"\n",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"NaN",
    b"1e999",
]
PIECES += [b"\\ud800", b'"data":[', b'""', b"sep=", b"-", b"9" * 120, b"[" * 200, "\u2028é".encode()]


@pytest.mark.parametrize("suffix", SEEDS)
def test_mutated_files_give_records_or_our_errors(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch):
    dice = random.Random(suffix)
    path = tmp_path / f"a{suffix}"
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 2000)
    for _ in range(400):
        content = bytearray(SEEDS[suffix])
        for _ in range(dice.randint(1, 4)):
            start = dice.randrange(len(content) + 1)
            content[start : start + dice.choice([0, 0, 1, 7, 40])] = dice.choice([*PIECES, dice.randbytes(3)])
        path.write_bytes(content)
        with suppress(SQLQuarryError):
            assert load_records(path)


def test_the_index_that_pandas_writes_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",question,schema,sql\n0,How many?,CREATE TABLE t (a INT),SELECT COUNT(*) FROM t\n")
    assert [record.question for record in load_records(path)] == ["How many?"]


def test_the_error_for_carriage_returns_as_line_ends_says_how_to_save_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,schema,sql\rHow many?,CREATE TABLE t (a INT),SELECT COUNT(*) FROM t\r")
    with pytest.raises(RecordError, match=r"line 1.*CSV UTF-8"):
        load_records(path)
