"""What is sent to a foundation model and what comes back, through Converse or as Claude's own messages.

|            | "converse" (any model)             | "claude" (InvokeModel)                |
|------------|------------------------------------|---------------------------------------|
| structured | `outputConfig.textFormat`          | `output_config.format`                |
| forced tool| `toolConfig`, `toolChoice.tool`    | `tools`, `tool_choice`                |
| cache      | `{"cachePoint": …}` after `system` | `cache_control` of the `system` block |

Sources: Converse and InvokeModel in the Bedrock API reference; "Get validated JSON results from models" and "Prompt
caching for faster model inference" in the Bedrock user guide.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlquarry.artifacts import Generation, Record
from sqlquarry.aws.failures import error_code
from sqlquarry.errors import GenerationError
from sqlquarry.models.responses import stop_word
from sqlquarry.prompt import PromptFormatter

API = Literal["converse", "claude"]
Structure = Literal["format", "tool", "tags"]
NEEDS_PROFILE = "on-demand throughput"
_STRUCTURES: tuple[Structure, ...] = get_args(Structure)
_TOOL = "answer"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """One thing to ask.

    Args:
        turns: role and text of each message, ending with the user's.
        system: the system prompt, "" for none.
        schema: JSON schema of the answer; None where any text will do.
    """

    turns: tuple[tuple[str, str], ...]
    system: str = ""
    schema: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, item: Record | str, formatter: PromptFormatter, system: str) -> Inquiry:
        """A record as the formatter's messages, never with its gold SQL; a text as one user message."""
        if isinstance(item, str):
            return cls((("user", item),), system)
        turns = formatter.messages(item.asked)
        own = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
        return cls(tuple((turn["role"], turn["content"]) for turn in turns if turn["role"] != "system"), own or system)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model is asked: what it may refuse is left out.

    Args:
        max_tokens: longest answer, in tokens.
        temperature: None leaves it out.
        stop: texts that end an answer.
        caching: mark the end of the system prompt as cacheable, where an answer has a schema.
        structure: what holds an answer to its schema: the service ("format"), a forced tool, or tags in the text.
    """

    max_tokens: int
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    caching: bool = True
    structure: Structure = "format"

    def without_refused(self, error: Exception, inquiry: Inquiry) -> Manner | None:
        """The manner to try after a refusal; None where nothing can be left out.

        Services word it in many ways. So whatever else they call invalid may be about the structure; if it was not,
        the last structure, which asks for nothing special, is refused as well.
        """
        code, said = error_code(error), str(error).lower()
        if code == "ValidationException" and self.temperature is not None and "temperature" in said:
            return dataclasses.replace(self, temperature=None)
        if inquiry.schema is None:
            return None
        # Without support, the service denies access: "… your request did not allow prompt caching".
        if code in ("ValidationException", "AccessDeniedException") and self.caching and "cach" in said:
            return dataclasses.replace(self, caching=False)
        if code == "ValidationException" and NEEDS_PROFILE not in said and self.structure != _STRUCTURES[-1]:
            return dataclasses.replace(self, structure=_STRUCTURES[_STRUCTURES.index(self.structure) + 1])
        return None


def body(api: API, inquiry: Inquiry, manner: Manner) -> dict[str, Any]:
    """The request without the model: keyword arguments of Converse, or the JSON body of InvokeModel."""
    if inquiry.schema is not None and manner.structure == "tags":
        *before, (role, text) = inquiry.turns
        inquiry = dataclasses.replace(inquiry, turns=(*before, (role, f"{text}\n\n{_tag_request(inquiry)}")))
    return (_converse if api == "converse" else _claude)(inquiry, manner)


def _converse(inquiry: Inquiry, manner: Manner) -> dict[str, Any]:
    settings: dict[str, Any] = {"maxTokens": manner.max_tokens}
    if manner.stop:
        settings["stopSequences"] = list(manner.stop)
    if manner.temperature is not None:
        settings["temperature"] = manner.temperature
    request: dict[str, Any] = {
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in inquiry.turns],
        "inferenceConfig": settings,
    }
    schema = inquiry.schema
    if inquiry.system:
        cache = [{"cachePoint": {"type": "default"}}] if schema is not None and manner.caching else []
        request["system"] = [{"text": inquiry.system}, *cache]
    if schema is not None and manner.structure == "format":
        definition = {"jsonSchema": {"schema": json.dumps(schema), "name": _TOOL}}
        request["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": definition}}
    if schema is not None and manner.structure == "tool":
        tool = {"name": _TOOL, "description": "Gives the answer.", "inputSchema": {"json": dict(schema)}}
        request["toolConfig"] = {"tools": [{"toolSpec": tool}], "toolChoice": {"tool": {"name": _TOOL}}}
    return request


def _claude(inquiry: Inquiry, manner: Manner) -> dict[str, Any]:
    request: dict[str, Any] = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": manner.max_tokens,
        "messages": [{"role": role, "content": text} for role, text in inquiry.turns],
    }
    if manner.stop:
        request["stop_sequences"] = list(manner.stop)
    if manner.temperature is not None:
        request["temperature"] = manner.temperature
    schema = inquiry.schema
    if inquiry.system:
        cache = {"cache_control": {"type": "ephemeral"}} if schema is not None and manner.caching else {}
        request["system"] = [{"type": "text", "text": inquiry.system, **cache}]
    if schema is not None and manner.structure == "format":
        request["output_config"] = {"format": {"type": "json_schema", "schema": dict(schema)}}
    if schema is not None and manner.structure == "tool":
        request["tools"] = [{"name": _TOOL, "description": "Gives the answer.", "input_schema": dict(schema)}]
        request["tool_choice"] = {"type": "tool", "name": _TOOL}
    return request


def whole(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer of Converse, which botocore passes on empty where the connection broke in the middle of it.

    Raises:
        botocore.exceptions.ResponseStreamingError: it did.
    """
    from botocore.exceptions import ResponseStreamingError

    if "output" not in answer:
        raise ResponseStreamingError(error="the answer broke off")
    return dict(answer)


