"""Define the limits that a merged model must meet, and refuse a model that misses them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sqlquarry.errors import MergeError
from sqlquarry.options import check_options
from sqlquarry.provenance import Verification


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Limits that a merged model must meet.

    The defaults distinguish a correct merge from a wrong one. On SmolLM2-135M, a merge into the dequantized weights,
    rounded to bf16, has a KL of 2e-4 and the same greedy answers. A merge into the original weights has a KL of 4e-2.

    Args:
        max_kl: largest mean KL(adapter ‖ merged) on answer tokens, in nats.
        min_greedy_agreement: smallest share of answer tokens for which both models have the same most likely token. The
            measured share may be lower by two standard errors for the number of tokens. For example, 3 different
            tokens out of 122 do not disprove 98 %.
        max_relative_update: largest ‖ΔW‖/‖W‖ of a tensor. Beyond it, the adapter has overwritten the base.
    """

    max_kl: float = 5e-3
    min_greedy_agreement: float = 0.98
    max_relative_update: float = 1.0


def require_thresholds(verification: Verification, thresholds: Thresholds) -> None:
    """Check that a merged model is close enough to the adapter on its training base.

    Raises:
        MergeError: the model misses a threshold. The message gives each value that does.
    """
    found, least = verification.agreement, thresholds.min_greedy_agreement
    chance = 2 * math.sqrt(least * (1 - least) / max(1, found.answer_tokens))
    bad = [
        message
        for wrong, message in (
            (not found.kl <= thresholds.max_kl, f"KL {found.kl:.2e} > {thresholds.max_kl:g}"),
            (
                not found.greedy_agreement >= least - chance,
                f"greedy agreement {found.greedy_agreement:.2%} < {least:.2%}",
            ),
            (
                not verification.largest_update <= thresholds.max_relative_update,
                f"relative update {verification.largest_update:.2f} > {thresholds.max_relative_update:g}",
            ),
            (verification.coverage < 1, f"only {verification.coverage:.2%} of the adapter's tensors were merged"),
        )
        if wrong
    ]
    if bad:
        raise MergeError(
            f"the merged model differs too much from the trained one: {', '.join(bad)}, measured on "
            f"{found.answer_tokens} answer tokens of {found.records} records. Merge with base='auto', or with "
            "dtype='float32'."
        )
