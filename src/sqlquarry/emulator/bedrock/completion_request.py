"""A prompt and the options for decoding its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlquarry.models.local.constraints import Constraint
from sqlquarry.models.local.sampling import Sampling

DEFAULT_MAX_TOKENS = 512  # for requests without a limit (this emulator's choice)
UNCHANGED = Sampling(temperature=1.0)  # the model's own probabilities, as in vLLM's default


@dataclass(frozen=True, slots=True)
class Decoding:
    """Decoding options. Requests with equal options may share a batch.

    Args:
        max_tokens: maximum number of tokens to generate. None means that the request sets no limit. Then the limit is
            `DEFAULT_MAX_TOKENS` or the rest of the context, whichever is smaller.
        sampling: how tokens are sampled.
        stop: texts that end an answer.
        seed: seed that makes a sampled answer repeatable. A request with a seed is decoded alone.
        logprobs: report the log-probability of each generated token.
        constraint: form that the answer must have.
        stop_ids: tokens that end an answer, in addition to the model's own.
        ignore_eos: continue after the model's own end tokens.
        min_tokens: minimum number of tokens to generate.
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
        prompt: text, or messages with role and content.
        decoding: decoding options.
        context_tokens: the model's limit for prompt and answer together. None means no limit.
        add_special_tokens: let the tokenizer add its special tokens to the prompt. None means that the request does not
            set it. Then they are added to texts, but not to messages, because the chat template adds them.
        template: variables of the chat template, except for the messages.
    """

    prompt: str | list[dict[str, str]]
    decoding: Decoding
    context_tokens: int | None = None
    add_special_tokens: bool | None = None
    template: Mapping[str, object] = field(default_factory=dict)
