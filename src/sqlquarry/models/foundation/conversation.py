"""Write requests to foundation models and read their answers, through Converse or as Claude's own messages.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Required, TypedDict, get_args

from sqlquarry.artifacts import Generation, Record
from sqlquarry.aws.failures import error_code
from sqlquarry.errors import GenerationError
from sqlquarry.models.responses import normalize_stop_reason
from sqlquarry.prompt import PromptFormatter

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.type_defs import (
        InferenceConfigurationTypeDef,
        JsonSchemaDefinitionTypeDef,
        MessageTypeDef,
        OutputConfigTypeDef,
        SystemContentBlockTypeDef,
        ToolConfigurationTypeDef,
    )

API = Literal["converse", "claude"]
Structure = Literal["format", "tool", "tags"]
Turn = tuple[Literal["user", "assistant"], str]
DEFAULT_FORMATTER = PromptFormatter()
NEEDS_PROFILE = "on-demand throughput"
_STRUCTURES: tuple[Structure, ...] = get_args(Structure)
_TOOL = "answer"


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """Holds one thing to ask.

    Args:
        turns: role and text of each message, ending with the user's.
        system: the system prompt, "" for none.
        schema: JSON schema of the answer; None if any text will do.
    """

    turns: tuple[Turn, ...]
    system: str = ""
    schema: Mapping[str, object] | None = None

    @classmethod
    def of(cls, item: Record | str, formatter: PromptFormatter, system: str) -> PromptRequest:
        """Take a record as the formatter's messages, never with its gold SQL, and a text as one user message."""
        if isinstance(item, str):
            return cls((("user", item),), system)
        messages = formatter.messages(item.asked)
        own = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        return cls(
            tuple(("user", message["content"]) for message in messages if message["role"] == "user"), own or system
        )


@dataclass(frozen=True, slots=True)
class RequestStyle:
    """Says how a model is asked; what the model refuses is left out.

    Args:
        max_tokens: longest answer, in tokens.
        temperature: None leaves it out.
        stop: texts that end an answer.
        caching: mark the end of the system prompt as cacheable if an answer has a schema.
        structure: what holds answers to their schema: the service ("format"), a forced tool, or tags in the text.
    """

    max_tokens: int
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    caching: bool = True
    structure: Structure = "format"

    def without_refused(self, error: Exception, request: PromptRequest) -> RequestStyle | None:
        """Return the style to try after a refusal, or None if nothing can be left out.

        Services word refusals in many ways. So whatever else they call invalid may be about the structure; if it was
        not, the last structure, which asks for nothing special, is refused as well.
        """
        code, message = error_code(error), str(error).lower()
        if code == "ValidationException" and self.temperature is not None and "temperature" in message:
            return dataclasses.replace(self, temperature=None)
        if request.schema is None:
            return None
        # Without support, the service denies access: "… your request did not allow prompt caching".
        if code in ("ValidationException", "AccessDeniedException") and self.caching and "cach" in message:
            return dataclasses.replace(self, caching=False)
        if code == "ValidationException" and NEEDS_PROFILE not in message and self.structure != _STRUCTURES[-1]:
            return dataclasses.replace(self, structure=_STRUCTURES[_STRUCTURES.index(self.structure) + 1])
        return None


class ConverseRequest(TypedDict, total=False):
    """Holds the keyword arguments of Converse, except the model."""

    messages: Required[Sequence[MessageTypeDef]]
    inferenceConfig: Required[InferenceConfigurationTypeDef]
    system: Sequence[SystemContentBlockTypeDef]
    outputConfig: OutputConfigTypeDef
    toolConfig: ToolConfigurationTypeDef


def request_body(api: API, request: PromptRequest, style: RequestStyle) -> Mapping[str, object]:
    """Return what a line of a batch job sends, or InvokeModel as its body."""
    return converse_request(request, style) if api == "converse" else claude_request(request, style)


