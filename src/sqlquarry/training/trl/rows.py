"""Give encoded records to TRL, and check the rows that it makes of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sqlquarry.errors import TrainingError
from sqlquarry.tokenizing.encoded import IGNORED_LABEL, Encoded

if TYPE_CHECKING:
    from datasets import Dataset


def as_dataset(examples: Sequence[Encoded]) -> Dataset:
    """Return a data set with labels. Without them, TRL would learn every token for some combinations of columns."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"input_ids": [one.input_ids for one in examples], "labels": [one.labels for one in examples]}
    )


def row_sizes_of(rows: Dataset, examples: Sequence[Encoded]) -> tuple[tuple[int, int], ...]:
    """Return tokens and learned tokens of each row.

    Raises:
        TrainingError: TRL dropped or cut off tokens.
    """
    sizes = tuple((len(row["input_ids"]), sum(label != IGNORED_LABEL for label in row["labels"])) for row in rows)
    expected, there = sum(len(one.input_ids) for one in examples), sum(tokens for tokens, _ in sizes)
    if expected != there:
        raise TrainingError(
            f"TRL kept {there:,} of {expected:,} tokens. Set TrainingConfig.max_length to the longest record."
        )
    return sizes


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Switch off the progress bars of datasets."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
