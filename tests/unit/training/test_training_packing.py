"""Packing loses no tokens, keeps examples separate and computes shared beginnings once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import BlockMask, create_mask

from sqlquarry.tokenizing.encoded import IGNORED_LABEL, Encoded
from sqlquarry.training.encoding.packing import PackedRow, pack
from sqlquarry.training.steps.loss import RowShape, model_inputs

CAPACITY = 48


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[Encoded], list[int]]:
    """Draw examples of a few schemas. Examples of one schema begin with the same tokens."""
    examples, keys = [], []
    for key in range(draw(st.integers(1, 4))):
        prefix = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
        for _ in range(draw(st.integers(1, 6))):
            rest = draw(st.lists(st.integers(10, 19), min_size=1, max_size=8))
            answer = draw(st.lists(st.integers(20, 29), min_size=1, max_size=8))
            prompt = prefix + rest
            examples.append(Encoded(prompt + answer, [IGNORED_LABEL] * len(prompt) + answer))
            keys.append(key)
    return examples, keys


def unpack(row: PackedRow) -> list[tuple[list[int], list[int]]]:
    """Return the tokens and labels that the last token of each example sees through the attention mask."""
    mask = row.attention_mask()[0, 0]
    last = {key: index for index, key in enumerate(zip(row.families, row.suffixes, strict=True)) if key[1]}
    examples = []
    for index in last.values():
        seen = mask[index].nonzero().flatten().tolist()
        assert [row.positions[place] for place in seen] == list(range(len(seen)))
        examples.append(([row.input_ids[place] for place in seen], [row.labels[place] for place in seen]))
    return examples


@given(groups())
def test_every_example_sees_itself_and_nothing_else(data: tuple[list[Encoded], list[int]]) -> None:
    examples, keys = data
    rows = pack(examples, keys, max_tokens=CAPACITY, share_prefixes=True, seed=0)
    assert all(len(row.input_ids) <= CAPACITY for row in rows)
    found = [example for row in rows for example in unpack(row)]
    assert sorted(found) == sorted((list(e.input_ids), list(e.labels)) for e in examples)
    assert sum(row.records for row in rows) == len(examples)


@given(groups())
def test_every_label_follows_a_token_of_its_own_example(data: tuple[list[Encoded], list[int]]) -> None:
    examples, keys = data
    for row in pack(examples, keys, max_tokens=CAPACITY, share_prefixes=True, seed=0):
        for index, label in enumerate(row.labels):
            if label != IGNORED_LABEL:
                assert (row.families[index - 1], row.suffixes[index - 1]) == (row.families[index], row.suffixes[index])


@given(groups())
def test_sharing_never_takes_more_tokens(data: tuple[list[Encoded], list[int]]) -> None:
    examples, keys = data
    total = {
        share: sum(len(r.input_ids) for r in pack(examples, keys, max_tokens=CAPACITY, share_prefixes=share, seed=0))
        for share in (True, False)
    }
    assert total[True] <= total[False] == sum(len(example.input_ids) for example in examples)


def test_a_shared_schema_is_computed_once() -> None:
    schema = list(range(100, 120))
    examples = [Encoded([*schema, 1, answer], [IGNORED_LABEL] * 21 + [answer]) for answer in range(8)]
    (row,) = pack(examples, ["schema"] * 8, max_tokens=64, share_prefixes=True, seed=0)
    assert len(row.input_ids) == 20 + 8 * 2


@pytest.mark.parametrize("tokens", [None, 70])
@pytest.mark.parametrize("window", [None, 4])
def test_flex_attention_sees_the_same_tokens_as_the_dense_mask(tokens: int | None, window: int | None) -> None:
    examples = [Encoded([*range(start, start + 8), 1, 2], [IGNORED_LABEL] * 9 + [2]) for start in (100, 100, 100, 200)]
    (row,) = pack(examples, ["a", "a", "a", "b"], max_tokens=64, share_prefixes=True, seed=0)
    assert len(set(row.families)) == 2
    assert max(row.suffixes) > 1
    shape = None if tokens is None else RowShape(tokens, row.answers + 3)
    dense = (row if tokens is None else row.padded(tokens)).attention_mask(window)
    blocks = model_inputs(row, shape=shape, flex=True, windows=window)["attention_mask"]
    plain = model_inputs(row, shape=shape, windows=window)["attention_mask"]
    assert isinstance(blocks, BlockMask)
    assert isinstance(plain, torch.Tensor)
    assert torch.equal(create_mask(blocks.mask_mod, 1, 1, *dense.shape[2:], device="cpu"), dense)
    assert torch.equal(plain, dense)


def test_best_fit_fills_rows() -> None:
    examples = [Encoded([0] * size, [IGNORED_LABEL] * (size - 1) + [0]) for size in (30, 30, 18, 18, 24, 24)]
    rows = pack(examples, range(6), max_tokens=48, share_prefixes=False, seed=0)
    assert sorted(len(row.input_ids) for row in rows) == [48, 48, 48]


def test_equal_prompts_with_different_answers_stay_separate() -> None:
    examples = [Encoded([1, 2, 3, answer], [IGNORED_LABEL] * 3 + [answer]) for answer in (7, 8)]
    (row,) = pack(examples, ["same", "same"], max_tokens=16, share_prefixes=True, seed=0)
    assert sorted(unpack(row)) == [([1, 2, 3, answer], [IGNORED_LABEL] * 3 + [answer]) for answer in (7, 8)]
    assert row.input_ids[:2] == [1, 2]
    assert row.suffixes.count(0) == 2