def converse_request(request: PromptRequest, style: RequestStyle) -> ConverseRequest:
    """Return the keyword arguments of Converse."""
    settings: InferenceConfigurationTypeDef = {"maxTokens": style.max_tokens}
    if style.stop:
        settings["stopSequences"] = list(style.stop)
    if style.temperature is not None:
        settings["temperature"] = style.temperature
    content: ConverseRequest = {
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in _turns(request, style)],
        "inferenceConfig": settings,
    }
    schema = request.schema
    if request.system:
        content["system"] = [{"text": request.system}]
        if schema is not None and style.caching:
            content["system"] = [{"text": request.system}, {"cachePoint": {"type": "default"}}]
    if schema is not None and style.structure == "format":
        definition: JsonSchemaDefinitionTypeDef = {"schema": json.dumps(schema), "name": _TOOL}
        content["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}
    if schema is not None and style.structure == "tool":
        content["toolConfig"] = {
            "tools": [
                {"toolSpec": {"name": _TOOL, "description": "Gives the answer.", "inputSchema": {"json": dict(schema)}}}
            ],
            "toolChoice": {"tool": {"name": _TOOL}},
        }
    return content


def claude_request(request: PromptRequest, style: RequestStyle) -> dict[str, object]:
    """Return the JSON body of InvokeModel for Claude."""
    content: dict[str, object] = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": style.max_tokens,
        "messages": [{"role": role, "content": text} for role, text in _turns(request, style)],
    }
    if style.stop:
        content["stop_sequences"] = list(style.stop)
    if style.temperature is not None:
        content["temperature"] = style.temperature
    schema = request.schema
    if request.system:
        cache = {"cache_control": {"type": "ephemeral"}} if schema is not None and style.caching else {}
        content["system"] = [{"type": "text", "text": request.system, **cache}]
    if schema is not None and style.structure == "format":
        content["output_config"] = {"format": {"type": "json_schema", "schema": dict(schema)}}
    if schema is not None and style.structure == "tool":
        content["tools"] = [{"name": _TOOL, "description": "Gives the answer.", "input_schema": dict(schema)}]
        content["tool_choice"] = {"type": "tool", "name": _TOOL}
    return content


def require_complete(answer: Mapping[str, object]) -> Mapping[str, object]:
    """Return an answer of Converse, which botocore passes on empty if the connection broke in the middle of it.

    Raises:
        botocore.exceptions.ResponseStreamingError: it did.
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
    """Read the answer of either API; with a schema its text is JSON, which only "format" guarantees to be valid.

    Raises:
        GenerationError: there is neither text nor a call of the tool; the message holds no content.
    """
    try:
        return _generation(_object(answer), request, style, model_id, latency_s)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"{model_id} answered in a form that is not known ({type(error).__name__}). Please report it."
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
            f"{[sorted(block) for block in blocks]}). Raise max_tokens, or look at its guardrails."
        )
    usage = _object(answer.get("usage", {}))
    return Generation(
        text="".join(texts),
        stop_reason=normalize_stop_reason(_text(reason or "stop")),
        # What a cache read or wrote is counted separately by the service, but was read by the model.
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


def _turns(request: PromptRequest, style: RequestStyle) -> tuple[Turn, ...]:
    """Return the turns to send; with the structure "tags", the last one asks for them."""
    if request.schema is None or style.structure != "tags":
        return request.turns
    *before, (role, text) = request.turns
    return (*before, (role, f"{text}\n\n{_tag_request(request)}"))


def _tag(request: PromptRequest) -> str:
    # A name that nothing in the prompt can know, so that what the model quotes from it is not taken for its answer.
    return f"answer-{hashlib.sha256(repr(request.turns).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _tag_request(request: PromptRequest) -> str:
    tag = _tag(request)
    return (
        "End your answer with one JSON object that is valid for the JSON schema below, between "
        f"<{tag}> and </{tag}>, and nothing after it.\n{json.dumps(request.schema)}"
    )


def _untagged(texts: Iterable[str], request: PromptRequest) -> str:
    """Return what is between the tags that end an answer if they are the only ones, else the answer as it is."""
    text, tag = "".join(texts), _tag(request)
    found = re.search(rf"<{tag}>(.*)</{tag}>\s*\Z", text, re.DOTALL)
    return found[1] if found and text.count(tag) == 2 else text
