"""Pack examples into rows with little padding. Examples do not see each other, and shared beginnings are computed once.

A row consists of families. A family has one prefix, which is the common beginning of its examples (instructions and
schema), and a suffix for the rest of each example. The tokens of a suffix see the prefix and their own suffix, and
their positions continue from the end of the prefix. So every example gets the same logits and gradients as it would
alone, but the prefix is computed once instead of once per example. An example that shares nothing is a family of one.

    row      [ prefix of schema A | rest of 1 | rest of 2 | rest of 3 ][ prefix of schema B | rest of 4 ]
    position   0 … 119           120 …       120 …       120 …        0 … 87             88 …
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlquarry.tokenizing.encoded import IGNORED_LABEL, Encoded
from sqlquarry.tokenizing.prefixes import common_prefix

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True, slots=True)
class Family:
    """Examples and the length of their common beginning in tokens."""

    examples: tuple[Encoded, ...]
    prefix: int

    @property
    def tokens(self) -> int:
        """Number of tokens of the family in a row: its prefix once, and the rest of each example."""
        return self.prefix + sum(len(example.input_ids) - self.prefix for example in self.examples)


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One packed row. Every list has one entry per token.

    Args:
        input_ids: token ids.
        labels: the token to learn, or -100 if nothing is learned.
        positions: position of the token in its own example.
        families: number of the token's family.
        suffixes: number of the token's suffix within the family, or 0 for the prefix.
        records: number of examples in the row.
    """

    input_ids: list[int]
    labels: list[int]
    positions: list[int]
    families: list[int]
    suffixes: list[int]
    records: int

    @property
    def answers(self) -> int:
        """Number of tokens that are learned."""
        return sum(label != IGNORED_LABEL for label in self.labels)

    def attention_mask(self, window: int | None = None) -> torch.Tensor:
        """Return which token (matrix row) may attend to which token (column): bool, (1, 1, tokens, tokens).

        Args:
            window: number of tokens of its own example that a token sees, including itself (`sliding_window`). None
                for all.
        """
        import torch

        family, suffix = torch.tensor(self.families), torch.tensor(self.suffixes)
        earlier = torch.ones(len(self.families), len(self.families), dtype=torch.bool).tril()
        same_family = family[:, None] == family[None, :]
        visible = (suffix[None, :] == 0) | (suffix[:, None] == suffix[None, :])
        if window is not None:
            position = torch.tensor(self.positions)
            visible &= position[:, None] - position[None, :] < window
        return (earlier & same_family & visible)[None, None]

    def padded(self, tokens: int) -> PackedRow:
        """Return the row, padded to `tokens` tokens. The padding is a family of its own."""
        more = tokens - len(self.input_ids)
        return PackedRow(
            self.input_ids + [0] * more,
            self.labels + [IGNORED_LABEL] * more,
            self.positions + [0] * more,
            self.families + [-1] * more,
            self.suffixes + [0] * more,
            self.records,
        )


def block_mask(
    positions: torch.Tensor, families: torch.Tensor, suffixes: torch.Tensor, window: int | None = None
) -> BlockMask:
    """Return `PackedRow.attention_mask` for flex_attention, whose kernel skips blocks that no token attends to."""
    from torch.nn.attention.flex_attention import create_block_mask

    def looks(
        batch: torch.Tensor,  # noqa: ARG001 - flex_attention's interface
        head: torch.Tensor,  # noqa: ARG001 - flex_attention's interface
        row: torch.Tensor,
        column: torch.Tensor,
    ) -> torch.Tensor:
        same_family = families[row] == families[column]
        seen = (row >= column) & same_family & ((suffixes[column] == 0) | (suffixes[row] == suffixes[column]))
        return seen if window is None else seen & (positions[row] - positions[column] < window)

    return create_block_mask(looks, None, None, len(families), len(families), device=str(families.device))


def pack(
    examples: Sequence[Encoded], keys: Sequence[Hashable], *, max_tokens: int, share_prefixes: bool, seed: int
) -> list[PackedRow]:
    """Pack examples into few rows of at most `max_tokens` tokens, by best-fit decreasing.

    Args:
        examples: encoded records, each of at most `max_tokens` tokens.
        keys: a key for each example (its schema). Examples with equal keys may share a prefix.
        max_tokens: capacity of a row in tokens.
        share_prefixes: False makes every example a family of its own.
        seed: seed of the order in which the examples of a schema are grouped.
    """
    shuffled = list(range(len(examples)))
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    groups: dict[Hashable, list[Encoded]] = {}
    for index in shuffled:
        groups.setdefault(keys[index] if share_prefixes else index, []).append(examples[index])
    families = [family for group in groups.values() for family in _families(group, max_tokens)]
    return [_row(bin_) for bin_ in _best_fit(families, max_tokens)]


def one_row(example: Encoded) -> PackedRow:
    """Return a row with a single example."""
    return _row([Family((example,), 0)])


def _families(group: list[Encoded], max_tokens: int) -> list[Family]:
    """Split a group into families that fit a row."""
    # The prefix must end before any answer, because it is computed once and its labels count for all examples.
    prompts = [example.input_ids[: _prompt_tokens(example)] for example in group]
    prefix = common_prefix(prompts) if len(group) > 1 else 0
    families: list[Family] = []
    members: list[Encoded] = []
    used = prefix
    for example in group:
        rest = len(example.input_ids) - prefix
        if members and used + rest > max_tokens:
            families.append(Family(tuple(members), prefix if len(members) > 1 else 0))
            members, used = [], prefix
        members.append(example)
        used += rest
    families.append(Family(tuple(members), prefix if len(members) > 1 else 0))
    return families


def _prompt_tokens(example: Encoded) -> int:
    return next(index for index, label in enumerate(example.labels) if label != IGNORED_LABEL)


def _best_fit(families: list[Family], max_tokens: int) -> list[list[Family]]:
    """Put each family, largest first, into the fullest row that still has room (best-fit decreasing)."""
    by_room: list[list[list[Family]]] = [[] for _ in range(max_tokens + 1)]
    for family in sorted(families, key=lambda family: family.tokens, reverse=True):
        room = next((room for room in range(family.tokens, max_tokens + 1) if by_room[room]), max_tokens)
        row = by_room[room].pop() if by_room[room] else []
        row.append(family)
        by_room[room - family.tokens].append(row)
    return [row for rows in by_room for row in rows]


def _row(families: list[Family]) -> PackedRow:
    row = PackedRow([], [], [], [], [], sum(len(family.examples) for family in families))
    for number, family in enumerate(families):
        first = family.examples[0]
        _append(
            row, first.input_ids[: family.prefix], first.labels[: family.prefix], position=0, family=number, suffix=0
        )
        for suffix, example in enumerate(family.examples, start=1):
            rest = example.input_ids[family.prefix :], example.labels[family.prefix :]
            _append(row, *rest, position=family.prefix, family=number, suffix=suffix)
    return row


def _append(row: PackedRow, ids: list[int], labels: list[int], *, position: int, family: int, suffix: int) -> None:
    row.input_ids.extend(ids)
    row.labels.extend(labels)
    row.positions.extend(range(position, position + len(ids)))
    row.families.extend([family] * len(ids))
    row.suffixes.extend([suffix] * len(ids))
