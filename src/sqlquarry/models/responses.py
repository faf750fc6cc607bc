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

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlquarry.artifacts import Generation
from sqlquarry.errors import GenerationError, MetadataError
from sqlquarry.files.metadata import parse_json

# What services call the two ends of an answer -> our words; any other word is passed on.
_STOP_REASONS = {"end_turn": "stop", "eos": "stop", "stop_sequence": "stop", "max_tokens": "length"}


class Piece(NamedTuple):
    """One streamed chunk; None where it says nothing of it.

    Chunks that open a chat or hold only usage have no text; the stop reason and usage come at the end.
    """

    text: str | None = None
    stop_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def over(self, earlier: Piece) -> Piece:
        """What is known after both."""
        return earlier._replace(**{name: value for name, value in self._asdict().items() if value is not None})


def parse_answer(body: bytes, latency_s: float | None = None) -> Generation:
    """One whole answer; an empty text is an answer, no text is none.

    Raises:
        GenerationError: it is not JSON, or of no known shape; the message holds the keys, never the content.
    """
    content = _json_object(body)
    piece = _piece(content)
    if piece.text is None:
        raise _unknown(content)
    return Generation(
        text=piece.text,
        stop_reason=piece.stop_reason or "stop",
        prompt_tokens=piece.prompt_tokens,
        completion_tokens=piece.completion_tokens,
        latency_s=latency_s,
        logprobs=_logprobs(content),
    )


def parse_chunk(body: bytes) -> Piece:
    """One streamed chunk.

    Raises:
        GenerationError: as `parse_answer`.
    """
    content = _json_object(body)
    if not content.keys() & {"generation", "choices", "usage"}:
        raise _unknown(content)
    return _piece(content)


def stop_word(reason: str) -> str:
    """A service's stop reason in our words: "stop", "length", or its own word."""
    return _STOP_REASONS.get(reason, reason)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = parse_json(body, "an answer", lenient=True)
    except MetadataError as error:
        raise GenerationError(
            f"the model's answer is not JSON ({len(body)} bytes). Look at the model in the Bedrock console."
        ) from error
    if not isinstance(content, dict):
        raise GenerationError(
            f"the model's answer is a JSON {type(content).__name__}, not an object. Please report it."
        )
    return content


def _piece(content: Mapping[str, Any]) -> Piece:
    choice, usage = _choice(content), _object(content.get("usage"))
    message = _object(choice.get("message")) or _object(choice.get("delta"))
    text = content.get("generation", choice.get("text", message.get("content")))
    reason = content.get("stop_reason") or choice.get("finish_reason")
    return Piece(
        text if isinstance(text, str) else None,
        stop_word(reason) if reason and isinstance(reason, str) else None,
        _count(content.get("prompt_token_count", usage.get("prompt_tokens"))),
        _count(content.get("generation_token_count", usage.get("completion_tokens"))),
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _choice(content: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = content.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _logprobs(content: Mapping[str, Any]) -> tuple[float, ...] | None:
    """In Completions `token_logprobs`, in Chat `content`, in BedrockCompletion ``[{token id: value}, …]``."""
    found = content.get("logprobs") or _choice(content).get("logprobs")
    if isinstance(found, dict):
        found = found.get("token_logprobs") or found.get("content")
    values = [_logprob(entry) for entry in found] if isinstance(found, list) else []
    known = [value for value in values if value is not None]
    return tuple(known) if known and len(known) == len(values) else None


def _logprob(entry: Any) -> float | None:
    candidates = [entry]
    if isinstance(entry, dict):
        candidates = [entry["logprob"]] if "logprob" in entry else list(entry.values())
    # Of several candidates a greedy answer took the likeliest.
    return max((float(value) for value in candidates if isinstance(value, int | float)), default=None)


def _unknown(content: Mapping[str, Any]) -> GenerationError:
    return GenerationError(
        f"the model answered with keys {sorted(content)}, but generation or choices[0].text or "
        "choices[0].message.content was expected. If this is a new shape, please report it."
    )
