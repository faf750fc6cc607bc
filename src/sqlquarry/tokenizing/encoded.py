"""Encoded records in compact storage: 4 bytes per token, where lists of ids and labels take up to 80."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

IGNORED_LABEL = -100  # torch's CrossEntropyLoss(ignore_index=-100)


class Encoded(NamedTuple):
    """One training example. `labels` is -100 on the prompt and equals `input_ids` on the answer. Both are (tokens,)."""

    input_ids: list[int]
    labels: list[int]


class EncodedRecords(Sequence[Encoded]):
    """Training examples that are stored one after the other. Each `Encoded` is built when it is asked for.

    The labels follow from the length of the prompt, so they are not stored.

    Attributes:
        lengths: number of tokens of each example.
        prompt_lengths: number of leading tokens of each example that are not learned.
    """

    __slots__ = ("_ids", "_starts", "lengths", "prompt_lengths")

    def __init__(self) -> None:
        self._ids = array("i")
        self._starts = array("q")
        self.lengths, self.prompt_lengths = array("i"), array("i")

    def append(self, prompt: Iterable[int], answer: Iterable[int]) -> None:
        """Add an example, given by the ids of its prompt and of its answer."""
        start = len(self._ids)
        self._ids.extend(prompt)
        border = len(self._ids)
        self._ids.extend(answer)
        self._starts.append(start)
        self.lengths.append(len(self._ids) - start)
        self.prompt_lengths.append(border - start)

    @classmethod
    def joined(cls, lengths: array[int], prompt_lengths: array[int], ids: array[int]) -> EncodedRecords:
        """Return the examples whose lengths, prompt lengths and ids `buffers` yielded."""
        encoded = cls()
        encoded.lengths, encoded.prompt_lengths, encoded._ids = lengths, prompt_lengths, ids
        encoded._starts = array("q", itertools.accumulate(lengths, initial=0))
        encoded._starts.pop()
        return encoded

    def buffers(self) -> Iterator[array[int]]:
        """Yield all lengths, all prompt lengths, and the ids of each example, for files and digests."""
        yield self.lengths
        yield self.prompt_lengths
        yield from self._each()

    def ids(self, index: int, start: int = 0, stop: int | None = None) -> list[int]:
        """Return the ids of one example from token `start` to token `stop`, as `self[index].input_ids[start:stop]`."""
        first, length = self._starts[index], self.lengths[index]
        part = range(length)[start:stop]
        return self._ids[first + part.start : first + part.stop].tolist()

    def vocabulary(self) -> set[int]:
        """Return the distinct ids of all examples."""
        return set(itertools.chain.from_iterable(self._each()))

    def select(self, indices: Iterable[int]) -> EncodedRecords:
        """Return some of the examples without copying their ids."""
        return self._view((self._starts[i], self.lengths[i], self.prompt_lengths[i]) for i in indices)

    def split(self, max_tokens: int) -> EncodedRecords:
        """Return the examples, cut into parts of at most `max_tokens` tokens, without copying their ids."""
        return self._view(
            (first + start, size := min(max_tokens, length - start), min(max(prompt - start, 0), size))
            for first, length, prompt in zip(self._starts, self.lengths, self.prompt_lengths, strict=True)
            for start in range(0, length, max_tokens)
        )

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> EncodedRecords: ...
    def __getitem__(self, index: int | slice) -> Encoded | EncodedRecords:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        ids, prompt = self.ids(index), self.prompt_lengths[index]
        return Encoded(ids, [IGNORED_LABEL] * prompt + ids[prompt:])

    def __iter__(self) -> Iterator[Encoded]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EncodedRecords):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment] # examples can be appended

    def __repr__(self) -> str:
        return f"<EncodedRecords: {len(self):,} with {sum(self.lengths):,} tokens>"

    def _each(self) -> Iterator[array[int]]:
        # `select` keeps all ids, so there may be ids of other examples between two examples.
        return (self._ids[start : start + length] for start, length in zip(self._starts, self.lengths, strict=True))

    def _view(self, places: Iterable[tuple[int, int, int]]) -> EncodedRecords:
        view = EncodedRecords()
        view._ids = self._ids
        for start, length, prompt in places:
            view._starts.append(start)
            view.lengths.append(length)
            view.prompt_lengths.append(prompt)
        return view
