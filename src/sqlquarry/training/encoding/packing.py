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
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.tokenizing.encoded import IGNORED_LABEL, EncodedRecords
from sqlquarry.tokenizing.prefixes import common_prefix

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask


class RowSize(NamedTuple):
    """The size of a row.

    Args:
        tokens: number of tokens.
        answers: number of tokens that are learned.
        records: number of examples, or of examples that begin in the row if TRL's packing cuts them.
    """

    tokens: int
    answers: int
    records: int


class Family(NamedTuple):
    """Examples with a common beginning.

    Args:
        members: numbers of the examples.
        prefix: length of their common beginning in tokens.
        tokens: number of tokens in a row: the prefix once, and the rest of each example.
    """

    members: tuple[int, ...]
    prefix: int
    tokens: int


@dataclass(frozen=True, slots=True)
class RowTokens:
    """The tokens of a packed row. Every list has one entry per token.

    Args:
        input_ids: token ids.
        labels: the token to learn, or -100 if nothing is learned.
        positions: position of the token in its own example.
        families: number of the token's family.
        suffixes: number of the token's suffix within the family, or 0 for the prefix.
    """

    input_ids: list[int]
    labels: list[int]
    positions: list[int]
    families: list[int]
    suffixes: list[int]

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

    def padded(self, tokens: int) -> RowTokens:
        """Return the row, padded to `tokens` tokens. The padding is a family of its own."""
        more = tokens - len(self.input_ids)
        return RowTokens(
            self.input_ids + [0] * more,
            self.labels + [IGNORED_LABEL] * more,
            self.positions + [0] * more,
            self.families + [-1] * more,
            self.suffixes + [0] * more,
        )


@dataclass(frozen=True, slots=True, eq=False)
class PackedRow:
    """One packed row. It only refers to its examples, so that the rows of a run need little memory.

    Args:
        examples: the examples that the families number.
        families: the families of the row, in order.
        size: the size of the row.
    """

    examples: EncodedRecords = field(repr=False)
    families: tuple[Family, ...]
    size: RowSize

    def tokens(self) -> RowTokens:
        """Return the tokens of the row."""
        row = RowTokens([], [], [], [], [])
        for number, family in enumerate(self.families):
            for suffix, start, stop, member in _parts(family):
                ids = self.examples.ids(member, start, stop)
                prompt = max(self.examples.prompt_lengths[member] - start, 0)
                row.input_ids.extend(ids)
                row.labels.extend([IGNORED_LABEL] * min(prompt, len(ids)) + ids[prompt:])
                row.positions.extend(range(start, start + len(ids)))
                row.families.extend([number] * len(ids))
                row.suffixes.extend([suffix] * len(ids))
        return row


def _parts(family: Family) -> Iterator[tuple[int, int, int | None, int]]:
    """Yield the parts of a family: the number of the suffix, the first and last token, and the example."""
    if family.prefix:
        yield 0, 0, family.prefix, family.members[0]
    for suffix, member in enumerate(family.members, start=1):
        yield suffix, family.prefix, None, member


def block_mask(
    positions: torch.Tensor, families: torch.Tensor, suffixes: torch.Tensor, window: int | None = None
) -> BlockMask:
    """Return `RowTokens.attention_mask` for flex_attention, whose kernel skips blocks that no token attends to."""
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
    examples: EncodedRecords, keys: Sequence[Hashable], *, max_tokens: int, share_prefixes: bool, seed: int
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
    groups: dict[Hashable, list[int]] = {}
    for index in shuffled:
        groups.setdefault(keys[index] if share_prefixes else index, []).append(index)
    families = [family for group in groups.values() for family in _families(examples, group, max_tokens)]
    return [_row(examples, tuple(row)) for row in _best_fit(families, max_tokens)]


def _families(examples: EncodedRecords, group: Sequence[int], max_tokens: int) -> Iterator[Family]:
    """Split a group into families that fit a row."""
    # The prefix must end before any answer, because it is computed once and its labels count for all examples.
    prompts = (examples.ids(index, 0, examples.prompt_lengths[index]) for index in group)
    prefix = common_prefix(prompts) if len(group) > 1 else 0
    members: list[int] = []
    used = prefix
    for index in group:
        rest = examples.lengths[index] - prefix
        if members and used + rest > max_tokens:
            yield Family(tuple(members), prefix if len(members) > 1 else 0, used)
            members, used = [], prefix
        members.append(index)
        used += rest
    yield Family(tuple(members), prefix if len(members) > 1 else 0, used)


def _best_fit(families: Sequence[Family], max_tokens: int) -> Iterator[list[Family]]:
    """Put each family, largest first, into the fullest row that still has room (best-fit decreasing).

    Bit n of `rooms` is set if a row has room for exactly n tokens. So the fullest row is found without a search.
    """
    by_room: list[list[list[Family]]] = [[] for _ in range(max_tokens + 1)]
    rooms = 0
    for family in sorted(families, key=lambda family: family.tokens, reverse=True):
        if enough := rooms >> family.tokens:
            room = family.tokens + (enough & -enough).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, row = max_tokens, []
        row.append(family)
        room -= family.tokens
        by_room[room].append(row)
        rooms |= 1 << room
    return (row for rows in by_room for row in rows)


def _row(examples: EncodedRecords, families: tuple[Family, ...]) -> PackedRow:
    members = [member for family in families for member in family.members]
    answers = sum(examples.lengths[member] - examples.prompt_lengths[member] for member in members)
    return PackedRow(examples, families, RowSize(sum(family.tokens for family in families), answers, len(members)))
