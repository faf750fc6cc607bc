"""Render prompts and count their tokens with the tokenizer of an imported model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace
from typing import Protocol

from sqlquarry.emulator.bedrock.completion_request import DEFAULT_MAX_TOKENS, CompletionRequest, Decoding
from sqlquarry.emulator.requests.errors import invalid
from sqlquarry.text import lone_surrogate
from sqlquarry.tokenizing.rendering import template_variables


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that the emulator uses."""

    chat_template: str | None

    def __len__(self) -> int: ...

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, Sized]:
        """Return the token IDs of a text as `input_ids`."""
        ...

    def apply_chat_template(self, messages: list[dict[str, str]], *, tokenize: bool, **variables: object) -> object:
        """Return messages as one text."""
        ...


@dataclass(frozen=True, slots=True)
class MeasuredPrompt:
    """A prompt as the model gets it.

    Args:
        text: prompt after the chat template was applied.
        add_special_tokens: whether the tokenizer adds its special tokens.
        decoding: decoding options. They lack a token limit only if the model has no context limit either.
    """

    text: str
    add_special_tokens: bool
    decoding: Decoding


def measured_prompt(tokenizer: ChatTokenizer, request: CompletionRequest) -> MeasuredPrompt:
    """Render the prompt of a request, and check that the prompt and the answer fit into the model's context.

    Raises:
        ApiError: ValidationException that says why the request cannot be answered.
    """
    is_text = isinstance(request.prompt, str)
    text = request.prompt if isinstance(request.prompt, str) else _render(tokenizer, request.prompt, request.template)
    special = is_text if request.add_special_tokens is None else request.add_special_tokens
    decoding, limit = request.decoding, request.context_tokens
    named = [*decoding.stop_ids, *decoding.sampling.logit_bias]
    if named and max(named) >= len(tokenizer):
        raise invalid(f"token ID {max(named)} is too large, because the model has {len(tokenizer)} tokens")
    if half := lone_surrogate(text):
        raise invalid(f"the prompt contains {half}, which is only half of a character")
    prompt_tokens = len(tokenizer(text, add_special_tokens=special)["input_ids"])
    if prompt_tokens == 0:
        raise invalid("the prompt has no tokens")
    if limit is not None:
        wanted = decoding.max_tokens or min(DEFAULT_MAX_TOKENS, max(1, limit - prompt_tokens))
        if prompt_tokens + wanted > limit:
            raise invalid(
                f"This model's maximum context length is {limit} tokens, but the request has {prompt_tokens} prompt "
                f"tokens and requests {wanted} more"
            )
        decoding = replace(decoding, max_tokens=wanted)
    most = decoding.max_tokens or DEFAULT_MAX_TOKENS
    if decoding.min_tokens > most:
        raise invalid(f"min_tokens is {decoding.min_tokens}, but an answer without a limit has at most {most} tokens")
    return MeasuredPrompt(text, special, decoding)


def _render(tokenizer: ChatTokenizer, messages: list[dict[str, str]], options: Mapping[str, object]) -> str:
    source = tokenizer.chat_template
    if source is None:
        raise invalid("tokenizer_config.json of the imported model does not contain a chat_template")
    reserved = inspect.signature(tokenizer.apply_chat_template).parameters.keys() - {"add_generation_prompt"}
    try:
        unread = options and sorted(options.keys() - (template_variables(source) - reserved - {"messages"}))
        given = {"add_generation_prompt": True} | dict(options)
        rendered = "" if unread else str(tokenizer.apply_chat_template(messages, tokenize=False, **given))
    except Exception as error:  # a template is code from the model's authors and can raise any error
        raise invalid(f"the chat template rejects these messages: {error}") from error
    if unread:
        raise invalid(f"the chat template does not use {', '.join(unread)}")
    return rendered
