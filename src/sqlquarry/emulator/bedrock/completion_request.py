"""One prompt and how to decode its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlquarry.models.local.constraints import Constraint
from sqlquarry.models.local.sampling import Sampling

DEFAULT_MAX_TOKENS = 512  # for requests that name no limit; this emulator's choice
UNCHANGED = Sampling(temperature=1.0)  # the model's own probabilities, as vLLM samples by default


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to decode; requests with equal options may share a batch.

    Args:
        max_tokens: tokens to write at most; None if the request names no limit, so that the answer gets
            `DEFAULT_MAX_TOKENS`, or what the context has left.
        sampling: how tokens are chosen.
        stop: texts that end an answer.
        seed: repeats a sampled answer, so such a request is decoded alone.
        logprobs: report the log-probability of each token written.
        constraint: the form that the answer must have.
        stop_ids: tokens that end an answer, like the model's own.
        ignore_eos: continue after the model's own.
        min_tokens: tokens to write at least.
        skip_special_tokens: leave special tokens out of the text.
    """

    max_tokens: int | None
    sampling: Sampling = UNCHANGED
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    constraint: Constraint | None = None
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One prompt, as text or as messages for the model's chat template.

    Args:
        prompt: the text, or messages with role and content.
        decoding: how to decode.
        context_tokens: the model's limit for prompt and answer together; None for no limit.
        add_special_tokens: let the tokenizer put its special tokens around the prompt; None if the request does not
            say, which means yes for texts and no for messages, whose template brings its own.
        template: variables of the chat template, without the messages.
    """

    prompt: str | list[dict[str, str]]
    decoding: Decoding
    context_tokens: int | None = None
    add_special_tokens: bool | None = None
    template: Mapping[str, object] = field(default_factory=dict)
