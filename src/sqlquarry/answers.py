"""Define what a model answers, what a grader says of it, and what both have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from sqlquarry.errors import JudgingError
from sqlquarry.records import Record


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model answered to one prompt.

    Args:
        text: the completion, as it came.
        stop_reason: "stop" (the model ended its answer), "length" (cut at the limit) or another word of the service.
        prompt_tokens: tokens read, where the service says so.
        completion_tokens: tokens written, where the service says so.
        latency_s: seconds from request to answer, waits for a cold model included.
        logprobs: natural logarithm of the probability of each token written, where it was asked for and is offered.
        stop_text: which of the texts asked for ended the answer, where one did and the model or service says so.
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
    """What one grader says of one prediction; an answer that cannot be graded is "unjudged", never wrong.

    Args:
        grader: the grader's name.
        verdict: "correct", "wrong" or "unjudged".
        reason: why, in words for a reader of the report.
        details: what the grader saw (rows, error text), ready for JSON.

    Raises:
        JudgingError: another verdict, which no accuracy would count.
    """

    grader: str
    verdict: Verdict
    reason: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            known = ", ".join(get_args(Verdict))
            raise JudgingError(f"grader {self.grader!r} gave the verdict {self.verdict!r}; it must be one of {known}")


class TextGenerator(Protocol):
    """Anything that answers prompts: an imported model, local weights, a foundation model, a script in a test."""

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        """Answer each input, in order; a `Record` is rendered with the prompt that the model was trained with."""
