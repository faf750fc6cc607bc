"""Say what a merged model must reach, and refuse one that does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sqlquarry.errors import MergeError
from sqlquarry.options import check_options
from sqlquarry.provenance import Verification


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The least that a merged model must reach.

    The defaults tell a correct merge from a wrong one. Measured on SmolLM2-135M, a merge into the dequantized weights
    rounded to bf16 has a KL of 2e-4 and the same greedy answers; a merge into the original weights has a KL of 4e-2.

    Args:
        max_kl: mean KL(adapter ‖ merged) on answer tokens, nats.
        min_greedy_agreement: share of answer tokens with the same most likely token. It is missed if the measured
            share is lower by more than two standard errors of the number of tokens: 3 of 122 tokens do not disprove
            98 %.
        max_relative_update: largest ‖ΔW‖/‖W‖ of a tensor; beyond it the adapter has overwritten the base.
    """

    max_kl: float = 5e-3
    min_greedy_agreement: float = 0.98
    max_relative_update: float = 1.0


def require_thresholds(verification: Verification, thresholds: Thresholds) -> None:
    """Check that a merged model is close enough to the adapter on its training base.

    Raises:
        MergeError: with each number that misses its threshold.
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
            f"the merged model is not the model that was trained: {'; '.join(bad)}, over {found.answer_tokens} "
            f"answer tokens of {found.records} records. Merge with base='auto', or dtype='float32'."
        )
