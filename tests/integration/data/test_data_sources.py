"""load_records from Parquet, S3 and the Hugging Face hub, with the libraries that read them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sqlquarry import Record, load_records
from sqlquarry.errors import DataError, MissingExtraError, RecordError

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

    with pytest.raises(RecordError, match="row 2: 'answer' is empty"):
        load_records(parquet(tmp_path / "null.parquet", [ROW, ROW | {"answer": None}]))
    with pytest.raises(RecordError, match=r"row 1: 'answer' is 3 \(int\), but must be text"):
        load_records(parquet(tmp_path / "int.parquet", [ROW | {"answer": 3}]))
    with pytest.raises(RecordError, match=r"broken\.parquet: 1 bad of 1 rows\n  row 1: not Parquet from here on"):
        load_records(broken)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch):
    import boto3
    import moto

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="quarry")
        yield s3


def test_s3(bucket):
    bucket.put_object(Bucket="quarry", Key="some/rows.jsonl.gz", Body=gzip.compress(json.dumps(ROW).encode()))

    (record,) = load_records("s3://quarry/some/rows.jsonl.gz")

    assert record == Record("q?", "CREATE TABLE t (a)", "SELECT a FROM t", id="rows:1")


def test_bad_s3(bucket):
    bucket.put_object(Bucket="quarry", Key="bad.jsonl", Body=b"{}")

    with pytest.raises(DataError, match=r"s3://quarry/gone\.jsonl cannot be read: .*Not Found.*Check bucket"):
        load_records("s3://quarry/gone.jsonl")
    with pytest.raises(RecordError, match=r"^s3://quarry/bad\.jsonl: 1 bad of 1 rows"):
        load_records("s3://quarry/bad.jsonl")


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

    with pytest.raises(DataError, match=r"no file 'owner/name'.*ConnectionError: Couldn't reach.*download its file"):
        load_records("owner/name")


def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = parquet(tmp_path / "a.parquet", [ROW])
    monkeypatch.setattr("sqlquarry.extras.find_spec", lambda _: None)

    for source, extra in ((path, "parquet"), ("s3://b/a.jsonl", "aws"), ("owner/name", "hub")):
        with pytest.raises(MissingExtraError, match=rf"sqlquarry\[{extra}\]"):
            load_records(source)
