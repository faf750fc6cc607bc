"""What a verification measures of a merged model, and what it must reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sqlquarry.errors import MergeError
from sqlquarry.options import check_options


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


@dataclass(frozen=True, slots=True)
class AdapterAgreement:
    """How a model agrees with the adapter on its training base, over the tokens of the gold answers.

    Args:
        kl: mean KL(adapter ‖ model) of the next-token distributions, nats.
        greedy_agreement: share of tokens with the same most likely token.
        answer_log_likelihood: mean log-likelihood of the gold tokens, nats per token.
        adapter_log_likelihood: the same of the adapter on its training base.
        answer_tokens: tokens compared.
        records: records they come from.
    """

    kl: float
    greedy_agreement: float
    answer_log_likelihood: float
    adapter_log_likelihood: float
    answer_tokens: int
    records: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What a comparison found about a merged model.

    Args:
        agreement: with the adapter on its training base.
        coverage: share of the adapter's tensors that are in the merged model.
        largest_update: largest ‖ΔW‖/‖W‖ of a tensor.
        changed_tensors: how many tensors the adapter changes.
    """

    agreement: AdapterAgreement
    coverage: float
    largest_update: float
    changed_tensors: int

    def require(self, thresholds: Thresholds) -> None:
        """Check that the model is close enough.

        Raises:
            MergeError: with each number that misses its threshold.
        """
        found, least = self.agreement, thresholds.min_greedy_agreement
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
                    not self.largest_update <= thresholds.max_relative_update,
                    f"relative update {self.largest_update:.2f} > {thresholds.max_relative_update:g}",
                ),
                (self.coverage < 1, f"only {self.coverage:.2%} of the adapter's tensors were merged"),
            )
            if wrong
        ]
        if bad:
            raise MergeError(
                f"the merged model is not the model that was trained: {'; '.join(bad)}, over {found.answer_tokens} "
                f"answer tokens of {found.records} records. Merge with base='auto', or dtype='float32'."
            )
