"""Compute the rows and the learning rate of each optimizer step from the seed and the number of the step alone.

Nothing depends on the number of processes or on earlier steps. So a run resumes exactly where it stopped, even on other
machines, and no position or random state has to be saved.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of one run.

    Args:
        rows: number of packed rows in one epoch.
        rows_per_step: number of rows in one optimizer step. The last step of an epoch may have fewer.
        epochs: passes over the rows. May be a fraction.
        warmup_ratio: share of the steps in which the rate rises.
        peak_rate: the highest learning rate.
        seed: seed of the order of the rows.
    """

    rows: int
    rows_per_step: int
    epochs: float
    warmup_ratio: float
    peak_rate: float
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps in a complete epoch."""
        return math.ceil(self.rows / self.rows_per_step)

    @property
    def steps(self) -> int:
        """Number of optimizer steps of the run."""
        return max(1, math.ceil(self.epochs * self.steps_per_epoch))

    def rows_of(self, step: int) -> list[int]:
        """Return the numbers of the rows of a step (from 0). Each epoch has its own order."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        return list(_order(self.rows, self.seed, epoch)[step_of_epoch * self.rows_per_step :][: self.rows_per_step])

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (from 0): a linear rise to the peak, then half a cosine that ends above 0.

        Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
        """
        warmup = math.ceil(self.steps * self.warmup_ratio)
        if step < warmup:
            return self.peak_rate * (step + 1) / warmup
        return self.peak_rate * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup))) / 2

    def ends_epoch(self, step: int) -> bool:
        """Return whether a step is the last one of an epoch or of the run."""
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.steps


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> Sequence[int]:
    order = list(range(rows))
    random.Random(f"{seed} {epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
    return order
