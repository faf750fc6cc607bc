"""Records: a sequence, a split that leaks nothing, a digest."""

from __future__ import annotations

import itertools
import operator
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record, Records, load_records
from sqlquarry.data.split import nearest_subset
from sqlquarry.errors import ConfigError, DataError, RecordError

FIELDS = ("question", "schema", "sql", "database", "dialect", "id")


def records(schemas: Sequence[str]) -> Records:
    return Records(
        Record(question=f"q{place}", schema=schema, sql="SELECT 1", id=str(place))
        for place, schema in enumerate(schemas)
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
    with pytest.raises(RecordError, match="element 1 is dict"):
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
    assert abs(sum(sizes[place] for place in chosen) - target) == min(abs(sum(subset) - target) for subset in proper)


def test_split_sizes():
    assert [len(part) for part in records("abcdefghij").split(3)] == [7, 3]
    assert [len(part) for part in records("abcdefghij").split(0.24)] == [8, 2]
    assert [len(part) for part in records("aaaaaaaaab").split(0.6, group_by="schema")] == [1, 9]
    assert [len(part) for part in records("aaaaaaaaab").split(0.6)] == [4, 6]
    assert [len(part) for part in records("aaaaaaaaaa").split(0.01, group_by=None)] == [9, 1]


def test_split_of_equal_rows():
    twice = Records([Record("q", "s")] * 4)

    assert [len(part) for part in twice.split(2, group_by=None)] == [2, 2]


def test_another_seed_gives_another_split():
    some = records([str(n) for n in range(100)])

    assert len({some.split(0.2, seed=seed)[1] for seed in range(5)}) == 5


def test_split_is_the_same_on_every_machine():
    # Written down once: a change here would make published numbers incomparable.
    some = records("aabbccddeeffgghhiijj")

    assert [record.id for record in some.split(0.3, seed=7)[1]] == ["8", "9", "10", "11", "18", "19"]
    assert [record.id for record in some.split(0.3, seed=7, group_by=None)[1]] == ["7", "8", "10", "12", "13", "18"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_size": 0.0}, "between 0 and 1"),
        ({"test_size": 1.0}, "between 0 and 1"),
        ({"test_size": float("nan")}, "between 0 and 1"),
        ({"test_size": True}, "between 0 and 1"),
        ({"test_size": 0}, "at least 1 and less than all 3"),
        ({"test_size": 3}, "at least 1 and less than all 3"),
        ({"group_by": "schemas"}, "must be one of auto, schema, template"),
        ({"group_by": "dialect"}, "all 3 share one dialect"),
        ({"group_by": "database"}, "all 3 share one database"),
    ],
)
def test_splits_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        records("aab").split(**options)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_records_to_split(count):
    with pytest.raises(ConfigError, match="nothing to split"):
        records("a" * count).split(0.5, group_by=None)


def test_digest_tells_content_and_order_apart():
    some = Records([Record("q", "s"), Record("q", "s", "SELECT 1")])
    others = [Records(reversed(some)), some[:1], Records([Record("q", "s"), Record("q", "s", "SELECT 2")]), Records()]

    assert len({some.digest, *(other.digest for other in others)}) == 5
    assert Records(list(some)).digest == some.digest


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


def test_to_jsonl_needs_a_name_that_can_be_read_again(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        records("ab").to_jsonl(tmp_path / "records.txt")
    assert not list(tmp_path.iterdir())


def test_to_jsonl_replaces_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new" / "records.jsonl"
    records("ab").to_jsonl(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))

    with pytest.raises(OSError, match="disk full"):
        records("abc").to_jsonl(path)

    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["records.jsonl"]


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
