"""Name the options of an imported model, for type checkers and at run time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypedDict

from sqlquarry.errors import ConfigError
from sqlquarry.models.imported.cost import PriceTable
from sqlquarry.models.imported.requests import Schema
from sqlquarry.options import did_you_mean


class AskingOptions(TypedDict, total=False):
    """Holds keywords of `ImportedModel`, which documents them."""

    name: str | None
    session: Any
    endpoint_url: str | None
    max_tokens: int
    request_schema: Schema
    stop: Sequence[str]
    logprobs: bool
    structured: Mapping[str, Any] | None
    prices: PriceTable | None
    concurrency: int
    not_ready_budget_s: float
    not_ready_interval_s: float
    throttle_attempts: int
    sleep: Callable[[float], None]
    clock: Callable[[], float]
    seed: int | None
    show_progress: bool


def refuse_unknown(given: Collection[str], owner: str) -> None:
    """Check that options exist, for callers without a type checker.

    Raises:
        ConfigError: some do not; the message names the option that was probably meant.
    """
    known = AskingOptions.__annotations__
    if bad := [f"no option {name!r}{did_you_mean(name, known)}" for name in given if name not in known]:
        raise ConfigError(f"{owner} has {', '.join(bad)}. Its options are {', '.join(known)}.")
