"""load_records: all formats and shapes, and many kinds of bad files."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import re
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record, Records, load_records
from sqlquarry.data import formats, rows
from sqlquarry.errors import ConfigError, DataError, RecordError
from sqlquarry.files.metadata import MAX_DEPTH

ROW = {"question": "How many users?", "schema": "CREATE TABLE users (id)", "sql": "SELECT COUNT(*) FROM users"}
RECORD = Record(ROW["question"], ROW["schema"], ROW["sql"])
# Characters that break readers: line separators that are not line ends, quotes, escapes, BOM, control characters.
nasty = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("\u2028\u2029\x85\r\n\t\"'\\\ufeff\x00,")))
filled = nasty.filter(str.strip)
any_record = st.builds(
    Record,
    filled,
    filled,
    st.none() | filled,
    st.none() | nasty,
    st.sampled_from(["sqlite", "postgres"]),
    st.none() | nasty,
)


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@given(rows=st.lists(any_record, min_size=1, max_size=5), suffix=st.sampled_from([".jsonl", ".jsonl.gz"]))
def test_load_records_returns_the_records_that_to_jsonl_wrote(tmp_path_factory, rows, suffix):
    path = tmp_path_factory.mktemp("trip") / f"records{suffix}"

    Records(rows).to_jsonl(path)

    assert load_records(path) == Records(rows)
    assert load_records(path).digest == Records(rows).digest


@given(rows=st.lists(st.tuples(filled, filled, filled), min_size=1, max_size=4))
def test_csv_keeps_any_text(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("trip") / "records.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "schema", "sql"])
        writer.writerows(rows)

    assert [(r.question, r.schema, r.sql) for r in load_records(path)] == rows


@given(content=st.binary(max_size=200), suffix=st.sampled_from([".json", ".jsonl", ".csv", ".jsonl.gz", ".parquet"]))
def test_random_bytes_give_a_data_error(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("noise") / f"records{suffix}"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"records\."):
        load_records(path)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.json.gz", "a.jsonl.gz", "a.csv", "a.csv.gz"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_formats(tmp_path: Path, name: str, bom: bytes, newline: str):
    if ".csv" in name:
        text = "question,schema,sql\n" + 2 * f"{ROW['question']},{ROW['schema']},{ROW['sql']}\n"
    elif ".json." in name or name.endswith(".json"):
        text = json.dumps([ROW, ROW], indent=1)
    else:
        text = 2 * (json.dumps(ROW) + "\n\n")
    content = bom + text.replace("\n", newline).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    loaded = load_records(tmp_path / name)

    assert [(r.question, r.schema, r.sql) for r in loaded] == 2 * [(RECORD.question, RECORD.schema, RECORD.sql)]
    expected = {".json": ["a:1", "a:2"], ".csv": ["a:2", "a:3"]}
    assert [r.id for r in loaded] == expected.get("." + name.split(".")[1], ["a:1", "a:3"])


def test_json_lines_in_a_json_file(tmp_path: Path):
    assert len(load_records(jsonl(tmp_path / "a.json", ROW, ROW))) == 2


@pytest.mark.parametrize(
    ("row", "record"),
    [
        (
            {
                "question": " q\n",
                "context": "CREATE TABLE t (a) ",
                "answer": "[SQL] SELECT a FROM t [/SQL]",
                "source": 1,
            },
            Record("q", "CREATE TABLE t (a)", "SELECT a FROM t", id="a:1"),
        ),
        (
            {"question": "q", "query": "SELECT 1", "db_id": "d", "sql": {"from": []}, "schema": "s"},
            Record("q", "s", "SELECT 1", "d", id="a:1"),
        ),
        (
            {"question": "q", "query": "SELECT 1", "db_id": "d", "tables": "s"},
            Record("q", "s", "SELECT 1", "d", id="a:1"),
        ),
        (
            {
                "question_id": 7,
                "question": "q?",
                "SQL": "SELECT 1",
                "db_id": "d",
                "evidence": "q means x",
                "schema": "s",
            },
            Record("q?", "s", "SELECT 1", "d", id="7", notes="q means x"),
        ),
        (
            {"question": "q?", "SQL": "SELECT 1", "db_id": "d", "evidence": " ", "schema": "s"},
            Record("q?", "s", "SELECT 1", "d", id="a:1"),
        ),
        ({"question": " q", "schema": "s"}, Record(" q", "s", id="a:1")),
        (
            {"question": "q", "schema": "s", "sql": "[SQL] x", "database": "d", "dialect": "mysql", "id": "i"},
            Record("q", "s", "[SQL] x", "d", "mysql", "i"),
        ),
        ({"question": "q", "schema": "s", "id": None, "dialect": None, "sql": None}, Record("q", "s")),
    ],
    ids=[
        "sql-create-context",
        "Spider",
        "Spider tables",
        "BIRD",
        "BIRD no evidence",
        "ours",
        "ours full",
        "ours nulls",
    ],
)
def test_shapes(tmp_path: Path, row: dict[str, object], record: Record):
    assert list(load_records(jsonl(tmp_path / "a.jsonl", row))) == [record]


def test_duplicates_are_kept(tmp_path: Path):
    assert len(load_records(jsonl(tmp_path / "a.jsonl", ROW, ROW, ROW))) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "gold": "x"}, r"line 2: .*\(question, gold\)"),
        ({"question": "q", "context": "c"}, r"line 2: .*\(question, context\)"),
        ({"question": "q", "schema": "s", "answer": "SELECT 1"}, r"line 2: .*\(question, schema, answer\)"),
        ({"question": "q", "query": "SELECT 1", "db_id": "d"}, "line 2: .*'d'.*CREATE TABLE.*'schema'"),
        (ROW | {"question": "  "}, "line 2: 'question'"),
        (ROW | {"schema": ""}, "line 2: 'schema'"),
        (ROW | {"question": None}, "line 2: 'question'"),
        (ROW | {"sql": " "}, r"line 2: .*a:2.*\bsql\b.*' '"),
        (ROW | {"sql": ["SELECT 1"]}, r"line 2: 'sql'.*\['SELECT 1'\] \(list\)"),
        (ROW | {"id": 1.5}, r"line 2: 'id'.* 1\.5 \(float\)"),
        (ROW | {"schema": "x\ud800"}, r"line 2: 'schema'.*surrogate.*\b2\b"),
        ({"question": "q", "context": "c", "answer": "[SQL]  [/SQL]"}, r"line 2: .*\bsql\b.*''"),
        ({"question": "q", "context": "c", "answer": None}, "line 2: 'answer'"),
        ([1], r"line 2: .*\blist\b"),
    ],
)
def test_bad_rows(tmp_path: Path, row: object, message: str):
    path = jsonl(tmp_path / "a.jsonl", ROW, row)

    with pytest.raises(RecordError, match=message) as caught:
        load_records(path)

    assert re.match(rf"{re.escape(str(path))}: 1\b.*\b2\b", str(caught.value))
    assert "question, context, answer[, database, dialect, id] (sql-create-context)" in str(caught.value)


def test_all_bad_rows_are_counted_and_ten_are_shown(tmp_path: Path):
    with pytest.raises(RecordError) as caught:
        load_records(jsonl(tmp_path / "a.jsonl", ROW, *[{"x": 1}] * 25))

    message = str(caught.value)
    assert re.search(r"\b25\b.*\b26\b", message)
    assert "line 2:" in message
    assert "line 11:" in message
    assert "line 12:" not in message
    assert re.search(r"\b15\b", message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"question": \n', r"line 1: .*Expecting value at column 14\b"),
        ("a.jsonl", b'{"question": \r\n{}\n', r"line 1: .*Expecting value at column 14\b"),
        ("a.jsonl", b'{"question": "q\n', r"line 1: .*Unterminated string .* at column 14\b"),
        ("a.jsonl", b"\n" + b"[" * 100_000, r"line 2: .*\barray\b"),
        ("a.jsonl", b"\n\xff\n", "line 2: .*UTF-8.*0xff"),
        ("a.jsonl", '{"question": "q"}'.encode("utf-16"), "line 1: .*UTF-16"),
        ("a.json", b'[{"question": 1},\n {]', r"line 2: .*\barray\b.*Expecting .* at column 3"),
        ("a.json", b'[\n"\xff"]', "line 2: .*UTF-8.*0xff"),
        ("a.json", b"[3]", r"element 1: .*\bint\b"),
        ("a.json", b'[{"question": "q", "schema": " "}]', "element 1: 'schema'"),
        ("a.csv", b"question,schema\nq\n", r"line 2: \D*\b1\b\D*\b2\b"),
        ("a.csv", b"question,schema\nq,s,x\n", r"line 2: \D*\b3\b\D*\b2\b"),
        ("a.csv", b'question,schema\n\n"two\nlines",s\n\n"three\n\nlines",\n', "line 6: 'schema'"),
        ("a.csv", b'question,schema\nq,s\n"q,s\nq,s\n', "line 3: .*CSV.*unexpected end of data"),
        ("a.csv", b"question,schema\nq,s\nq,\xff\n", "line 3: .*CSV.*line 3 .*UTF-8.*0xff"),
        ("a.csv", b"question,schema,schema\nq,s,s\n", "line 1: .*question, schema, schema"),
        ("a.csv", b"question:schema\nq:s\n", r"line 2: .*\(question:schema\)"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(RecordError, match=message):
        load_records(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.json", b"[]"),
        ("a.json", b'{\n  "rows": []\n}'),
        ("a.json", b" "),
        ("a.csv", b"question,schema\n"),
        ("a.jsonl.gz", b""),
    ],
)
def test_files_without_records(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=re.escape(name)) as caught:
        load_records(tmp_path / name)

    assert type(caught.value) is DataError
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("damage", ["cut", "corrupt", "plain"])
def test_damaged_gzip(tmp_path: Path, damage: str):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b"".join(json.dumps(ROW | {"question": f"q{n}"}).encode() + b"\n" for n in range(500)))
    middle = len(whole) // 2
    path.write_bytes(
        {"cut": whole[:middle], "corrupt": whole[:middle] + b"\xff" * 40 + whole[middle + 40 :], "plain": b"{}"}[damage]
    )

    with pytest.raises(DataError, match=r"a\.jsonl\.gz") as caught:
        load_records(path)

    causes = {"cut": EOFError, "corrupt": (zlib.error, gzip.BadGzipFile), "plain": gzip.BadGzipFile}
    assert isinstance(caught.value.__cause__, causes[damage])


def test_sources_that_do_not_exist_or_have_an_unknown_format(tmp_path: Path):
    jsonl(tmp_path / "a.txt", ROW)

    with pytest.raises(DataError, match=r"missing\.jsonl"):
        load_records(tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match=r"data/missing\.jsonl"):
        load_records("data/missing.jsonl")
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path))} .*\.jsonl, .*\.parquet"):
        load_records(tmp_path)
    with pytest.raises(DataError, match=r"a\.txt .*\.jsonl, .*\.parquet"):
        load_records(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"s3://bucket .*s3://bucket/key"):
        load_records("s3://bucket")
    with pytest.raises(DataError, match=r"s3://bucket/key\.xlsx.*\.jsonl, .*\.parquet.*CSV UTF-8"):
        load_records("s3://bucket/key.xlsx")


def test_files_and_directories_that_cannot_be_read_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = jsonl(tmp_path / "a.jsonl", ROW)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no access")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a\.jsonl .*no access") as caught:
        load_records(path)
    assert isinstance(caught.value.__cause__, PermissionError)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path))} .*no access"):
        load_records(tmp_path)


def test_limit(tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", ROW, ROW, {"bad": 1})

    assert len(load_records(path, limit=2)) == 2
    assert load_records(str(path), limit=1)[0].id == "a:1"
    with pytest.raises(RecordError, match="line 3"):
        load_records(path, limit=3)
    with pytest.raises(ConfigError, match=r"limit\b.*\b0\b"):
        load_records(path, limit=0)


def test_alternatives_are_read_from_json_lines_and_csv(tmp_path):
    records = Records([Record("q", "CREATE TABLE t (a)", "SELECT 1", alternatives=("SELECT 2", "SELECT 3"), id="x")])
    records.to_jsonl(tmp_path / "a.jsonl")
    assert load_records(tmp_path / "a.jsonl") == records
    (tmp_path / "a.csv").write_text(
        'question,schema,sql,alternatives,id\nq,CREATE TABLE t (a),SELECT 1,"[""SELECT 2"", ""SELECT 3""]",x\n'
    )
    assert load_records(tmp_path / "a.csv") == records
    for bad in ('"SELECT 2"', '["SELECT 2", 3]', '["  "]', "7"):
        (tmp_path / "bad.jsonl").write_text(
            '{"question": "q", "schema": "s", "sql": "SELECT 1", "alternatives": ' + bad + "}\n"
        )
        with pytest.raises(RecordError, match="alternatives"):
            load_records(tmp_path / "bad.jsonl")


def test_a_line_that_would_exhaust_the_memory_is_refused_early(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(json.dumps(ROW).encode() + b'\n{"question": "')
        for _ in range(1100):
            file.write(b"x" * 2**18)
        file.write(b'"}\n')
    tracemalloc.start()
    with pytest.raises(RecordError, match=f"line 2: .*{rows.MAX_LINE_BYTES:,}"):
        load_records(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * rows.MAX_LINE_BYTES
    assert load_records(path, limit=1) == Records([dataclasses.replace(RECORD, id="bomb:1")])


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".csv", ".json", ".jsonl.gz"])
def test_lines_that_are_too_long_are_refused_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 200)
    path = tmp_path / f"records{suffix}"
    text = "question,schema,sql\n" if suffix == ".csv" else json.dumps(ROW) + "\n"
    content = (text + "x" * 201 + "\n" + text).encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    with pytest.raises(RecordError, match=r"line 2.*\b200\b"):
        load_records(path)


def test_files_that_must_be_read_completely_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_WHOLE_BYTES", 300)
    path = tmp_path / "records.parquet.gz"
    path.write_bytes(gzip.compress(bytes(301)))
    with pytest.raises(DataError, match=r"records\.parquet\.gz .*\b300\b"):
        load_records(path)
    path = tmp_path / "records.json"  # An array is read in pieces, so it has no limit.
    path.write_text(json.dumps([ROW] * 4))
    assert len(load_records(path)) == 4


def test_a_file_that_unpacks_to_too_many_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_MAX_UNPACKED_BYTES", 0)
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join([json.dumps(ROW).encode()] * 50_000)))
    with pytest.raises(DataError, match=rf"records\.jsonl\.gz .*\b{200 * path.stat().st_size:,}\b"):
        load_records(path)
    path.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    assert len(load_records(path)) == 1


@pytest.mark.parametrize("deep", ["[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_rows_that_are_nested_too_deeply_are_bad_rows(tmp_path: Path, deep: str, suffix: str) -> None:
    path = tmp_path / f"records{suffix}"
    row = f'{{"question": "q", "schema": "s", "sql": {deep}}}'
    path.write_text(f"[{row}]" if suffix == ".json" else f"{json.dumps(ROW)}\n{row}")
    with pytest.raises(RecordError, match=rf"line {1 if suffix == '.json' else 2}: .*\b{MAX_DEPTH}\b"):
        load_records(path)
