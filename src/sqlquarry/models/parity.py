"""Compare the answers of an imported model with those of its weights on this machine: fixed prompts, greedy answers.

A lost rope setting, another chat template or a second BOS token makes a served model worse without any error; comparing
answers is what shows it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlquarry.answers import Generation, TextGenerator
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.records import Record

_SHOWN = 5
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class PromptComparison:
    """Compares the two answers to one prompt.

    Args:
        prompt: the text that was sent, or the record's question.
        served: the imported model's answer.
        expected: the local model's answer.
        agreed: share of the longer answer, in pieces, that both begin with; 1.0 if the answers are the same.
        same: the same text, or one was cut and the other one begins with it.
    """

    prompt: str
    served: Generation
    expected: Generation
    agreed: float
    same: bool

    @property
    def prompt_token_difference(self) -> int | None:
        """Return how many tokens the server read beyond the local count; None if a side does not count."""
        served, expected = self.served.prompt_tokens, self.expected.prompt_tokens
        return None if served is None or expected is None else served - expected

    @property
    def logprob_difference(self) -> float | None:
        """Return the largest difference of one token's log-probabilities; None if it cannot be compared."""
        served, expected = self.served.logprobs, self.expected.logprobs
        if not served or not expected or not self.same:
            return None
        return max(abs(a - b) for a, b in zip(served, expected, strict=False))


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Holds what `probe_parity` found.

    Args:
        comparisons: one for each prompt, in order.
        threshold: share of the same answers below which the model is refused.
    """

    comparisons: tuple[PromptComparison, ...]
    threshold: float

    @property
    def agreement(self) -> float:
        """Return the share of the prompts with the same answer, 0 to 1."""
        return sum(comparison.same for comparison in self.comparisons) / len(self.comparisons)

    @property
    def prefix_agreement(self) -> float:
        """Return the mean share of an answer that both begin with; near 1 with few same answers means rounding."""
        return sum(comparison.agreed for comparison in self.comparisons) / len(self.comparisons)

    @property
    def logprob_difference(self) -> float | None:
        """Return the largest difference of one token's log-probability over all same answers; None if none is known."""
        known = [c.logprob_difference for c in self.comparisons if c.logprob_difference is not None]
        return max(known, default=None)

    @property
    def prompt_token_differences(self) -> dict[int, int]:
        """Return a mapping: tokens that the server read beyond the local count -> prompts; empty if nobody counts."""
        return dict(
            Counter(c.prompt_token_difference for c in self.comparisons if c.prompt_token_difference is not None)
        )

    @property
    def bos(self) -> str:
        """Tell whether the server adds BOS as the tokenizer does: "same", "added", "missing", "other" or "unknown".

        One token more for every prompt is a BOS that the server adds although the prompt has one (or the tokenizer adds
        none), one less is a BOS left out. "other" differences come from another template or tokenizer.
        """
        differences = list(self.prompt_token_differences)
        if not differences:
            return "unknown"
        return {0: "same", 1: "added", -1: "missing"}.get(differences[0], "other") if len(differences) == 1 else "other"

    def raise_for_disagreement(self) -> None:
        """Refuse a model that answers differently from its weights.

        Raises:
            BedrockError: fewer answers than `threshold` are the same; the message shows the first that differ.
        """
        if self.agreement < self.threshold:
            raise BedrockError(
                f"the imported model does not answer as its weights do here. {self}\nCompare the exported config.json "
                "(rope_theta, eos_token_id), tokenizer and chat template with the merged model's, and import again."
            )

    def __str__(self) -> str:
        differing = [comparison for comparison in self.comparisons if not comparison.same]
        same = len(self.comparisons) - len(differing)
        logprobs = "" if self.logprob_difference is None else f", logprobs within {self.logprob_difference:.3g}"
        summary = (
            f"{same} of {len(self.comparisons)} answers are the same ({self.agreement:.1%}, threshold "
            f"{self.threshold:.1%}); {self.prefix_agreement:.1%} of the text before the first difference{logprobs}; "
            f"BOS: {self.bos} (prompt tokens beyond the local count -> prompts: {self.prompt_token_differences})"
        )
        shown = [
            f"  {comparison.prompt[-_SHOWN_CHARACTERS:]!r}: served {comparison.served.text[:_SHOWN_CHARACTERS]!r}, "
            f"expected {comparison.expected.text[:_SHOWN_CHARACTERS]!r}"
            for comparison in differing[:_SHOWN]
        ]
        return "\n".join([summary, *shown])


def split_pieces(text: str) -> list[str]:
    """Split a text into words and marks with the white space before them, which are about tokens."""
    return re.findall(r"\s*(?:\w+|[^\w\s])|\s+$", text)


def probe_parity(
    prompts: Sequence[Record] | Sequence[str],
    model: TextGenerator,
    local: TextGenerator | Sequence[Generation],
    *,
    threshold: float = 0.98,
    tokenize: Callable[[str], Sequence[object]] = split_pieces,
) -> ParityReport:
    """Ask both models the same, and compare.

    Args:
        prompts: records or texts; some twenty show most faults.
        model: the imported model; `with_options(logprobs=True)` compares log-probabilities too if the local side has
            them.
        local: what it must agree with: a `LocalModel` of the merged weights, or its recorded answers to `prompts`.
            Give both sides the same `max_tokens`.
        threshold: share of the same answers below which `raise_for_disagreement` refuses, 0 to 1. Greedy answers can
            differ if two tokens are nearly as likely and the machines round differently.
        tokenize: what an answer's pieces are; a tokenizer's `tokenize` counts tokens.

    Raises:
        ConfigError: no prompts, a threshold outside 0 to 1, or another number of recorded answers.
        SQLQuarryError: what either model raises.
    """
    bad = []
    if not prompts or isinstance(prompts, str | Record):
        bad.append("prompts must be a list with at least one record or text")
    if not 0 <= threshold <= 1:
        bad.append(f"threshold is {threshold}, but must be between 0 and 1")
    if isinstance(local, Sequence) and len(local) != len(prompts):
        bad.append(f"local holds {len(local)} answers, but there are {len(prompts)} prompts")
    if bad:
        raise ConfigError("probe_parity: " + "; ".join(bad))
    expected = list(local) if isinstance(local, Sequence) else local.generate(prompts)
    served = model.generate(prompts)
    asked: list[Record | str] = list(prompts)
    triples = zip(asked, served, expected, strict=True)
    return ParityReport(tuple(_compare(*triple, tokenize) for triple in triples), threshold)


def _compare(
    prompt: Record | str, served: Generation, expected: Generation, tokenize: Callable[[str], Sequence[object]]
) -> PromptComparison:
    text = prompt.question if isinstance(prompt, Record) else prompt
    cut, other = sorted((served, expected), key=lambda answer: len(answer.text))
    same = cut.text == other.text or (
        cut.stop_reason == "length" and cut.text != "" and other.text.startswith(cut.text)
    )
    return PromptComparison(
        text, served, expected, 1.0 if same else _agreed(served.text, expected.text, tokenize), same
    )


def _agreed(served: str, expected: str, tokenize: Callable[[str], Sequence[object]]) -> float:
    """Return the share of the longer text, in pieces, before the first difference."""
    one, other = tokenize(served), tokenize(expected)
    equal = [a == b for a, b in zip(one, other, strict=False)]
    common = equal.index(False) if False in equal else len(equal)
    return common / max(len(one), len(other), 1)
