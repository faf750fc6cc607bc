"""load_records from Parquet, S3 and the Hugging Face hub, with the real libraries."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from contextlib import suppress
from pathlib import Path

import pytest

from sqlquarry import Record, Records, load_records
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import ConfigError, DataError, MissingExtraError, RecordError, SQLQuarryError

ROW = {"question": "q?", "context": "CREATE TABLE t (a)", "answer": "[SQL] SELECT a FROM t [/SQL]"}


def parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_parquet(tmp_path: Path):
    path = parquet(tmp_path / "a.parquet", [ROW] * 5000)
    zipped = tmp_path / "b.parquet.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))

    assert len(load_records(path)) == 5000
    assert load_records(path)[4999] == Record("q?", "CREATE TABLE t (a)", "SELECT a FROM t", id="a:5000")
    assert load_records(zipped, limit=3)[2].id == "b:3"


def test_bad_parquet(tmp_path: Path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(parquet(tmp_path / "a.parquet", [ROW]).read_bytes()[:-20])

    with pytest.raises(RecordError, match="row 2: 'answer'"):
        load_records(parquet(tmp_path / "null.parquet", [ROW, ROW | {"answer": None}]))
    with pytest.raises(RecordError, match=r"row 1: 'answer'.*\b3 \(int\)"):
        load_records(parquet(tmp_path / "int.parquet", [ROW | {"answer": 3}]))
    with pytest.raises(RecordError, match=r"broken\.parquet: 1\b.*\b1\b.*\n  row 1: .*Parquet.*ArrowInvalid"):
        load_records(broken)


def test_columns_that_cannot_be_read_do_not_matter_unless_they_are_needed(tmp_path: Path):
    import pyarrow as pa
    from pyarrow import parquet as pq

    late = pa.array([2**55, 0], pa.timestamp("ms", "Mars/Olympus"))
    strange = {"when": late, "day": pa.array([2**30, 1], pa.date32()), "deep": pa.array([[{"a": [1]}], None])}
    known = {name: pa.array([value] * 2, pa.large_string()) for name, value in ROW.items()}
    pq.write_table(pa.table(known | strange), tmp_path / "a.parquet")
    assert len(load_records(tmp_path / "a.parquet")) == 2

    days = known | {"id": pa.array([2**55, 1], pa.timestamp("ms"))}
    pq.write_table(pa.table(days), tmp_path / "b.parquet")
    with pytest.raises(RecordError, match=r"(?s)\b2\b.*\b2\b.*row 1: 'id' .*\(\w+Error.*row 2: 'id' .*datetime"):
        load_records(tmp_path / "b.parquet")

    pq.write_table(pa.table(strange), tmp_path / "c.parquet")
    with pytest.raises(RecordError, match=r"\(when, day, deep\)"):
        load_records(tmp_path / "c.parquet")


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path):
    import pyarrow as pa
    from pyarrow import parquet as pq

    columns = [pa.array([value]) for value in ("q", "s", "t")]
    pq.write_table(pa.Table.from_arrays(columns, names=["question", "schema", "schema"]), tmp_path / "a.parquet")
    with pytest.raises(RecordError, match=r"row 1: .*question, schema, schema"):
        load_records(tmp_path / "a.parquet")


def test_parquet_as_pandas_writes_it(tmp_path: Path):
    rows = [{"Question": "q", "schema": "s", "sql": float("nan"), "id": 1.0}] * 2
    assert list(load_records(parquet(tmp_path / "a.PARQUET", rows))) == [Record("q", "s", id="1")] * 2


def test_damaged_parquet_gives_our_errors(tmp_path: Path):
    dice = random.Random(5)
    whole = parquet(tmp_path / "a.parquet", [ROW | {"n": n} for n in range(50)]).read_bytes()
    path = tmp_path / "b.parquet"
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 5)):
            start = dice.randrange(len(content))
            content[start : start + dice.choice([1, 1, 9])] = dice.randbytes(1)
        path.write_bytes(content)
        with suppress(SQLQuarryError):
            assert load_records(path)


@pytest.fixture(scope="module")
def aws():
    with LocalAWS() as running:
        yield running


@pytest.fixture(autouse=True)
def no_aws_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["rows.jsonl", "some/rows.jsonl.gz"])
@pytest.mark.parametrize("kind", [str, Path])
def test_s3_with_only_a_session(aws, name, kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    records = Records([Record("q?", "CREATE TABLE t (a)", "SELECT a FROM t", id=str(n)) for n in range(20)])
    uri = f"s3://{aws.bucket}/{name}"

    records.to_jsonl(kind(uri), session=aws.session())

    assert load_records(kind(uri), session=aws.session()) == records
    assert len(load_records(uri, session=aws.session(), limit=3)) == 3
    assert not list(tmp_path.iterdir())


def test_repairs_and_quarantine_are_written_to_s3(aws):
    records = Records(
        [Record("How old?", "CREATE TABLE t (a)", "SELECT a FROM t;"), Record("Who?", "CREATE TABLE t (a)", "SELECT b")]
    )
    folder, session = f"s3://{aws.bucket}/checkup", aws.session()
    repair = records.repair()
    repair.to_json(f"{folder}/repair.json", session=session)
    written = session.client("s3").get_object(Bucket=aws.bucket, Key="checkup/repair.json")["Body"].read()
    assert json.loads(written)["counts"] == repair.counts == {"final-semicolon": 1}
    kept = records.quarantine(records.check(), f"{folder}/bad.jsonl", session=session)
    assert load_records(f"{folder}/bad.jsonl", session=session) == records[1:]
    assert kept == records[:1]


def test_bad_s3(aws):
    session, bucket = aws.session(), aws.bucket
    session.client("s3").put_object(Bucket=bucket, Key="bad.jsonl", Body=b"{}")

    with pytest.raises(DataError, match=rf"s3://{bucket}/gone\.jsonl .*s3:GetObject"):
        load_records(f"s3://{bucket}/gone.jsonl", session=session)
    with pytest.raises(RecordError, match=rf"^s3://{bucket}/bad\.jsonl: 1\b.*\b1\b"):
        load_records(f"s3://{bucket}/bad.jsonl", session=session)
    with pytest.raises(DataError, match="s3:PutObject"):
        Records([Record("q", "s")]).to_jsonl("s3://nobodys-bucket-at-all/a.jsonl", session=session)
    for uri in ("s3://bucket", "s3:/", f"s3://{bucket}/*.jsonl", f"s3://{bucket}/"):
        with pytest.raises(DataError, match=re.escape(uri)):
            load_records(uri, session=session)
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        Records([Record("q", "s")]).to_jsonl(f"s3://{bucket}/a.csv", session=session)


def test_hub(monkeypatch: pytest.MonkeyPatch):
    import datasets

    asked = []

    def load_dataset(name: str, split: str) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset.from_list([ROW, ROW])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    assert [record.id for record in load_records("b-mc2/sql-create-context")] == [
        "sql-create-context:1",
        "sql-create-context:2",
    ]
    assert asked == [("b-mc2/sql-create-context", "train")]


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    import datasets

    def load_dataset(name: str, split: str) -> None:
        raise ConnectionError(f"Couldn't reach {name} {split}")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    with pytest.raises(DataError, match=r"'owner/name'.*ConnectionError: Couldn't reach owner/name train.*HF_TOKEN"):
        load_records("owner/name")


def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = parquet(tmp_path / "a.parquet", [ROW])
    monkeypatch.setattr("sqlquarry.extras.find_spec", lambda _: None)

    for source, extra in ((path, "parquet"), ("s3://b/a.jsonl", "aws"), ("owner/name", "hub")):
        with pytest.raises(MissingExtraError, match=rf"sqlquarry\[{extra}\]"):
            load_records(source)
