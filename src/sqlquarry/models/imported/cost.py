"""Calculate the cost of an imported model from tokens, five-minute windows and a price table.

The formula is: copies x custom model units per copy x rate per unit and minute x minutes, billed in windows of five
minutes from the first successful call.
Source: "Calculate the cost of running a custom model",
docs.aws.amazon.com/bedrock/latest/userguide/import-model-calculate-cost.html. (That page divides the number of windows
by 60. By its own units it should multiply by 5.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlquarry.options import check_options

WINDOW_S = 300.0
# Amazon Bedrock's pricing page as quoted by three public reports between 2026-07-21 and 2026-09. The import is free.
_USD_PER_CMU_MINUTE = MappingProxyType({"us-east-1": 0.05718, "us-west-2": 0.05718, "eu-central-1": 0.07144})


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """Prices of Custom Model Import as of September 2026. Pass your own if they have changed.

    Args:
        usd_per_cmu_minute: region -> US dollars per custom model unit and minute.
        usd_per_cmu_month: US dollars per custom model unit and month for storage, whether the model is used or not.
    """

    usd_per_cmu_minute: Mapping[str, float] = field(default_factory=lambda: _USD_PER_CMU_MINUTE)
    usd_per_cmu_month: float = 1.95

    def inference_usd(self, region: str, units: int, windows: int) -> float | None:
        """Return the price of `windows` five-minute windows of one copy, or None if the region is not in the table."""
        rate = self.usd_per_cmu_minute.get(region)
        return None if rate is None else windows * WINDOW_S / 60 * units * rate

    def storage_usd_per_month(self, units: int) -> float:
        """Return the monthly price, in US dollars, of storing a model of `units` custom model units."""
        return units * self.usd_per_cmu_month


DEFAULT_PRICES = PriceTable()


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of a model so far and its estimated price.

    Args:
        requests: number of answers received.
        prompt_tokens: tokens read, as counted by the service.
        completion_tokens: tokens written, as counted by the service.
        windows: billed five-minute windows, as seen from this process.
        custom_model_units: units per copy, or None if AWS did not report them.
        cost_usd: estimated price if there is one copy and nobody else uses it, or None if units or price are not known.
            CloudWatch reports the number of copies as `ModelCopy`.
        storage_usd_per_month: price of storing the model, or None if the units are not known.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    windows: int
    custom_model_units: int | None = None
    cost_usd: float | None = None
    storage_usd_per_month: float | None = None


class UsageMeter:
    """A counter of answers and billing windows. Any number of threads can share it.

    A window starts with an answer. While the model stays awake, the next window starts when the previous one ends.
    After five idle minutes the model sleeps, and a new window starts with the answer that wakes it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._requests = self._prompt_tokens = self._completion_tokens = self._windows = 0
        self._window_start = self._last = float("-inf")

    def count(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count one answer at the current time."""
        with self._lock:
            self._requests += 1
            self._prompt_tokens += prompt_tokens or 0
            self._completion_tokens += completion_tokens or 0
            now = self._clock()
            if now - self._last >= WINDOW_S:
                self._window_start = now
                self._windows += 1
            elif now - self._window_start >= WINDOW_S:
                self._window_start += WINDOW_S
                self._windows += 1
            self._last = now

    def usage(self, region: str, units: int | None, prices: PriceTable) -> Usage:
        """Return the counts so far and their price."""
        with self._lock:
            counted = Usage(self._requests, self._prompt_tokens, self._completion_tokens, self._windows)
        if units is None:
            return counted
        return Usage(
            counted.requests,
            counted.prompt_tokens,
            counted.completion_tokens,
            counted.windows,
            units,
            prices.inference_usd(region, units, counted.windows),
            prices.storage_usd_per_month(units),
        )
