"""The shapes in which imported models answer, told apart by the keys that are there.

| shape                | chosen by                | text                         | stop reason               |
|----------------------|--------------------------|------------------------------|---------------------------|
| BedrockCompletion    | `prompt` + `max_gen_len` | `generation`                 | `stop_reason`             |
| OpenAICompletion     | `prompt` + `max_tokens`  | `choices[0].text`            | `choices[0].finish_reason`|
| OpenAIChatCompletion | `messages`               | `choices[0].message.content` | `choices[0].finish_reason`|

Models imported before 2025-11-11 keep their old shape whatever is asked, so the request does not tell.
Source: "Invoke your imported model", docs.aws.amazon.com/bedrock/latest/userguide/invoke-imported-model.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlquarry.artifacts import Generation
from sqlquarry.errors import GenerationError

# What services call the two ends of an answer -> our words; any other word is passed on.
_STOP_REASONS = {"end_turn": "stop", "eos": "stop", "stop_sequence": "stop", "max_tokens": "length"}


def parse_answer(body: bytes, latency_s: float | None = None) -> Generation:
    """One whole answer.

    Raises:
        GenerationError: it is not JSON, or of no known shape; the message holds the keys, never the content.
    """
    content = _json_object(body)
    text, stop_reason = _text_and_stop(content)
    if text is None:
        raise _unknown(content)
    usage = content.get("usage") or {}
    return Generation(
        text=text,
        stop_reason=_STOP_REASONS.get(stop_reason, stop_reason) if stop_reason else "stop",
        prompt_tokens=content.get("prompt_token_count", usage.get("prompt_tokens")),
        completion_tokens=content.get("generation_token_count", usage.get("completion_tokens")),
        latency_s=latency_s,
    )


def parse_chunk(body: bytes) -> tuple[str, str | None]:
    """The text and, at the end, the stop reason of one streamed chunk; chunks with only usage have no text.

    Raises:
        GenerationError: as `parse_answer`.
    """
    content = _json_object(body)
    text, stop_reason = _text_and_stop(content)
    if text is None and stop_reason is None and "usage" not in content and content.get("choices") != []:
        raise _unknown(content)
    return text or "", _STOP_REASONS.get(stop_reason, stop_reason) if stop_reason else None


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError as error:
        raise GenerationError(f"the model's answer is not JSON ({len(body)} bytes)") from error
    if not isinstance(content, dict):
        raise GenerationError(f"the model's answer is a JSON {type(content).__name__}, not an object")
    return content


def _text_and_stop(content: Mapping[str, Any]) -> tuple[str | None, str | None]:
    if isinstance(content.get("generation"), str):
        return content["generation"], content.get("stop_reason")
    choices = content.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message") or choice.get("delta") or {}
    text = choice.get("text", message.get("content"))
    return text if isinstance(text, str) else None, choice.get("finish_reason")


def _unknown(content: Mapping[str, Any]) -> GenerationError:
    return GenerationError(
        f"the model answered with keys {sorted(content)}, but generation or choices[0].text or "
        "choices[0].message.content was expected. If this is a new shape, please report it."
    )
