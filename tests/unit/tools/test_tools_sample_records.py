"""The generated sample records: number, kinds, split, form of questions and SQL, and repeatability."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import sqlglot

import tools
from sqlquarry.data import sample
from sqlquarry.data.sample import KINDS, Kind, sample_kind, sample_records
from tools.sample_data.dice import Dice
from tools.sample_data.domains import DOMAINS, HELD_OUT
from tools.sample_data.files import data_files

ALL = sample_records()
PACKAGE = Path(sample.__file__).parent
REPOSITORY = Path(tools.__file__).parents[1]
GENERATED = (
    "import hashlib; from tools.sample_data.files import data_files;"
    "print(hashlib.sha256(repr(data_files()).encode()).hexdigest())"
)


def test_the_number_of_records_and_domains_is_in_range() -> None:
    counts = Counter(record.database for record in ALL)
    assert 2_200 <= len(ALL) <= 3_000
    assert len(counts) == len(DOMAINS) == 14
    assert all(120 <= count <= 260 for count in counts.values()), counts


def test_simple_kinds_are_more_frequent_than_hard_ones() -> None:
    counts = Counter(sample_kind(record) for record in ALL)
    assert set(counts) == set(KINDS)
    simple: tuple[Kind, ...] = ("projection", "filter", "multi_filter", "count", "aggregate", "distinct", "order_limit")
    medium: tuple[Kind, ...] = ("group", "having", "join", "join_group")
    assert 0.50 <= sum(counts[kind] for kind in simple) / len(ALL) <= 0.65
    assert 0.20 <= sum(counts[kind] for kind in medium) / len(ALL) <= 0.30
    assert min(counts.values()) >= 40, counts


def test_every_domain_has_every_kind() -> None:
    kinds = defaultdict(set)
    for record in ALL:
        kinds[record.database].add(sample_kind(record))
    assert {database: set(KINDS) - found for database, found in kinds.items() if set(KINDS) - found} == {}


def test_ids_are_unique_and_contain_domain_query_and_phrasing() -> None:
    assert len({record.id for record in ALL}) == len(ALL)
    assert all(re.fullmatch(rf"{record.database}-\d{{4}}-[a-d]", record.id or "") for record in ALL)


def test_questions_are_unique_within_a_domain() -> None:
    assert len({(record.database, record.question.casefold()) for record in ALL}) == len(ALL)


def test_each_gold_query_has_two_to_four_phrasings() -> None:
    assert set(Counter(record.sql for record in ALL).values()) <= {2, 3, 4}


def test_train_and_test_share_no_gold_query_and_no_question() -> None:
    train, test = sample_records("train"), sample_records("test")
    assert {r.sql for r in train}.isdisjoint(r.sql for r in test)
    assert {r.question for r in train}.isdisjoint(r.question for r in test)
    queries = [{(r.id or "")[:-2] for r in part} for part in (train, test)]
    assert queries[0].isdisjoint(queries[1])


def test_the_test_part_covers_all_domains_and_kinds() -> None:
    test = sample_records("test")
    assert 0.09 <= len(test) / (len(test) + len(sample_records("train"))) <= 0.15
    assert {sample_kind(r) for r in test} == set(KINDS)
    counts = Counter(r.database for r in test)
    assert len(counts) == 12
    assert min(counts.values()) >= 8, counts


def test_held_out_domains_share_no_schema_and_no_table_name_with_other_domains() -> None:
    held_out = sample_records("held_out")
    assert {r.database for r in held_out} == {domain.name for domain in HELD_OUT}
    assert {r.schema for r in held_out}.isdisjoint(r.schema for part in ("train", "test") for r in sample_records(part))
    tables = Counter(table.name for domain in DOMAINS for table in domain.tables)
    assert max(tables.values()) == 1, tables


def test_the_first_200_training_records_cover_all_domains_and_most_kinds() -> None:
    first = sample_records("train")[:200]
    assert len({r.database for r in first}) == 12
    assert len({sample_kind(r) for r in first}) >= 14


def test_schemas_are_short_and_lower_case_with_one_line_per_table() -> None:
    for domain in DOMAINS:
        assert len(domain.schema) <= 450, (domain.name, len(domain.schema))
        assert 2 <= len(domain.tables) <= 3
        for table, line in zip(domain.tables, domain.schema.splitlines(), strict=True):
            assert re.fullmatch(r"CREATE TABLE [a-z_]+ \(.+\);", line)
            assert 3 <= len(table.columns) <= 7
            assert all(re.fullmatch(r"[a-z_]+", column.name) for column in table.columns)


def test_questions_are_english_sentences() -> None:
    for question in (record.question for record in ALL):
        assert question[0].isupper(), question
        assert question[-1] in ".?", question
        assert not re.search(r"  |[_{}]|\b(a [aeio]|an [^aeiouh])", question), question


def test_questions_for_shared_values_are_not_ambiguous() -> None:
    """ "List the cities of all owners" could also mean each city once."""
    shared = {(t.name, c.name): c.plural for d in DOMAINS for t in d.tables for c in t.having("category")}
    for record in ALL:
        found = re.fullmatch(r"SELECT (\w+) FROM (\w+)", record.sql or "")
        if found and (found[2], found[1]) in shared:
            assert f"{shared[found[2], found[1]]} of all" not in record.question, record


def test_sql_is_canonical() -> None:
    for sql in {record.sql or "" for record in ALL}:
        assert sqlglot.parse_one(sql, dialect="sqlite").sql(dialect="sqlite")
        assert sql == " ".join(sql.split())
        assert not sql.endswith(";")
        assert '"' not in sql
        assert " AS " not in sql
        assert not re.search(r"BETWEEN (\S+) AND \1(?: |$)", sql), sql
        # Columns have their table's name exactly if tables are joined.
        assert (" JOIN " in sql) == bool(re.search(r"[a-z]\.[a-z]", sql)), sql


def test_the_question_contains_the_literals_of_the_sql() -> None:
    generated = [r for r in ALL if int((r.id or "")[-6:-2]) > 8]
    for record in generated:
        for text in re.findall(r"'([^']+)'", record.sql or ""):
            if "%Y" not in text and not text.endswith(("-01-01", "-12-31")):
                assert text.strip("%") in record.question, record
        for number in re.findall(r"(?<![\w'.-])\d+(?:\.\d+)?(?![\w'-])", (record.sql or "").replace("LIMIT 1", "")):
            assert re.search(rf"\b{re.escape(number)}\b", record.question), record


def test_the_files_of_the_package_are_up_to_date() -> None:
    package = {path.name: path.read_text(encoding="utf-8") for path in PACKAGE.iterdir() if path.is_file()}
    del package["__init__.py"]
    assert data_files() == package


def test_the_content_is_the_same_with_another_hash_seed() -> None:
    own = hashlib.sha256(repr(data_files()).encode()).hexdigest()
    for seed in ("1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", GENERATED],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == own


def test_dice_always_draw_the_same_numbers() -> None:
    # From CPython 3.11's Mersenne Twister. Python promises not to change `random()`.
    dice = Dice("sample")
    assert [dice.below(100) for _ in range(5)] == [73, 66, 50, 52, 21]
    assert sorted(Dice("x").distinct(10, 10)) == list(range(10))
    assert sorted(Dice("x").shuffled("quarry")) == sorted("quarry")
