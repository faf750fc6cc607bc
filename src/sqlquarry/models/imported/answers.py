"""Parse the answers of imported models. The keys of an answer show which of three shapes it has.

| shape                | chosen by                | text                         | stop reason               |
|----------------------|--------------------------|------------------------------|---------------------------|
| BedrockCompletion    | `prompt` + `max_gen_len` | `generation`                 | `stop_reason`             |
| OpenAICompletion     | `prompt` + `max_tokens`  | `choices[0].text`            | `choices[0].finish_reason`|
| OpenAIChatCompletion | `messages`               | `choices[0].message.content` | `choices[0].finish_reason`|

Models imported before 2025-11-11 always answer in their old shape, so the request does not determine the shape.
Source: "Invoke your imported model", docs.aws.amazon.com/bedrock/latest/userguide/invoke-imported-model.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlquarry.answers import Generation
from sqlquarry.errors import GenerationError, MetadataError
from sqlquarry.files.metadata import parse_json
from sqlquarry.models.foundation.answers import normalize_stop_reason


class AnswerChunk(NamedTuple):
    """One chunk of a streamed answer. Fields that the chunk does not mention are None.

    Chunks that open a chat or contain only usage have no text. The stop reason and usage come at the end.
    """

    text: str | None = None
    stop_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def over(self, earlier: AnswerChunk) -> AnswerChunk:
        """Return `earlier` updated with the fields that this chunk mentions."""
        return earlier._replace(**{name: value for name, value in self._asdict().items() if value is not None})


def parse_answer(body: bytes, latency_s: float | None = None) -> Generation:
    """Parse one complete answer. An empty text is valid, but a missing one is an error.

    Raises:
        GenerationError: the answer is not JSON or has an unknown shape. The message contains its keys, never its
            content.
    """
    content = _json_object(body)
    chunk = _chunk(content)
    if chunk.text is None:
        raise _unknown(content)
    return Generation(
        text=chunk.text,
        stop_reason=chunk.stop_reason or "stop",
        prompt_tokens=chunk.prompt_tokens,
        completion_tokens=chunk.completion_tokens,
        latency_s=latency_s,
        logprobs=_logprobs(content),
    )


def parse_chunk(body: bytes) -> AnswerChunk:
    """Parse one streamed chunk.

    Raises:
        GenerationError: as for `parse_answer`.
    """
    content = _json_object(body)
    if not content.keys() & {"generation", "choices", "usage"}:
        raise _unknown(content)
    return _chunk(content)


def _json_object(body: bytes) -> dict[str, object]:
    try:
        content = parse_json(body, "an answer", lenient=True)
    except MetadataError as error:
        raise GenerationError(
            f"the model's answer is not JSON ({len(body)} bytes). Check the model in the Bedrock console."
        ) from error
    if not isinstance(content, dict):
        raise GenerationError(
            f"the model's answer is a JSON {type(content).__name__}, not a JSON object. Please report it."
        )
    return content


def _chunk(content: Mapping[str, object]) -> AnswerChunk:
    choice, usage = _choice(content), _object(content.get("usage"))
    message = _object(choice.get("message")) or _object(choice.get("delta"))
    text = content.get("generation", choice.get("text", message.get("content")))
    reason = content.get("stop_reason") or choice.get("finish_reason")
    return AnswerChunk(
        text if isinstance(text, str) else None,
        normalize_stop_reason(reason) if reason and isinstance(reason, str) else None,
        _count(content.get("prompt_token_count", usage.get("prompt_tokens"))),
        _count(content.get("generation_token_count", usage.get("completion_tokens"))),
    )


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _choice(content: Mapping[str, object]) -> Mapping[str, object]:
    choices = content.get("choices")
    return _object(choices[0]) if isinstance(choices, list) and choices else {}


def _logprobs(content: Mapping[str, object]) -> tuple[float, ...] | None:
    """Return the log-probabilities of the written tokens, or None if the answer does not have one for each token.

    Completions have them in `token_logprobs`, chats in `content`, and BedrockCompletion as ``[{token id: value}, …]``.
    """
    found = content.get("logprobs") or _choice(content).get("logprobs")
    if isinstance(found, dict):
        found = found.get("token_logprobs") or found.get("content")
    values = [_logprob(entry) for entry in found] if isinstance(found, list) else []
    known = [value for value in values if value is not None]
    return tuple(known) if known and len(known) == len(values) else None


def _logprob(entry: object) -> float | None:
    candidates = [entry]
    if isinstance(entry, dict):
        candidates = [entry["logprob"]] if "logprob" in entry else list(entry.values())
    # If there are several candidates, a greedy answer contains the likeliest one.
    return max((float(value) for value in candidates if isinstance(value, int | float)), default=None)


def _unknown(content: Mapping[str, object]) -> GenerationError:
    return GenerationError(
        f"the model answered with keys {sorted(content)}, but generation, choices[0].text or "
        "choices[0].message.content was expected. If this is a new shape, please report it."
    )
