"""load_records on every public format, with a small file of the real shape for each."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sqlquarry import Record, load_records
from sqlquarry.errors import ConfigError, DataError, RecordError

SCHEMA = "CREATE TABLE ship (id INTEGER, name TEXT)"
QUESTION, SQL = "How many ships are there?", "SELECT COUNT(*) FROM ship"
SYSTEM = "You translate questions to SQL."
TREE = {"from": {"table_units": [["table_unit", 0]], "conds": []}, "select": [False, [[3, [0, [0, 0, False], None]]]]}
TEXTS = (QUESTION, SCHEMA, SQL)


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(list(rows), indent=4))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def database(path: Path, *statements: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


def texts(path: Path, **options) -> list[tuple[str, str, str | None]]:
    return [(record.question, record.schema, record.sql) for record in load_records(path, **options)]


FORMATS = {
    "gretel": {
        "id": 12,
        "domain": "shipping",
        "domain_description": "Ships and ports.",
        "sql_complexity": "aggregation",
        "sql_task_type": "analytics and reporting",
        "sql_prompt": QUESTION,
        "sql_context": SCHEMA,
        "sql": SQL,
        "sql_explanation": "Counts the rows.",
    },
    "Clinton": {
        "instruction": QUESTION,
        "input": SCHEMA,
        "response": SQL,
        "source": "wikisql",
        "text": f"### Instruction: {QUESTION} ### Input: {SCHEMA} ### Response: {SQL}",
    },
    "Alpaca": {"instruction": QUESTION, "input": SCHEMA, "output": SQL},
    "Alpaca, schema first": {
        "instruction": f"You are an SQL terminal.\n##Schema:\n{SCHEMA}\n",
        "input": f"###Input:\n{QUESTION}\n\n###Response:",
        "output": SQL,
    },
    "Alpaca, one text": {"instruction": f"{QUESTION}\n\n{SCHEMA}", "input": "", "output": SQL, "history": []},
    "ShareGPT": {
        "id": "a",
        "conversations": [
            {"from": "system", "value": f"{SYSTEM}\nSCHEMA:\n{SCHEMA}"},
            {"from": "human", "value": QUESTION},
            {"from": "gpt", "value": f"```sql\n{SQL}\n```"},
        ],
    },
    "ShareGPT, system beside it": {
        "system": SYSTEM,
        "conversations": [
            {"from": "human", "value": f"{SCHEMA}\n\n{QUESTION}"},
            {"from": "gpt", "value": SQL},
        ],
    },
    "messages": {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"### Schema\n{SCHEMA};\n\n### Question\n{QUESTION}\n\n### SQL\n"},
            {"role": "assistant", "content": SQL},
        ]
    },
    "messages of the published recipe": {
        "messages": [
            {
                "role": "system",
                "content": "You are a powerful text-to-SQL model. Your job is to answer questions about a database."
                f"You can use the following table schema for context: {SCHEMA}",
            },
            {"role": "user", "content": f"Return the SQL query that answers the following question: {QUESTION}"},
            {"role": "assistant", "content": SQL},
        ]
    },
    "messages in parts": {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": SCHEMA}]},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": SQL},
        ]
    },
    "prompt and completion": {
        "prompt": [{"role": "user", "content": f"<schema>\n{SCHEMA}\n</schema>\n<question>{QUESTION}</question>"}],
        "completion": [{"role": "assistant", "content": SQL}],
    },
    "prompt and completion as text": {"prompt": f"Question: {QUESTION}\nTables:\n{SCHEMA}\n", "completion": f" {SQL}"},
    "WikiSQL of the hub": {
        "phase": 1,
        "question": QUESTION,
        "table": {"header": ["id", "name"], "types": ["real", "text"], "id": "1-2-3", "name": "table_2_3", "rows": []},
        "sql": {
            "human_readable": "",
            "sel": 0,
            "agg": 3,
            "conds": {"column_index": [1], "operator_index": [0], "condition": ["Bo's"]},
        },
    },
    "sql-create-context": {"question": QUESTION, "context": SCHEMA, "answer": SQL},
    "Spider with a schema": {"question": QUESTION, "query": SQL, "db_id": "port", "schema": SCHEMA, "sql": TREE},
    "BIRD with a schema": {"question": QUESTION, "SQL": SQL, "db_id": "port", "schema": SCHEMA, "evidence": ""},
}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("name", FORMATS)
def test_one_row_of_every_format(tmp_path: Path, name: str, suffix: str):
    row = FORMATS[name]
    if suffix == ".csv":  # Structures are JSON texts there.
        row = {key: value if isinstance(value, str | int) else json.dumps(value) for key, value in row.items()}
        if name == "Spider with a schema":
            row.pop("sql")  # As text, the parse tree could be the query.

    ((question, schema, sql),) = texts(write(tmp_path / f"a{suffix}", row))

    if name == "WikiSQL of the hub":
        expected = (
            "CREATE TABLE table_1_2_3 (id REAL, name TEXT)",
            "SELECT COUNT(id) FROM table_1_2_3 WHERE name = 'Bo''s'",
        )
        assert (schema, sql) == expected
    else:
        assert (question, schema.rstrip(";"), sql) == TEXTS


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_schemas_with_more_than_one_statement(tmp_path: Path, suffix: str):
    rows = """INSERT INTO ship (id, name) VALUES (1, 'Bo; ''x'), (2, 'Al "y"');"""
    gretel = {
        "id": 5097,
        "domain": "shipping",
        "sql_complexity": "single join",
        "sql_prompt": QUESTION,
        "sql_context": f"{SCHEMA}; {rows} CREATE TABLE port (id INT); INSERT INTO port (id) VALUES (1);",
        "sql": f"{SQL};",
        "sql_explanation": "Counts; rows.",
    }
    clinton = {
        "instruction": QUESTION,
        "input": f"CREATE TABLE port (\n    id INTEGER\n)\n\n{SCHEMA}",
        "response": f"{SQL}\n",
        "source": "sede",
        "text": "### Instruction: …",
    }
    assert texts(write(tmp_path / f"gretel{suffix}", gretel)) == [(QUESTION, gretel["sql_context"], f"{SQL};")]
    assert texts(write(tmp_path / f"clinton{suffix}", clinton)) == [(QUESTION, clinton["input"], SQL)]


@pytest.fixture
def spider(tmp_path: Path) -> Path:
    """Return a directory as Spider's archive has it, with one database as a file and another only in tables.json."""
    folder = tmp_path / "spider_data"
    rows = [
        {"db_id": name, "query": f"{SQL} -- {name}", "query_toks": ["select"], "question": QUESTION, "sql": TREE}
        for name in ("port", "order")
    ]
    write(folder / "train_spider.json", *rows)
    write(folder / "train_others.json", rows[0])
    write(folder / "dev.json", rows[1])
    (folder / "train_gold.sql").write_text(f"{SQL}\tport\n")
    write(
        folder / "tables.json",
        {
            "db_id": "order",
            "table_names_original": ["order", "ship"],
            "table_names": ["order", "ship"],
            "column_names_original": [[-1, "*"], [0, "id"], [0, "ship id"], [1, "ID"], [1, "Name"], [1, "built"]],
            "column_names": [[-1, "*"], [0, "id"], [0, "ship id"], [1, "id"], [1, "name"], [1, "built"]],
            "column_types": ["text", "number", "number", "others", "text", "time"],
            "primary_keys": [0, 1, 3],
            "foreign_keys": [[2, 3], [0, 3], [3, 0]],  # Column 0 is "*", which is part of no key.
        },
        {
            "db_id": "port",
            "table_names_original": ["stale"],
            "column_names_original": [[-1, "*"], [0, "id"]],
            "column_types": ["text", "number"],
            "primary_keys": [],
            "foreign_keys": [],
        },
    )
    database(
        folder / "database" / "port" / "port.sqlite",
        SCHEMA,
        "CREATE TABLE b (x PRIMARY KEY)",
        "CREATE INDEX i ON b (x)",
    )
    return folder


