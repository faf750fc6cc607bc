"""Common prefixes of token sequences, and groups of sequences that share one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.tokenizing.prefixes import common_prefix, group_by_prefix

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=12)


@given(SEQUENCES)
def test_a_common_prefix_is_the_longest_that_leaves_each_sequence_a_token(sequences: list[list[int]]) -> None:
    length = common_prefix(sequences)
    assert all(sequence[:length] == sequences[0][:length] for sequence in sequences)
    assert length < min(map(len, sequences))
    longer = {tuple(sequence[: length + 1]) for sequence in sequences}
    assert len(longer) > 1 or length == min(map(len, sequences)) - 1


@given(SEQUENCES)
def test_each_sequence_is_in_one_group_and_shares_half_of_its_first_sequence(sequences: list[list[int]]) -> None:
    groups = group_by_prefix(sequences)
    assert sorted(index for group in groups for index in group) == list(range(len(sequences)))
    for group in groups:
        first = sequences[group[0]]
        for index in group[1:]:
            assert 2 * common_prefix([first, sequences[index]]) >= len(first)
