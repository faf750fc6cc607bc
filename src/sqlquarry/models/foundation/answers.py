"""Parse the answers of foundation models, which have the form of Converse or of Claude's own messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from sqlquarry.answers import Generation
from sqlquarry.errors import GenerationError
from sqlquarry.models.foundation.requests import PromptRequest, RequestStyle

# Stop reason of a service -> stop reason of this library. Any other word is passed on unchanged.
_STOP_REASONS = {"end_turn": "stop", "eos": "stop", "stop_sequence": "stop", "max_tokens": "length"}


def normalize_stop_reason(reason: str) -> str:
    """Return "stop", "length", or the service's own word if it is neither."""
    return _STOP_REASONS.get(reason, reason)


def require_complete(answer: Mapping[str, object]) -> Mapping[str, object]:
    """Return an answer of Converse if it is complete.

    If the connection breaks in the middle of an answer, botocore returns it empty, without any error.

    Raises:
        botocore.exceptions.ResponseStreamingError: the answer is empty.
    """
    from botocore.exceptions import ResponseStreamingError

    if "output" not in answer:
        raise ResponseStreamingError(error="the answer broke off")
    return answer


def read_answer(
    answer: object,
    request: PromptRequest,
    style: RequestStyle,
    model_id: str,
    latency_s: float | None = None,
) -> Generation:
    """Parse the answer of either API.

    If the request has a schema, the text should be JSON. Only the structure "format" guarantees that it is valid.

    Raises:
        GenerationError: the answer has an unknown form, or contains neither text nor a tool call. The message does not
            contain its content.
    """
    try:
        return _generation(_object(answer), request, style, model_id, latency_s)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"{model_id} answered in an unknown form ({type(error).__name__}). Please report it."
        ) from error


def _generation(
    answer: Mapping[str, object], request: PromptRequest, style: RequestStyle, model_id: str, latency_s: float | None
) -> Generation:
    message = _object(_object(answer.get("output", {})).get("message", {}))
    blocks = _objects(message.get("content") or answer.get("content") or [])
    reason = answer.get("stopReason") or answer.get("stop_reason")
    texts = [_text(block["text"]) for block in blocks if "text" in block]
    if request.schema is not None:
        calls = [call for block in blocks if (call := _called(block)) is not None]
        texts = [json.dumps(calls[0])] if len(calls) == 1 else texts
        texts = [_untagged(texts, request)] if style.structure == "tags" and texts else texts
    if not texts:
        raise GenerationError(
            f"{model_id} answered without text (stop reason {reason!r}, content "
            f"{[sorted(block) for block in blocks]}). Raise max_tokens, or check the model's guardrails."
        )
    usage = _object(answer.get("usage", {}))
    return Generation(
        text="".join(texts),
        stop_reason=normalize_stop_reason(_text(reason or "stop")),
        # The service counts cached tokens separately, but the model reads them too.
        prompt_tokens=_sum(usage, "inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
        or _sum(usage, "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        completion_tokens=_sum(usage, "outputTokens" if "outputTokens" in usage else "output_tokens"),
        latency_s=latency_s,
    )


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"a {type(value).__name__} is not an object")
    return value


def _objects(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list):
        raise TypeError(f"a {type(value).__name__} is not a list")
    return [_object(one) for one in value]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} is not a text")
    return value


def _called(block: Mapping[str, object]) -> object:
    if block.get("type") == "tool_use":
        return block.get("input")
    call = block.get("toolUse")
    return call.get("input") if isinstance(call, Mapping) else None


def _sum(usage: Mapping[str, object], *names: str) -> int | None:
    counts = []
    for count in (usage[name] for name in names if usage.get(name) is not None):
        if not isinstance(count, int):
            raise TypeError(f"a {type(count).__name__} is not a number of tokens")
        counts.append(count)
    return sum(counts) if counts else None


def _untagged(texts: Iterable[str], request: PromptRequest) -> str:
    """Return the text between the tags if one pair of them ends the answer. Otherwise return the answer unchanged."""
    text, tag = "".join(texts), request.answer_tag
    found = re.search(rf"<{tag}>(.*)</{tag}>\s*\Z", text, re.DOTALL)
    return found[1] if found and text.count(tag) == 2 else text
