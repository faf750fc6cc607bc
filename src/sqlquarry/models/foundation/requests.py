"""Build requests to foundation models, for Converse or as Claude's own messages.

|            | "converse" (any model)             | "claude" (InvokeModel)                |
|------------|------------------------------------|---------------------------------------|
| structured | `outputConfig.textFormat`          | `output_config.format`                |
| forced tool| `toolConfig`, `toolChoice.tool`    | `tools`, `tool_choice`                |
| top_k      | `additionalModelRequestFields`     | `top_k`                               |
| cache      | `{"cachePoint": …}` after `system` | `cache_control` of the `system` block |

Sources: Converse and InvokeModel in the Bedrock API reference; "Get validated JSON results from models" and "Prompt
caching for faster model inference" in the Bedrock user guide.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Required, TypedDict, get_args

from sqlquarry.aws.failures import error_code
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record

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
NEEDS_PROFILE = "on-demand throughput"
_STRUCTURES: tuple[Structure, ...] = get_args(Structure)
_TOOL = "answer"


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """One prompt with its system prompt and the schema of its answer.

    Args:
        turns: role and text of each message. The last one is the user's.
        system: the system prompt, "" for none.
        schema: JSON schema of the answer, or None if any text is allowed.
    """

    turns: tuple[Turn, ...]
    system: str = ""
    schema: Mapping[str, object] | None = None

    @property
    def answer_tag(self) -> str:
        """Name of the tag around the JSON of an answer with the structure "tags".

        A hash of the prompt makes it unpredictable, so text that the model quotes from the prompt is not mistaken for
        its answer.
        """
        return f"answer-{hashlib.sha256(repr(self.turns).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"

    @classmethod
    def of(cls, item: Record | str, formatter: PromptFormatter, system: str) -> PromptRequest:
        """Build the request for a record (as the formatter's messages, without its gold SQL) or for a text."""
        if isinstance(item, str):
            return cls((("user", item),), system)
        messages = formatter.messages(item.asked)
        own = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        return cls(
            tuple(("user", message["content"]) for message in messages if message["role"] == "user"), own or system
        )


@dataclass(frozen=True, slots=True)
class RequestStyle:
    """Options of a request, reduced to what the model accepts.

    Args:
        max_tokens: longest answer, in tokens.
        temperature: None leaves it out.
        stop: texts that end an answer.
        top_p: None leaves it out.
        top_k: None leaves it out. Converse passes it to the model under this name, which Claude's models know.
        caching: mark the end of the system prompt as cacheable if the request has a schema.
        structure: how an answer is made to follow its schema: by the service ("format"), by a forced tool call
            ("tool"), or by tags that the prompt asks for ("tags").
    """

    max_tokens: int
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    top_p: float | None = None
    top_k: int | None = None
    caching: bool = True
    structure: Structure = "format"

    def without_refused(self, error: Exception, request: PromptRequest) -> RequestStyle | None:
        """Return the style to try after a refusal, or None if nothing more can be left out.

        Services word refusals in many ways, so any other validation error may be about the structure. If it is not, the
        service also refuses the last structure, which needs no special support.
        """
        code, message = error_code(error), str(error).lower()
        # Services write top_p or topP.
        fewer = {
            "temperature": dataclasses.replace(self, temperature=None),
            "topp": dataclasses.replace(self, top_p=None),
            "topk": dataclasses.replace(self, top_k=None),
        }
        for name, style in fewer.items():
            if code == "ValidationException" and style != self and name in message.replace("_", ""):
                return style
        if request.schema is None:
            return None
        # If a model does not support caching, access is denied: "… your request did not allow prompt caching".
        if code in ("ValidationException", "AccessDeniedException") and self.caching and "cach" in message:
            return dataclasses.replace(self, caching=False)
        if code == "ValidationException" and NEEDS_PROFILE not in message and self.structure != _STRUCTURES[-1]:
            return dataclasses.replace(self, structure=_STRUCTURES[_STRUCTURES.index(self.structure) + 1])
        return None


class ConverseRequest(TypedDict, total=False):
    """Keyword arguments of Converse, except the model id."""

    messages: Required[Sequence[MessageTypeDef]]
    inferenceConfig: Required[InferenceConfigurationTypeDef]
    system: Sequence[SystemContentBlockTypeDef]
    additionalModelRequestFields: Mapping[str, object]
    outputConfig: OutputConfigTypeDef
    toolConfig: ToolConfigurationTypeDef


def request_body(api: API, request: PromptRequest, style: RequestStyle) -> Mapping[str, object]:
    """Return the request as the `modelInput` of a line of a batch job."""
    return converse_request(request, style) if api == "converse" else claude_request(request, style)


def converse_request(request: PromptRequest, style: RequestStyle) -> ConverseRequest:
    """Return the request as keyword arguments of Converse."""
    settings: InferenceConfigurationTypeDef = {"maxTokens": style.max_tokens}
    if style.stop:
        settings["stopSequences"] = list(style.stop)
    if style.temperature is not None:
        settings["temperature"] = style.temperature
    if style.top_p is not None:
        settings["topP"] = style.top_p
    content: ConverseRequest = {
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in _turns(request, style)],
        "inferenceConfig": settings,
    }
    if style.top_k is not None:
        content["additionalModelRequestFields"] = {"top_k": style.top_k}
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
    """Return the request as Claude's JSON body for InvokeModel."""
    content: dict[str, object] = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": style.max_tokens,
        "messages": [{"role": role, "content": text} for role, text in _turns(request, style)],
    }
    if style.stop:
        content["stop_sequences"] = list(style.stop)
    sampling = {"temperature": style.temperature, "top_p": style.top_p, "top_k": style.top_k}
    content |= {name: value for name, value in sampling.items() if value is not None}
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


def _turns(request: PromptRequest, style: RequestStyle) -> tuple[Turn, ...]:
    """Return the turns to send. With the structure "tags", the last turn asks for the tags."""
    if request.schema is None or style.structure != "tags":
        return request.turns
    *before, (role, text) = request.turns
    return (*before, (role, f"{text}\n\n{_tag_request(request)}"))


def _tag_request(request: PromptRequest) -> str:
    tag = request.answer_tag
    return (
        "End your answer with one JSON object that is valid for the JSON schema below, between "
        f"<{tag}> and </{tag}>, and nothing after it.\n{json.dumps(request.schema)}"
    )
