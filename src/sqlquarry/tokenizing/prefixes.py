"""What sequences of tokens begin with in common, so that it is computed once: in packing and in decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Count the leading tokens that all sequences share, leaving at least one token to each."""
    longest = min(len(sequence) for sequence in sequences) - 1
    columns: Iterator[tuple[int, ...]] = zip(*sequences, strict=False)
    for index, column in enumerate(columns):
        if index >= longest or len(set(column)) > 1:
            return index
    return longest


def group_by_prefix(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the places of sequences in groups, so that those of a group share at least half of its first one."""
    groups: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda index: tuple(sequences[index])):
        if groups:
            first = sequences[groups[-1][0]]
            if 2 * common_prefix([first, sequences[index]]) >= len(first):
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups
