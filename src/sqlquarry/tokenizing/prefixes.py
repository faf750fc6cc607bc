"""Find common prefixes of token sequences, which packing and decoding compute only once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def common_prefix(sequences: Iterable[Sequence[int]]) -> int:
    """Count the leading tokens that all sequences share. At least one token of each sequence is not counted.

    Only two of the sequences are in memory at a time if a generator yields them.
    """
    first: Sequence[int] | None = None
    for sequence in sequences:
        part = sequence[: len(sequence) - 1 if first is None else min(len(first), len(sequence) - 1)]
        if first is not None and part != first:
            pairs = enumerate(zip(part, first, strict=False))
            part = part[: next((index for index, (one, other) in pairs if one != other), len(part))]
        first = part
    return len(first or ())


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