ORDER_SCHEMA = (
    'CREATE TABLE "order" (id NUMERIC, "ship id" NUMERIC, PRIMARY KEY (id), '
    'FOREIGN KEY ("ship id") REFERENCES ship (ID));\n'
    "CREATE TABLE ship (ID, Name TEXT, built DATETIME, PRIMARY KEY (ID));"
)
PORT_SCHEMA = f"{SCHEMA};\nCREATE TABLE b (x PRIMARY KEY);"


def test_spider_as_shipped(spider: Path):
    records = load_records(spider)

    assert [record.id for record in records] == ["train_spider:1", "train_spider:2", "train_others:1"]
    assert [record.schema for record in records] == [PORT_SCHEMA, ORDER_SCHEMA, PORT_SCHEMA]
    assert records[0] == Record(QUESTION, PORT_SCHEMA, f"{SQL} -- port", "port", id="train_spider:1")
    assert list(load_records(spider, split="validation")) == list(load_records(spider / "dev.json"))
    assert load_records(str(spider), split="dev")[0].schema == ORDER_SCHEMA
    with pytest.raises(ConfigError, match=r"'test'.*train, dev"):
        load_records(spider, split="test")
    with pytest.raises(ConfigError, match="'dev'"):
        load_records(spider / "dev.json", split="dev")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(ORDER_SCHEMA)  # It is valid SQL.


def test_a_database_that_is_missing_or_damaged_is_an_error(spider: Path):
    write(spider / "dev.json", {"db_id": "prot", "query": SQL, "question": QUESTION})
    with pytest.raises(RecordError, match=r"element 1.*'prot'.*tables\.json.*'port'"):
        load_records(spider, split="dev")
    (spider / "database" / "port" / "port.sqlite").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"port\.sqlite"):
        load_records(spider)
    (spider / "tables.json").write_text('[{"db_id": "order", "table_names_original": ["a"]}]')
    with pytest.raises(DataError, match=r"tables\.json.*'order'.*column_names_original"):
        load_records(spider)


@pytest.mark.parametrize("at_root", [True, False])
def test_bird_as_shipped(tmp_path: Path, at_root: bool):
    root = tmp_path / "bird"
    train, dev = (root, root) if at_root else (root / "train", root / "dev_20240627")
    write(train / "train.json", {"db_id": "port", "question": QUESTION, "evidence": "a ship floats;", "SQL": SQL})
    write(train / "train_tables.json")
    row = {"question_id": 7, "db_id": "port", "question": QUESTION, "evidence": "", "SQL": SQL, "difficulty": "simple"}
    write(dev / "dev.json", row)
    keys = {"column_types": ["text", "integer", "date"], "primary_keys": [[1, 2]], "foreign_keys": []}
    names = {"table_names_original": ["dock"], "column_names_original": [[-1, "*"], [0, "a"], [0, "b"]]}
    write(dev / "dev_tables.json", {"db_id": "dock", **names, **keys})
    nested = dev / "dev_databases" / ("dev_databases" if at_root else "") / "port"
    database(nested / "port.sqlite", SCHEMA)
    (nested / "database_description").mkdir()
    if not at_root:
        database(train / "train_databases" / "port" / "port.sqlite", SCHEMA)

    assert list(load_records(root, split="train")) == [
        Record(QUESTION, f"{SCHEMA};", SQL, "port", id="train:1", notes="a ship floats;")
    ]
    assert list(load_records(root, split="dev")) == [Record(QUESTION, f"{SCHEMA};", SQL, "port", id="7")]
    if not at_root:
        assert list(load_records(dev)) == list(load_records(dev / "dev.json")) == list(load_records(root, split="dev"))
    write(dev / "dev.json", row | {"db_id": "dock"})
    composite = "CREATE TABLE dock (a INTEGER, b DATE, PRIMARY KEY (a, b));"
    assert load_records(root, split="dev")[0].schema == composite


def test_kaggle_dbqa_as_shipped(tmp_path: Path):
    row = {"db_id": "Port", "query": SQL, "question": QUESTION, "question_toks": ["how"], "sql": TREE}
    for name in ("Port", "Port_fewshot", "Port_test", "Dock_test"):
        write(tmp_path / "examples" / f"{name}.json", row)
    (tmp_path / "examples" / "._Port_test.json").write_bytes(b"\0")  # macOS adds such files to archives.
    write(tmp_path / "KaggleDBQA_tables.json")
    database(tmp_path / "databases" / "Port" / "Port.sqlite", SCHEMA)

    assert [record.id for record in load_records(tmp_path)] == ["Port_fewshot:1"]
    assert [record.id for record in load_records(tmp_path, split="test")] == ["Dock_test:1", "Port_test:1"]
    assert texts(tmp_path / "examples" / "Port.json") == [(QUESTION, f"{SCHEMA};", SQL)]


@pytest.fixture
def wikisql(tmp_path: Path) -> Path:
    header = ["State/territory", "no.", "No.", "Order", ""]
    table = {"id": "1-10-1", "header": header, "types": ["text", "real", "text", "text", "text"], "page_title": "x"}
    for name in ("train", "dev"):
        write(tmp_path / "data" / f"{name}.tables.jsonl", table | {"rows": [["a", 1, "b", "c", "d"]]})
    conditions = [[0, 0, "O'Brien"], [1, 1, "1,500"], [1, 2, 3.5], [2, 0, 7], [1, 0, "ten"]]
    write(
        tmp_path / "data" / "train.jsonl",
        {"phase": 1, "table_id": "1-10-1", "question": QUESTION, "sql": {"sel": 4, "conds": conditions, "agg": 0}},
        {"phase": 1, "table_id": "1-10-1", "question": QUESTION, "sql": {"sel": 3, "conds": [], "agg": 1}},
    )
    row = {"phase": 2, "table_id": "1-10-1", "question": QUESTION, "sql": {"sel": 0, "conds": [], "agg": 0}}
    write(tmp_path / "data" / "dev.jsonl", row)
    return tmp_path


