"""Calculate what asking an imported model costs: tokens, five-minute windows, and dollars by a price table.

Source of the formula: "Calculate the cost of running a custom model",
docs.aws.amazon.com/bedrock/latest/userguide/import-model-calculate-cost.html: copies x custom model units per copy x
rate per unit and minute x minutes, billed in windows of five minutes from the first successful call. (The page divides
the number of windows by 60; by its own units it is times 5.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlquarry.options import check_options

WINDOW_S = 300.0
# Amazon Bedrock's pricing page as quoted by three public reports between 2026-07-21 and 2026-09; import itself is free.
_USD_PER_CMU_MINUTE = MappingProxyType({"us-east-1": 0.05718, "us-west-2": 0.05718, "eu-central-1": 0.07144})


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """Holds the prices of Custom Model Import, of September 2026; pass your own if they changed.

    Args:
        usd_per_cmu_minute: region -> US dollars per custom model unit and minute.
        usd_per_cmu_month: US dollars per custom model unit and month for storage, asked or not.
    """

    usd_per_cmu_minute: Mapping[str, float] = field(default_factory=lambda: _USD_PER_CMU_MINUTE)
    usd_per_cmu_month: float = 1.95

    def inference_usd(self, region: str, units: int, windows: int) -> float | None:
        """Return US dollars for `windows` five-minute windows of one copy; None if the region's price is not known."""
        rate = self.usd_per_cmu_minute.get(region)
        return None if rate is None else windows * WINDOW_S / 60 * units * rate

    def storage_usd_per_month(self, units: int) -> float:
        """Return US dollars per month for keeping a model of `units` custom model units."""
        return units * self.usd_per_cmu_month


DEFAULT_PRICES = PriceTable()


@dataclass(frozen=True, slots=True)
class Usage:
    """Holds what was asked of a model so far, and an estimate of its price.

    Args:
        requests: answers received.
        prompt_tokens: tokens read, as the service counts them.
        completion_tokens: tokens written, likewise.
        windows: five-minute windows with at least one answer, as seen from here.
        custom_model_units: units per copy; None if AWS did not say.
        cost_usd: estimate for one copy that nobody else asks; the number of copies is CloudWatch's `ModelCopy`.
            None if units or price are not known.
        storage_usd_per_month: what keeping the model costs; None if units are not known.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    windows: int
    custom_model_units: int | None = None
    cost_usd: float | None = None
    storage_usd_per_month: float | None = None


class UsageMeter:
    """Counts answers as they come, from any number of threads.

    A window begins with an answer. The next one follows on it while the model stays awake; after five idle minutes the
    model sleeps, and a new window begins with the answer that wakes it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._requests = self._prompt_tokens = self._completion_tokens = self._windows = 0
        self._window_start = self._last = float("-inf")

    def count(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count one answer, now."""
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
        """Return what was counted so far, priced."""
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
