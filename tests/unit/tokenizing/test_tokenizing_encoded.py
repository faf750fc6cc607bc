"""Compact storage of examples: the same examples as a list of them, with 4 bytes per token."""

from __future__ import annotations

import pickle
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.tokenizing.encoded import IGNORED_LABEL, Encoded, EncodedRecords

ids = st.lists(st.integers(0, 2**31 - 1), max_size=9)
pairs = st.lists(st.tuples(ids, ids), max_size=6)


def stored(examples: list[tuple[list[int], list[int]]]) -> EncodedRecords:
    records = EncodedRecords()
    for prompt, answer in examples:
        records.append(prompt, answer)
    return records


def listed(examples: list[tuple[list[int], list[int]]]) -> list[Encoded]:
    return [Encoded(prompt + answer, [IGNORED_LABEL] * len(prompt) + answer) for prompt, answer in examples]


@given(pairs)
def test_a_list_of_examples_and_its_storage_are_equal(examples):
    records, expected = stored(examples), listed(examples)

    assert list(records) == expected
    assert [records[index] for index in range(-len(records), len(records))] == expected + expected
    assert list(records.lengths) == [len(one.input_ids) for one in expected]
    assert list(records.prompt_lengths) == [one.labels.count(IGNORED_LABEL) for one in expected]
    assert records.vocabulary() == {token for one in expected for token in one.input_ids}
    assert pickle.loads(pickle.dumps(records)) == records == stored(examples)
    with pytest.raises(IndexError):
        records[len(expected)]


@given(pairs, st.slices(6), st.slices(9))
def test_parts_are_parts_of_the_list(examples, rows, tokens):
    records, expected = stored(examples), listed(examples)

    assert list(records[rows]) == expected[rows]
    assert records[rows].vocabulary() == {token for one in expected[rows] for token in one.input_ids}
    chosen = [0, -1, 0] if examples else []
    assert list(records.select(chosen)) == [expected[index] for index in chosen]
    if tokens.step in (None, 1):
        assert [records.ids(index, tokens.start or 0, tokens.stop) for index in range(len(records))] == [
            one.input_ids[tokens] for one in expected
        ]


@given(pairs, st.integers(1, 12))
def test_examples_are_split_as_lists_are(examples, size):
    assert list(stored(examples).split(size)) == [
        Encoded(one.input_ids[start : start + size], one.labels[start : start + size])
        for one in listed(examples)
        for start in range(0, len(one.input_ids), size)
    ]


def test_examples_that_differ_in_a_border_differ():
    assert stored([([1], [2])]) != stored([([1, 2], [])])
    assert stored([([1], [2])]) != stored([([1], [3])])
    assert stored([([1], [2])]) != stored([([1], [2]), ([1], [2])])
    assert stored([]) != []


def test_a_token_takes_four_bytes():
    tracemalloc.start()
    try:
        records = stored([(range(1000, 1090), range(2000, 2010))] * 1000)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert sum(records.lengths) == 100_000
    assert taken < 550_000
