"""Records: the sequence, splits without leaks, digests, and JSON Lines."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import operator
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record, Records, load_records
from sqlquarry.data import split
from sqlquarry.data.split import nearest_subset
from sqlquarry.errors import ConfigError, DataError, RecordError

FIELDS = ("question", "schema", "sql", "database", "dialect", "id")


def records(schemas: Sequence[str]) -> Records:
    return Records(
        Record(question=f"q{index}", schema=schema, sql="SELECT 1", id=str(index))
        for index, schema in enumerate(schemas)
    )


schemas = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40).filter(lambda s: len(set(s)) > 1)


def test_a_sequence_of_records():
    some = records("aab")

    assert len(some) == 3
    assert some[0].question == "q0"
    assert [record.question for record in some] == ["q0", "q1", "q2"]
    assert some[-1] in some
    assert repr(some) == "<Records: 3>"
    assert some[:2] + some[2:] == some
    assert isinstance(some[1:], Records)
    assert hash(some) == hash(records("aab"))
    assert some != records("aac")
    assert some != list(some)
    assert not Records()


def test_only_records_are_accepted():
    with pytest.raises(RecordError, match=r"\b1\b.*\bdict\b"):
        Records([Record("q", "s"), {"question": "q"}])  # type: ignore[list-item] - the mistake under test
    with pytest.raises(TypeError):
        operator.add(records("a"), [Record("q", "s")])


@given(schemas, st.floats(0.01, 0.99), st.integers(), st.sampled_from(["schema", "question", None]))
def test_split_divides_without_loss_or_leak(rows, share, seed, group_by):
    some = records(rows)

    train, test = some.split(share, seed=seed, group_by=group_by)

    assert train
    assert test
    assert sorted([*train, *test], key=lambda record: int(record.id or "")) == list(some)
    assert [int(record.id or "") for record in test] == sorted(int(record.id or "") for record in test)
    if group_by:
        assert not {getattr(r, group_by) for r in train} & {getattr(r, group_by) for r in test}


@given(schemas, st.integers(), st.randoms(use_true_random=False))
def test_split_does_not_depend_on_the_order(rows, seed, random):
    some = list(records(rows))
    expected = some and Records(some).split(0.3, seed=seed)[1]
    random.shuffle(some)

    assert set(Records(some).split(0.3, seed=seed)[1]) == set(expected)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=9), st.data())
def test_the_nearest_subset_is_the_nearest(sizes, data):
    target = data.draw(st.integers(1, sum(sizes) - 1))

    chosen = nearest_subset(sizes, target)

    proper = (subset for n in range(1, len(sizes)) for subset in itertools.combinations(sizes, n))
    assert len(set(chosen)) == len(chosen) < len(sizes)
    assert abs(sum(sizes[index] for index in chosen) - target) == min(abs(sum(subset) - target) for subset in proper)


@pytest.mark.parametrize("group_by", ["auto", "schema", "template", "query"])
def test_the_work_of_a_split_grows_with_the_records(monkeypatch, group_by):
    calls = Counter()

    def counted(function):
        def count(*given, **options):
            calls[function.__name__] += 1
            return function(*given, **options)

        return count

    for function in (split.query_form, split.schema_form, split.question_form):
        monkeypatch.setattr(split, function.__name__, counted(function))

    def work(size):
        calls.clear()
        some = [
            Record(f"How many {n}?", f"CREATE TABLE t{n % 5} (a)", f"SELECT {n % 7} FROM t{n % 5} WHERE a > {n}")
            for n in range(size)
        ]
        Records(some).split(0.2, group_by=group_by)
        return dict(calls)

    few, many = work(200), work(800)
    assert many.get("schema_form", 0) == few.get("schema_form", 0) <= 2 * 5
    for name in {*few} - {"schema_form"}:
        assert many[name] == 4 * few[name] <= 2 * 800


def test_split_sizes():
    assert [len(part) for part in records("abcdefghij").split(3)] == [7, 3]
    assert [len(part) for part in records("abcdefghij").split(0.24)] == [8, 2]
    assert [len(part) for part in records("aaaaaaaaab").split(0.6, group_by="schema")] == [1, 9]
    assert [len(part) for part in records("aaaaaaaaab").split(0.6)] == [4, 6]
    assert [len(part) for part in records("aaaaaaaaaa").split(0.01, group_by=None)] == [9, 1]
    assert [records("abc").split(share, group_by=None).report.asked for share in (0.01, 0.5, 0.99)] == [1, 2, 2]


def test_split_of_equal_rows():
    twice = Records([Record("q", "s")] * 4)

    assert [len(part) for part in twice.split(2, group_by=None)] == [2, 2]


def test_another_seed_gives_another_split():
    some = records([str(n) for n in range(100)])

    assert len({some.split(0.2, seed=seed)[1] for seed in range(5)}) == 5


def test_split_is_the_same_on_every_machine():
    # These ids are fixed, because a different split would make published numbers incomparable.
    some = records("aabbccddeeffgghhiijj")

    assert [record.id for record in some.split(0.3, seed=7)[1]] == ["8", "9", "10", "11", "18", "19"]
    assert [record.id for record in some.split(0.3, seed=7, group_by=None)[1]] == ["7", "8", "10", "12", "13", "18"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_size": 0.0}, r"test_size\b.*\b0\.0\b"),
        ({"test_size": 1.0}, r"test_size\b.*\b1\.0\b"),
        ({"test_size": float("nan")}, r"test_size\b.*\bnan\b"),
        ({"test_size": True}, r"test_size\b.*\bTrue\b"),
        ({"test_size": 0}, r"test_size\b\D*\b0\b(?!\.).*\b3\b"),
        ({"test_size": 3}, r"test_size\b\D*\b3\b.*\b3\b"),
        ({"test_size": -1}, r"test_size\b\D*-1\b.*\b3\b"),
        ({"group_by": "schemas"}, "group_by.*'schemas'.*auto, schema, template"),
        ({"group_by": "dialect"}, r"\b3\b.*\bdialect\b"),
        ({"group_by": "database"}, r"\b3\b.*\bdatabase\b"),
    ],
)
def test_impossible_splits_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        records("aab").split(**options)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_records_to_split(count):
    with pytest.raises(ConfigError, match=rf"\b{count}\b.*group_by"):
        records("a" * count).split(0.5, group_by=None)


def test_the_digest_depends_on_content_and_order():
    some = Records([Record("q", "s"), Record("q", "s", "SELECT 1")])
    others = [Records(reversed(some)), some[:1], Records([Record("q", "s"), Record("q", "s", "SELECT 2")]), Records()]

    assert len({some.digest, *(other.digest for other in others)}) == 5
    assert Records(list(some)).digest == some.digest


def test_the_digest_is_the_hash_of_the_json_lines_and_leaves_missing_alternatives_out():
    plain = b'{"question": "q", "schema": "s", "sql": "x", "database": null, "dialect": "sqlite", "id": null}\n'
    more = plain.replace(b"}", b', "alternatives": ["y"]}')

    assert Records([Record("q", "s", "x")]).digest == hashlib.sha256(plain).hexdigest()
    assert Records([Record("q", "s", "x", alternatives=["y"])]).digest == hashlib.sha256(more).hexdigest()


def test_digest_and_split_are_the_same_in_another_process():
    code = (
        "import sqlquarry as sq\n"
        "some = sq.Records(sq.Record(f'q{n}', f's{n % 9}', id=str(n)) for n in range(50))\n"
        "print(some.digest, [r.id for r in some.split(0.2)[1]])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(outputs) == 1


def test_to_jsonl_needs_a_name_that_load_records_recognizes(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        records("ab").to_jsonl(tmp_path / "records.txt")
    assert not list(tmp_path.iterdir())


def test_to_jsonl_replaces_a_file_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new" / "records.jsonl"
    records("ab").to_jsonl(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))

    with pytest.raises(OSError, match="disk full"):
        records("abc").to_jsonl(path)

    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize("content", ["", "ä", "\ud800"])
def test_gzipped_json_lines_do_not_depend_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str):
    some = Records([Record(f"q{content}", "s", id=str(n)) for n in range(3)])
    written = set()
    for seconds in (1e9, 2e9):
        monkeypatch.setattr("time.time", lambda now=seconds: now)
        some.to_jsonl(tmp_path / "a.jsonl.gz")
        written.add((tmp_path / "a.jsonl.gz").read_bytes())
    some.to_jsonl(tmp_path / "a.jsonl")

    (packed,) = written
    assert packed[:4] + packed[8:9] == b"\x1f\x8b\x08\x00\x02"  # gzip without a name, packed as small as possible
    assert packed[4:8] == bytes(4)  # no time
    assert gzip.decompress(packed) == (tmp_path / "a.jsonl").read_bytes()


def test_alternatives_are_kept_as_a_tuple():
    given = ["SELECT 1", "SELECT 2"]
    record = Record("q", "s", "SELECT 0", alternatives=given)
    given.append("SELECT 3")

    assert record.alternatives == ("SELECT 1", "SELECT 2")
    assert hash(record) == hash(Record("q", "s", "SELECT 0", alternatives=("SELECT 1", "SELECT 2")))
    assert len({Records([record]), Records([record])}) == 1


def test_values_of_a_wrong_type_are_refused():
    record = Record("q", "s", "SELECT 1")
    for test in ("0.1", None, [1], True):
        with pytest.raises(ConfigError):
            Records([record] * 3).split(test)  # type: ignore[arg-type] - that is the test
    for other in (record, None, 3):
        with pytest.raises(RecordError):
            Records(other)  # type: ignore[arg-type] - that is the test
        with pytest.raises(DataError):
            Records([record]).to_jsonl(other)  # type: ignore[arg-type] - that is the test
        with pytest.raises(ConfigError):
            load_records(other)  # type: ignore[arg-type] - that is the test
    for field in ("id", "database"):
        with pytest.raises(RecordError, match=field):
            Record("q", "s", **{field: 5})  # type: ignore[arg-type] - that is the test