def test_wikisql_as_shipped(wikisql: Path):
    first, second = load_records(wikisql)

    schema = 'CREATE TABLE table_1_10_1 ("State/territory" TEXT, "no." REAL, "No. 2" TEXT, "Order" TEXT, col4 TEXT)'
    assert first.schema == second.schema == schema
    assert first.sql == (
        'SELECT col4 FROM table_1_10_1 WHERE "State/territory" = \'O\'\'Brien\' AND "no." > 1500 AND "no." < 3.5 '
        "AND \"No. 2\" = '7' AND \"no.\" = 'ten'"
    )
    assert second.sql == 'SELECT MAX("Order") FROM table_1_10_1'
    assert second.id == "train:2"
    assert load_records(wikisql / "data", split="dev") == load_records(wikisql / "data" / "dev.jsonl")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(schema)
        for record in (first, second):
            connection.execute(record.sql)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"table_id": ["1-10-1"]}, "line 1: .*1-10-1"),
        ({"table_id": "1-10-2"}, r"line 1: .*'1-10-2'.*dev\.tables\.jsonl"),
        ({"sql": {"sel": 5, "conds": [], "agg": 0}}, r"line 1: 'sel'.*\b5\b.*\b4\b"),
        ({"sql": {"sel": -1, "conds": [], "agg": 0}}, r"line 1: 'sel'.*-1"),
        ({"sql": {"sel": 0, "conds": [], "agg": 6}}, r"line 1: 'agg'.*\b6\b.*\b5\b"),
        ({"sql": {"sel": 0, "conds": [[0, 3, "x"]], "agg": 0}}, r"line 1: 'conds'.*\b3\b.*\b2\b"),
        ({"sql": {"sel": 0, "conds": [[0, 0]], "agg": 0}}, "line 1: 'conds'"),
        (
            {"sql": {"sel": 0, "conds": {"column_index": [1], "operator_index": [], "condition": []}}},
            "line 1: '(conds|agg)'",
        ),
        ({"sql": "SELECT 1"}, "line 1: 'sql'.*SELECT 1"),
    ],
)
def test_bad_wikisql_rows(wikisql: Path, change: dict[str, object], error: str):
    path = wikisql / "data" / "dev.jsonl"
    write(path, json.loads(path.read_text()) | change)
    with pytest.raises(RecordError, match=error):
        load_records(path)


def test_wikisql_without_its_tables(wikisql: Path):
    (wikisql / "data" / "dev.tables.jsonl").unlink()
    with pytest.raises(RecordError, match=r"line 1: .*table_id.*NAME\.tables\.jsonl"):
        load_records(wikisql / "data" / "dev.jsonl")
    (wikisql / "data" / "train.tables.jsonl").write_text("{}\n[")
    with pytest.raises(DataError, match=r"train\.tables\.jsonl, line 2"):
        load_records(wikisql / "data" / "train.jsonl")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"table_names_original": ["a", "b"]}, r"ValueError.*\bb\b"),
        ({"table_names_original": [3]}, r"TypeError.*\b3\b"),
        ({"column_names_original": [[0, "x"], [1, "y"]]}, "IndexError"),
        ({"column_names_original": [[0, "x"], ["0", "y"]]}, "TypeError.*'0'"),
        ({"column_names_original": [[0, "x"], [-2, "y"]]}, "ValueError.*-2"),
        ({"column_names_original": [[0, "x"], [0]]}, r"ValueError.*\[0\]"),
        ({"column_types": ["text"]}, "ValueError"),
        ({"primary_keys": [2]}, "IndexError"),
        ({"foreign_keys": [[0]]}, "ValueError"),
        ({"foreign_keys": None}, "TypeError"),
    ],
)
def test_a_damaged_list_of_tables_is_an_error_with_the_database(tmp_path: Path, change: dict[str, object], error: str):
    good = {"table_names_original": ["a"], "column_names_original": [[0, "x"], [0, "y"]], "column_types": ["text"] * 2}
    row = {"db_id": "port", "question": QUESTION, "query": SQL}
    tables = write(tmp_path / "tables.json", {"db_id": "port"} | good)
    assert load_records([row], schema=tables)[0].schema == "CREATE TABLE a (x TEXT, y TEXT);"
    write(tables, {"db_id": "port"} | good | change)
    with pytest.raises(DataError, match=rf"tables\.json.*'port'.*{error}"):
        load_records([row], schema=tables)


def test_other_directories_are_refused_and_known_ones_are_listed(tmp_path: Path):
    write(tmp_path / "questions.jsonl", {"x": 1})
    with pytest.raises(DataError, match=r"questions\.jsonl.*BIRD, KaggleDBQA, Spider, WikiSQL"):
        load_records(tmp_path)
