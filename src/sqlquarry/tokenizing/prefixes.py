"""Find common prefixes of token sequences, which packing and decoding compute only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Count the leading tokens that all sequences share. At least one token of each sequence is not counted."""
    longest = min(len(sequence) for sequence in sequences) - 1
    columns: Iterator[tuple[int, ...]] = zip(*sequences, strict=False)
    for index, column in enumerate(columns):
        if index >= longest or len(set(column)) > 1:
            return index
    return longest


def group_by_prefix(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Group sequences, given by their indices, so that each shares at least half of the first sequence of its group."""
    groups: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda index: tuple(sequences[index])):
        if groups:
            first = sequences[groups[-1][0]]
            if 2 * common_prefix([first, sequences[index]]) >= len(first):
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups
