"""load_records on rows in memory, and records as DataFrames, data sets and files, with the real libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sqlquarry import Record, Records, load_records
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import ConfigError, RecordError

ROWS = [
    {"question": "q1", "context": "CREATE TABLE t (a)", "answer": "SELECT 1", "id": 1, "when": None},
    {"question": "q2", "context": "CREATE TABLE t (a)", "answer": "SELECT 2", "id": None, "when": None},
]
RECORDS = Records(
    [Record("q1", "CREATE TABLE t (a)", "SELECT 1", id="1"), Record("q2", "CREATE TABLE t (a)", "SELECT 2")]
)
FULL = Records(
    [
        Record("q", "s", "x", "d", "postgres", "1", ["y", "z"]),
        Record("ä\n", " s", None),
        Record("q", "s", "x", None, "sqlite", None),
    ]
)


def test_lists_and_iterators():
    assert load_records(ROWS) == load_records(tuple(ROWS)) == load_records(iter(ROWS)) == RECORDS
    assert load_records(list(RECORDS)) == load_records(RECORDS) == RECORDS
    assert load_records([*RECORDS, {"question": "q", "schema": "s"}])[2] == Record("q", "s", id="row:3")
    assert len(load_records(ROWS, limit=1)) == 1
    with pytest.raises(RecordError, match=r"(?s)\b2\b.*\b3\b.*row 2: .*\bint\b.*row 3: .*\(x\)"):
        load_records([ROWS[0], 3, {"x": 1}])


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (ROWS[0], r"\[row\]"),
        ({"train": ROWS}, "by its key"),
        (RECORDS[0], r"\[record\]"),
        (["a.jsonl", "b.jsonl"], "load_records"),
        ([Path("a.jsonl")], "load_records"),
        (b"a.jsonl", r"a\.jsonl"),
        (None, "None"),
    ],
)
def test_other_objects(source: object, error: str):
    with pytest.raises(ConfigError, match=error):
        load_records(source)  # type: ignore[arg-type] - the mistake under test
    with pytest.raises(ConfigError, match=r"'dev'.*list"):
        load_records(ROWS, split="dev")


@pytest.mark.parametrize("backend", ["numpy", "numpy_nullable", "pyarrow"])
def test_pandas(backend: str, tmp_path: Path):
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    if backend != "numpy":
        frame = frame.convert_dtypes(dtype_backend=backend)
    frame["when"] = pd.Timestamp("2020-01-01")

    assert load_records(frame) == RECORDS
    assert load_records(frame.rename(columns={"question": "Frage"}), columns={"question": "frage"}) == RECORDS
    with pytest.raises(RecordError, match="question, question"):
        load_records(frame[["question", "question"]])
    FULL.to_parquet(tmp_path / "a.parquet")
    options = {} if backend == "numpy" else {"dtype_backend": backend}
    assert load_records(pd.read_parquet(tmp_path / "a.parquet", **options)) == FULL


class PolarsFrame:
    """What load_records uses of a polars DataFrame."""

    columns = tuple(ROWS[0])

    def iter_rows(self):
        return iter([tuple(row.values()) for row in ROWS])


class LazyFrame:
    def collect(self) -> PolarsFrame:
        return PolarsFrame()


def test_polars():
    assert load_records(PolarsFrame()) == RECORDS
    with pytest.raises(ConfigError, match=r"LazyFrame.*collect\(\)"):
        load_records(LazyFrame())  # type: ignore[arg-type] - the mistake under test


def test_polars_itself():
    polars = pytest.importorskip("polars")
    assert load_records(polars.DataFrame(ROWS)) == RECORDS
    with pytest.raises(ConfigError, match="LazyFrame"):
        load_records(polars.LazyFrame(ROWS))


def test_datasets():
    import datasets

    data = datasets.Dataset.from_list(ROWS)
    assert load_records(data) == load_records(data.to_iterable_dataset()) == RECORDS
    splits = datasets.DatasetDict({"train": data, "validation": data.select([1])})
    assert load_records(splits) == RECORDS
    assert load_records(splits, split="dev") == RECORDS[1:]
    assert load_records(datasets.DatasetDict({"all": data})) == RECORDS
    plain = data.remove_columns("id")
    assert [r.id for r in load_records(datasets.DatasetDict({"validation": plain}))] == ["validation:1", "validation:2"]
    for split, error in (("tset", "'tset'.*train, validation"), (None, "a, b")):
        with pytest.raises(ConfigError, match=error):
            load_records(splits if split else datasets.DatasetDict({"a": data, "b": data}), split=split)
    with pytest.raises(ConfigError, match="'train'"):
        load_records(data, split="train")


def test_hub_splits(monkeypatch: pytest.MonkeyPatch):
    import datasets

    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: asked.append((name, split)) or datasets.Dataset.from_list(ROWS)
    )
    assert load_records("owner/name", split="validation[:10%]") == RECORDS
    assert asked == [("owner/name", "validation[:10%]")]


def test_a_hub_data_set_has_nothing_to_do_with_local_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    rows = [{"question": "q", "query": "SELECT 1", "db_id": "port"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "databases").mkdir()
    (tmp_path / "databases" / "port.sql").write_text("CREATE TABLE t (a)")
    with pytest.raises(RecordError, match=r"row 1: .*'port'.*schema="):
        load_records("questions")
    assert load_records("questions", schema="databases")[0].schema == "CREATE TABLE t (a)"


def test_a_dataset_has_the_fields_of_the_records():
    import datasets

    data = FULL.to_dataset()

    assert data.column_names == ["question", "schema", "sql", "database", "dialect", "id", "alternatives", "notes"]
    assert load_records(data) == FULL
    assert Records().to_dataset().features == data.features
    assert isinstance(data, datasets.Dataset)


def test_parquet_gives_equal_records(tmp_path: Path):
    import pyarrow.parquet as pq

    many = Records([*FULL] * 9000)
    many.to_parquet(tmp_path / "new" / "a.parquet")
    assert load_records(tmp_path / "new" / "a.parquet") == many
    assert pq.ParquetFile(tmp_path / "new" / "a.parquet").num_row_groups == 3
    Records().to_parquet(tmp_path / "empty.parquet")
    assert pq.read_table(tmp_path / "empty.parquet").num_rows == 0
    before = (tmp_path / "empty.parquet").read_bytes()
    with pytest.raises(RecordError, match="surrogate"):
        Records([Record("q", "s\ud800")]).to_parquet(tmp_path / "empty.parquet")
    assert (tmp_path / "empty.parquet").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["empty.parquet"]


@pytest.mark.parametrize(("method", "ending"), [("to_parquet", ".parquet"), ("to_messages", ".jsonl")])
def test_the_ending_of_a_file_shows_its_format(tmp_path: Path, method: str, ending: str):
    with pytest.raises(ConfigError, match=rf"a\.csv.*\{ending}"):
        getattr(FULL, method)(tmp_path / "a.csv")


def test_files_are_also_written_to_s3():
    with LocalAWS() as aws:
        session, uri = aws.session(), f"s3://{aws.bucket}/data"
        RECORDS.to_parquet(f"{uri}/a.parquet", session=session)
        RECORDS.to_messages(f"{uri}/a.jsonl.gz", session=session)
        session.client("s3").put_object(Bucket=aws.bucket, Key="data/t.sql", Body=b"CREATE TABLE t (a)")

        assert load_records(f"{uri}/a.parquet", session=session) == RECORDS
        assert [r.sql for r in load_records(f"{uri}/a.jsonl.gz", session=session)] == ["SELECT 1", "SELECT 2"]
        question = [{"question": "q", "answer": "SELECT 1"}]
        assert load_records(question, schema=f"{uri}/t.sql", session=session)[0].schema == "CREATE TABLE t (a)"
        with pytest.raises(ConfigError, match=r"'train'.*s3://"):
            load_records(f"{uri}/a.parquet", session=session, split="train")


def test_rows_in_memory_import_no_other_package():
    code = (
        "import sys, sqlquarry as sq\n"
        "sq.load_records([{'question': 'q', 'context': 'c', 'answer': 'a'}])\n"
        "print([name for name in ('pandas', 'polars', 'datasets', 'pyarrow', 'boto3', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
