"""Packing loses no tokens, keeps examples separate and computes shared beginnings once."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import BlockMask, create_mask

from sqlquarry.tokenizing.encoded import IGNORED_LABEL, EncodedRecords
from sqlquarry.training.encoding.packing import PackedRow, pack
from sqlquarry.training.steps.loss import RowShape, model_inputs

CAPACITY = 48


@st.composite
def groups(draw: st.DrawFn) -> tuple[EncodedRecords, list[int]]:
    """Draw examples of a few schemas. Examples of one schema begin with the same tokens."""
    examples, keys = EncodedRecords(), []
    for key in range(draw(st.integers(1, 4))):
        prefix = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
        for _ in range(draw(st.integers(1, 6))):
            rest = draw(st.lists(st.integers(10, 19), min_size=1, max_size=8))
            answer = draw(st.lists(st.integers(20, 29), min_size=1, max_size=8))
            prompt = prefix + rest
            examples.append(prompt, answer)
            keys.append(key)
    return examples, keys


def examples_of(pairs: list[tuple[list[int], list[int]]]) -> EncodedRecords:
    """Return examples, given by their prompts and answers."""
    examples = EncodedRecords()
    for prompt, answer in pairs:
        examples.append(prompt, answer)
    return examples


def unpack(packed: PackedRow) -> list[tuple[list[int], list[int]]]:
    """Return the tokens and labels that the last token of each example sees through the attention mask."""
    row = packed.tokens()
    mask = row.attention_mask()[0, 0]
    last = {key: index for index, key in enumerate(zip(row.families, row.suffixes, strict=True)) if key[1]}
    examples = []
    for index in last.values():
        seen = mask[index].nonzero().flatten().tolist()
        assert [row.positions[place] for place in seen] == list(range(len(seen)))
        examples.append(([row.input_ids[place] for place in seen], [row.labels[place] for place in seen]))
    return examples


@given(groups())
def test_every_example_sees_itself_and_nothing_else(data: tuple[EncodedRecords, list[int]]) -> None:
    examples, keys = data
    rows = pack(examples, keys, max_tokens=CAPACITY, share_prefixes=True, seed=0)
    assert all(len(row.tokens().input_ids) == row.size.tokens <= CAPACITY for row in rows)
    found = [example for row in rows for example in unpack(row)]
    assert sorted(found) == sorted((list(e.input_ids), list(e.labels)) for e in examples)
    assert sum(row.size.records for row in rows) == len(examples)
    for row in rows:
        assert row.size.answers == sum(label != IGNORED_LABEL for label in row.tokens().labels)


@given(groups())
def test_every_label_follows_a_token_of_its_own_example(data: tuple[EncodedRecords, list[int]]) -> None:
    examples, keys = data
    for packed in pack(examples, keys, max_tokens=CAPACITY, share_prefixes=True, seed=0):
        row = packed.tokens()
        for index, label in enumerate(row.labels):
            if label != IGNORED_LABEL:
                assert (row.families[index - 1], row.suffixes[index - 1]) == (row.families[index], row.suffixes[index])


@given(groups())
def test_sharing_never_takes_more_tokens(data: tuple[EncodedRecords, list[int]]) -> None:
    examples, keys = data
    total = {
        share: sum(r.size.tokens for r in pack(examples, keys, max_tokens=CAPACITY, share_prefixes=share, seed=0))
        for share in (True, False)
    }
    assert total[True] <= total[False] == sum(len(example.input_ids) for example in examples)


def scanned_rows(
    examples: EncodedRecords, keys: list[int], capacity: int, *, share: bool, seed: int
) -> list[list[tuple[list[int], int]]]:
    """Return the examples and the prefix of each family of each row, by the simplest code for best-fit decreasing."""
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    groups: dict[int, list[int]] = {}
    for index in order:
        groups.setdefault(keys[index] if share else index, []).append(index)
    families: list[tuple[list[int], int]] = []
    for group in groups.values():
        prompts = [examples[index].input_ids[: examples.prompt_lengths[index]] for index in group]
        shortest = min(map(len, prompts)) - 1
        prefix = max(n for n in range(shortest + 1) if all(one[:n] == prompts[0][:n] for one in prompts))
        prefix = prefix if len(group) > 1 else 0
        parts: list[list[int]] = [[]]
        for index in group:
            if parts[-1] and prefix + sum(examples.lengths[n] - prefix for n in (*parts[-1], index)) > capacity:
                parts.append([])
            parts[-1].append(index)
        families += [(part, prefix if len(part) > 1 else 0) for part in parts]

    def tokens(family: tuple[list[int], int]) -> int:
        return family[1] + sum(examples.lengths[index] - family[1] for index in family[0])

    rows: list[list[tuple[list[int], int]]] = []
    rooms: list[int] = []
    for family in sorted(families, key=tokens, reverse=True):
        fitting = [room for room in rooms if room >= tokens(family)]
        # Of the rows with the least room, the one that was changed last is filled.
        place = len(rooms) - 1 - rooms[::-1].index(min(fitting)) if fitting else -1
        row, room = (rows.pop(place), rooms.pop(place)) if fitting else ([], capacity)
        rows.append([*row, family])
        rooms.append(room - tokens(family))
    return [row for _, row in sorted(zip(rooms, rows, strict=True), key=lambda pair: pair[0])]


@given(groups(), st.integers(32, 120), st.booleans(), st.integers(0, 3))
def test_rows_are_those_of_a_plain_search_for_the_fullest_row(
    data: tuple[EncodedRecords, list[int]], capacity: int, share: bool, seed: int
) -> None:
    rows = pack(*data, max_tokens=capacity, share_prefixes=share, seed=seed)
    found = [[(list(family.members), family.prefix) for family in row.families] for row in rows]
    assert found == scanned_rows(*data, capacity, share=share, seed=seed)


@given(st.lists(st.integers(2, 200), min_size=1, max_size=120), st.integers(200, 400))
def test_many_sizes_fill_rows_as_a_plain_search_does(sizes: list[int], capacity: int) -> None:
    examples = examples_of([([0] * (size - 1), [1]) for size in sizes])
    rows = pack(examples, range(len(sizes)), max_tokens=capacity, share_prefixes=False, seed=1)
    found = [[(list(family.members), family.prefix) for family in row.families] for row in rows]
    assert found == scanned_rows(examples, [*range(len(sizes))], capacity, share=False, seed=1)


def test_a_shared_schema_is_computed_once() -> None:
    schema = list(range(100, 120))
    examples = examples_of([([*schema, 1], [answer]) for answer in range(8)])
    (row,) = pack(examples, ["schema"] * 8, max_tokens=64, share_prefixes=True, seed=0)
    assert len(row.tokens().input_ids) == row.size.tokens == 20 + 8 * 2


@pytest.mark.parametrize("tokens", [None, 70])
@pytest.mark.parametrize("window", [None, 4])
def test_flex_attention_sees_the_same_tokens_as_the_dense_mask(tokens: int | None, window: int | None) -> None:
    examples = examples_of([([*range(start, start + 8), 1], [2]) for start in (100, 100, 100, 200)])
    (packed,) = pack(examples, ["a", "a", "a", "b"], max_tokens=64, share_prefixes=True, seed=0)
    row = packed.tokens()
    assert len(set(row.families)) == 2
    assert max(row.suffixes) > 1
    shape = None if tokens is None else RowShape(tokens, packed.size.answers + 3)
    dense = (row if tokens is None else row.padded(tokens)).attention_mask(window)
    blocks = model_inputs(packed, shape=shape, flex=True, windows=window)["attention_mask"]
    plain = model_inputs(packed, shape=shape, windows=window)["attention_mask"]
    assert isinstance(blocks, BlockMask)
    assert isinstance(plain, torch.Tensor)
    assert torch.equal(create_mask(blocks.mask_mod, 1, 1, *dense.shape[2:], device="cpu"), dense)
    assert torch.equal(plain, dense)


def test_best_fit_fills_rows() -> None:
    examples = examples_of([([0] * (size - 1), [0]) for size in (30, 30, 18, 18, 24, 24)])
    rows = pack(examples, range(6), max_tokens=48, share_prefixes=False, seed=0)
    assert sorted(row.size.tokens for row in rows) == [48, 48, 48]


def test_equal_prompts_with_different_answers_stay_separate() -> None:
    examples = examples_of([([1, 2, 3], [answer]) for answer in (7, 8)])
    (row,) = pack(examples, ["same", "same"], max_tokens=16, share_prefixes=True, seed=0)
    assert sorted(unpack(row)) == [([1, 2, 3, answer], [IGNORED_LABEL] * 3 + [answer]) for answer in (7, 8)]
    assert row.tokens().input_ids[:2] == [1, 2]
    assert row.tokens().suffixes.count(0) == 2


def test_rows_of_one_large_schema_need_little_memory() -> None:
    examples = examples_of([([*range(1000), 1000 + number], [7] * 20) for number in range(2000)])
    tracemalloc.start()
    rows = pack(examples, [0] * 2000, max_tokens=2048, share_prefixes=True, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(row.size.tokens for row in rows) < 2000 * 80
    assert peak < 2**20  # lists of all prompts would take 64 MB
