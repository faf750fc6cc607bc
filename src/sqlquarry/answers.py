"""Types for a model's answers, for a grader's judgements and for anything that generates text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from sqlquarry.errors import JudgingError
from sqlquarry.records import Record


@dataclass(frozen=True, slots=True)
class Generation:
    """A model's answer to one prompt.

    Args:
        text: the completion, unchanged.
        stop_reason: "stop" (the model ended its answer), "length" (cut off at the limit) or the service's own word.
        prompt_tokens: number of tokens in the prompt, if the service reports it.
        completion_tokens: number of tokens in the answer, if the service reports it.
        latency_s: seconds from request to answer, including waits for a cold model.
        logprobs: natural log probability of each generated token, if requested and supported.
        stop_text: the requested stop text that ended the answer, if one did and the model or service reports it.
    """

    text: str
    stop_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float | None = None
    logprobs: tuple[float, ...] | None = None
    stop_text: str | None = None


Verdict = Literal["correct", "wrong", "unjudged"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One grader's judgement of one prediction. An answer that cannot be graded is "unjudged", never wrong.

    Args:
        grader: the grader's name.
        verdict: "correct", "wrong" or "unjudged".
        reason: explanation for a reader of the report.
        details: what the grader saw (rows, error text), ready for JSON.

    Raises:
        JudgingError: the verdict is another word, so no accuracy would count it.
    """

    grader: str
    verdict: Verdict
    reason: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            known = ", ".join(get_args(Verdict))
            raise JudgingError(f"grader {self.grader!r} returned the verdict {self.verdict!r}. Use one of {known}.")


class TextGenerator(Protocol):
    """Anything that answers prompts: an imported model, local weights, a foundation model or a stub in a test."""

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        """Return one answer per input, in order. Records are rendered with the prompt that the model learned."""