def read(
    answer: Mapping[str, Any], inquiry: Inquiry, manner: Manner, model_id: str, latency_s: float | None = None
) -> Generation:
    """The answer of either API; with a schema its JSON text, which only "format" guarantees to be valid.

    Raises:
        GenerationError: there is neither text nor a call of the tool; the message holds no content.
    """
    try:
        return _generation(answer, inquiry, manner, model_id, latency_s)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"{model_id} answered in a form that is not known ({type(error).__name__}). Please report it."
        ) from error


def _generation(
    answer: Mapping[str, Any], inquiry: Inquiry, manner: Manner, model_id: str, latency_s: float | None
) -> Generation:
    blocks = answer.get("output", {}).get("message", {}).get("content", []) or answer.get("content", [])
    reason = answer.get("stopReason") or answer.get("stop_reason")
    texts = [block["text"] for block in blocks if "text" in block]
    if inquiry.schema is not None:
        called = [call for block in blocks if (call := _called(block)) is not None]
        texts = [json.dumps(called[0])] if len(called) == 1 else texts
        texts = [_untagged(texts, inquiry)] if manner.structure == "tags" and texts else texts
    if not texts:
        raise GenerationError(
            f"{model_id} answered without text (stop reason {reason!r}, content "
            f"{[sorted(block) for block in blocks]}). Raise max_tokens, or look at its guardrails."
        )
    usage = answer.get("usage", {})
    return Generation(
        text="".join(texts),
        stop_reason=stop_word(reason or "stop"),
        # What a cache read or wrote is counted apart by the service, but was read by the model.
        prompt_tokens=_sum(usage, "inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
        or _sum(usage, "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        completion_tokens=usage.get("outputTokens", usage.get("output_tokens")),
        latency_s=latency_s,
    )


def _called(block: Mapping[str, Any]) -> Any:
    if block.get("type") == "tool_use":
        return block.get("input")
    call = block.get("toolUse")
    return call.get("input") if isinstance(call, Mapping) else None


def _sum(usage: Mapping[str, Any], *names: str) -> int | None:
    counts = [usage[name] for name in names if usage.get(name) is not None]
    return sum(counts) if counts else None


def _tag(inquiry: Inquiry) -> str:
    # A name that nothing in the prompt can know, so that what the model quotes from it is not taken for its answer.
    return f"answer-{hashlib.sha256(repr(inquiry.turns).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _tag_request(inquiry: Inquiry) -> str:
    tag = _tag(inquiry)
    return (
        "End your answer with one JSON object that is valid for the JSON schema below, between "
        f"<{tag}> and </{tag}>, and nothing after it.\n{json.dumps(inquiry.schema)}"
    )


def _untagged(texts: Iterable[str], inquiry: Inquiry) -> str:
    """What stands between the tags that end an answer, if they are the only ones; else the answer as it is."""
    text, tag = "".join(texts), _tag(inquiry)
    found = re.search(rf"<{tag}>(.*)</{tag}>\s*\Z", text, re.DOTALL)
    return found[1] if found and text.count(tag) == 2 else text
