"""The allowed keys in the body of InvokeModel, and their allowed values.

Sources: "Invoke your imported model" and "Advanced API features for imported models" (Bedrock user guide) for formats
and constraints, vLLM's SamplingParams and OpenAI-compatible server for all other keys, types and ranges.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypedDict, cast

from sqlquarry.emulator.bedrock.answer_formats import (
    AnswerFormat,
    BedrockCompletion,
    OpenAIChatCompletion,
    OpenAICompletion,
)
from sqlquarry.emulator.requests.errors import invalid, unsupported
from sqlquarry.files.metadata import is_number

LIMITS: tuple[Literal["max_gen_len", "max_completion_tokens", "max_tokens"], ...] = (
    "max_gen_len",
    "max_completion_tokens",
    "max_tokens",
)


class InvocationOptions(TypedDict, total=False):
    """The keys of a body without `prompt` and `messages`. No value is null."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[str, float]
    seed: int
    stop: str | list[str]
    stop_token_ids: list[int]
    ignore_eos: bool
    min_tokens: int
    skip_special_tokens: bool
    response_format: dict[str, object]
    structured_outputs: dict[str, object]
    max_gen_len: int
    max_tokens: int
    max_completion_tokens: int
    return_logprobs: bool
    logprobs: bool | int
    top_logprobs: bool | int
    echo: bool
    add_special_tokens: bool
    add_generation_prompt: bool
    chat_template_kwargs: dict[str, object]


class AllowedValue(NamedTuple):
    """The allowed values of a key. null is always allowed and means that the key is not set.

    Args:
        wanted: description of the allowed values.
        fits: returns whether a value is allowed.
    """

    wanted: str
    fits: Callable[[object], bool]


def _is_int(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


_NUMBER = AllowedValue("a number", is_number)
_INTEGER = AllowedValue("an integer", _is_int)
_COUNT = AllowedValue("a positive integer", lambda value: _is_int(value, 1))
_FLAG = AllowedValue("true or false", lambda value: isinstance(value, bool))
_OBJECT = AllowedValue("an object", lambda value: isinstance(value, dict))
_WRITTEN_TOKENS_ONLY = AllowedValue(
    "true, false, 0 or 1, because this emulator does not report other candidates", lambda value: value in (0, 1)
)
_TOKEN_ID = re.compile("0|[1-9][0-9]{0,8}")  # one spelling per ID, so that no token is named twice
EVERY_FORMAT: Mapping[str, AllowedValue] = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "top_k": _INTEGER,
    "min_p": _NUMBER,
    "repetition_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "logit_bias": AllowedValue(
        "an object that maps token IDs to numbers",
        lambda value: isinstance(value, dict) and all(_TOKEN_ID.fullmatch(k) and is_number(value[k]) for k in value),
    ),
    "seed": AllowedValue("a 64-bit integer", lambda value: _is_int(value, -(2**63), 2**63 - 1)),
    "stop": AllowedValue(
        "a non-empty string or a list of non-empty strings",
        lambda value: (
            (isinstance(value, str) and bool(value))
            or (isinstance(value, list) and all(isinstance(text, str) and text for text in value))
        ),
    ),
    "stop_token_ids": AllowedValue(
        "a list of token IDs",
        lambda value: isinstance(value, list) and all(_is_int(token, 0) for token in value),
    ),
    "ignore_eos": _FLAG,
    "min_tokens": AllowedValue("a non-negative integer", lambda value: _is_int(value, 0)),
    "skip_special_tokens": _FLAG,
    "response_format": _OBJECT,
}
# Each format's own keys, without `prompt` and `messages`.
OWN_KEYS: Mapping[type[AnswerFormat], Mapping[str, AllowedValue]] = {
    BedrockCompletion: {"max_gen_len": _COUNT, "return_logprobs": _FLAG},
    OpenAICompletion: {
        "max_tokens": _COUNT,
        "logprobs": _WRITTEN_TOKENS_ONLY,
        "structured_outputs": _OBJECT,
        "echo": _FLAG,
        "add_special_tokens": _FLAG,
    },
    OpenAIChatCompletion: {
        "max_completion_tokens": _COUNT,
        "max_tokens": _COUNT,
        "logprobs": _WRITTEN_TOKENS_ONLY,
        "top_logprobs": _WRITTEN_TOKENS_ONLY,
        "structured_outputs": _OBJECT,
        "add_special_tokens": _FLAG,
        "add_generation_prompt": _FLAG,
        "chat_template_kwargs": _OBJECT,
    },
}
# vLLM supports these keys, but this emulator does not. The values below have no effect, so clients may send them.
WITHOUT_EFFECT: Mapping[str, object] = {
    "n": 1,
    "best_of": 1,
    "stream": False,
    "use_beam_search": False,
    "length_penalty": 1.0,
    "include_stop_str_in_output": False,
    "spaces_between_special_tokens": True,
    "continue_final_message": False,
    "tools": None,
    "tool_choice": "none",
}


def check_keys(options: Mapping[str, object], answer_format: type[AnswerFormat]) -> InvocationOptions:
    """Check every key of a body, and return the keys that are set and have an effect.

    Raises:
        ApiError: ValidationException that names the keys that are not supported or have invalid values.
    """
    allowed = {**EVERY_FORMAT, **OWN_KEYS[answer_format]}
    if refused := [key for key in options if key not in allowed and not _changes_nothing(key, options[key])]:
        raise unsupported(sorted(refused), f" in {answer_format.__name__}")
    given = {key: value for key, value in options.items() if key in allowed and value is not None}
    if wrong := [key for key, value in given.items() if not allowed[key].fits(value)]:
        raise invalid("; ".join(f"{key} must be {allowed[key].wanted}, but is {given[key]!r:.80}" for key in wrong))
    return cast("InvocationOptions", given)  # `fits` has just checked every key


def _changes_nothing(key: str, value: object) -> bool:
    if key not in WITHOUT_EFFECT:
        return False
    neutral = WITHOUT_EFFECT[key]
    return value is None or (value == neutral and isinstance(value, bool) == isinstance(neutral, bool))
