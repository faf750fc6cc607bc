"""Compare the greedy answers of an imported model with the answers that the same weights give on this machine.

A lost rope setting, a different chat template or a second BOS token makes a served model worse without any error. Only
a comparison of answers shows it.
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
    """Two answers to one prompt and how far they agree.

    Args:
        prompt: the text that was sent, or the record's question.
        served: the imported model's answer.
        expected: the local model's answer.
        agreed: length of the common beginning as a share of the longer answer, counted in pieces. It is 1.0 if the
            answers are the same.
        same: whether the texts are equal, or one was cut at its token limit and the other one starts with it.
    """

    prompt: str
    served: Generation
    expected: Generation
    agreed: float
    same: bool

    @property
    def prompt_token_difference(self) -> int | None:
        """Prompt tokens on the server minus prompt tokens here, or None if either side does not report them."""
        served, expected = self.served.prompt_tokens, self.expected.prompt_tokens
        return None if served is None or expected is None else served - expected

    @property
    def logprob_difference(self) -> float | None:
        """Largest difference between the log-probabilities of one token, or None if they cannot be compared."""
        served, expected = self.served.logprobs, self.expected.logprobs
        if not served or not expected or not self.same:
            return None
        return max(abs(a - b) for a, b in zip(served, expected, strict=False))


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The result of `probe_parity`.

    Args:
        comparisons: one comparison per prompt, in order.
        threshold: smallest share of equal answers with which the model is accepted.
    """

    comparisons: tuple[PromptComparison, ...]
    threshold: float

    @property
    def agreement(self) -> float:
        """Share of prompts with the same answer on both sides, from 0 to 1."""
        return sum(comparison.same for comparison in self.comparisons) / len(self.comparisons)

    @property
    def prefix_agreement(self) -> float:
        """Mean of `agreed` over all prompts. If it is near 1 but few answers are the same, the cause is rounding."""
        return sum(comparison.agreed for comparison in self.comparisons) / len(self.comparisons)

    @property
    def logprob_difference(self) -> float | None:
        """Largest log-probability difference of one token over all equal answers, or None if none is known."""
        known = [c.logprob_difference for c in self.comparisons if c.logprob_difference is not None]
        return max(known, default=None)

    @property
    def prompt_token_differences(self) -> dict[int, int]:
        """Number of prompts for each `prompt_token_difference`. It is empty if the counts are not known."""
        return dict(
            Counter(c.prompt_token_difference for c in self.comparisons if c.prompt_token_difference is not None)
        )

    @property
    def bos(self) -> str:
        """The server's BOS compared with the tokenizer's: "same", "added", "missing", "other" or "unknown".

        If the server counts one more token for every prompt, it adds a BOS token although the prompt already has one or
        the tokenizer adds none. If it counts one less, it leaves BOS out. "other" means a different template or
        tokenizer.
        """
        differences = list(self.prompt_token_differences)
        if not differences:
            return "unknown"
        return {0: "same", 1: "added", -1: "missing"}.get(differences[0], "other") if len(differences) == 1 else "other"

    def raise_for_disagreement(self) -> None:
        """Raise an error if the served model answers differently from its weights.

        Raises:
            BedrockError: the share of equal answers is below `threshold`. The message shows the first differences.
        """
        if self.agreement < self.threshold:
            raise BedrockError(
                f"the imported model does not give the same answers as its weights do on this machine. {self}\n"
                "Compare the exported config.json (rope_theta, eos_token_id), tokenizer and chat template with those "
                "of the merged model, and import it again."
            )

    def __str__(self) -> str:
        differing = [comparison for comparison in self.comparisons if not comparison.same]
        same = len(self.comparisons) - len(differing)
        logprobs = "" if self.logprob_difference is None else f", logprobs within {self.logprob_difference:.3g}"
        summary = (
            f"{same} of {len(self.comparisons)} answers are the same ({self.agreement:.1%}, threshold "
            f"{self.threshold:.1%}); {self.prefix_agreement:.1%} of the text is before the first difference{logprobs}; "
            f"BOS: {self.bos} (extra prompt tokens on the server -> prompts: {self.prompt_token_differences})"
        )
        shown = [
            f"  {comparison.prompt[-_SHOWN_CHARACTERS:]!r}: served {comparison.served.text[:_SHOWN_CHARACTERS]!r}, "
            f"expected {comparison.expected.text[:_SHOWN_CHARACTERS]!r}"
            for comparison in differing[:_SHOWN]
        ]
        return "\n".join([summary, *shown])


def split_pieces(text: str) -> list[str]:
    """Split a text into words and punctuation marks, each with the white space before it. A piece is about a token."""
    return re.findall(r"\s*(?:\w+|[^\w\s])|\s+$", text)


def probe_parity(
    prompts: Sequence[Record] | Sequence[str],
    model: TextGenerator,
    local: TextGenerator | Sequence[Generation],
    *,
    threshold: float = 0.98,
    tokenize: Callable[[str], Sequence[object]] = split_pieces,
) -> ParityReport:
    """Send the same prompts to both models and compare the answers.

    Args:
        prompts: records or texts. About twenty reveal most faults.
        model: the imported model. Use `with_options(logprobs=True)` to compare log-probabilities too, if the local side
            has them.
        local: the reference: a `LocalModel` of the merged weights, or its recorded answers to `prompts`. Use the same
            `max_tokens` on both sides.
        threshold: share of equal answers, from 0 to 1, below which `raise_for_disagreement` raises. Greedy answers can
            differ if two tokens are almost equally likely and the machines round differently.
        tokenize: splits an answer into the pieces that are compared. Pass a tokenizer's `tokenize` to count tokens.

    Raises:
        ConfigError: there are no prompts, the threshold is outside 0 to 1, or the number of recorded answers is wrong.
        SQLQuarryError: either model raised it.
    """
    bad = []
    if not prompts or isinstance(prompts, str | Record):
        bad.append("prompts must be a non-empty list of records or texts")
    if not 0 <= threshold <= 1:
        bad.append(f"threshold is {threshold}, but must be between 0 and 1")
    if isinstance(local, Sequence) and len(local) != len(prompts):
        bad.append(f"local has {len(local)} answers, but there are {len(prompts)} prompts")
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
    """Return the number of pieces before the first difference, as a share of the longer text's pieces."""
    one, other = tokenize(served), tokenize(expected)
    equal = [a == b for a, b in zip(one, other, strict=False)]
    common = equal.index(False) if False in equal else len(equal)
    return common / max(len(one), len(other), 1)
