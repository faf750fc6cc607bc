"""Translate Converse and ConverseStream requests to InvokeModel with `messages`, and translate the answers back.

Sources: Converse and ConverseStream (API reference of Bedrock's runtime), "Invoke your imported model" and "Code
samples for custom model import" (Bedrock user guide), which list the families without Converse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlquarry.answers import Generation
from sqlquarry.emulator.bedrock.answer_formats import split_text
from sqlquarry.emulator.bedrock.completion_request import CompletionRequest
from sqlquarry.emulator.bedrock.invocation import chat_request
from sqlquarry.emulator.requests.errors import invalid, unsupported
from sqlquarry.emulator.requests.parameters import ApiAnswer, validate

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.type_defs import (
        ContentBlockUnionTypeDef,
        ConverseRequestTypeDef,
        ConverseStreamRequestTypeDef,
        MessageUnionTypeDef,
        SystemContentBlockTypeDef,
    )

# The service's messages, as reported by users.
UNSUPPORTED = "This action doesn't support the model that you provided. Try again with a supported text or chat model."
BLANK = "The text field in the ContentBlock object is blank. Add text to the text field, and try again."
_HONORED = {
    "modelId",
    "messages",
    "system",
    "inferenceConfig",
    "additionalModelRequestFields",
    "requestMetadata",  # only for the logs of the service
}
# Other parameters -> the value that has no effect, if there is one.
_WITHOUT_EFFECT: Mapping[str, object] = {
    "promptVariables": {},
    "additionalModelResponseFieldPaths": [],
    "performanceConfig": {"latency": "standard"},
    "serviceTier": {"type": "default"},
}
# Key of `inferenceConfig` -> key of InvokeModel.
_SETTINGS = {"maxTokens": "max_tokens", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop"}
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def parse_converse(parameters: ConverseRequestTypeDef | ConverseStreamRequestTypeDef) -> CompletionRequest:
    """Parse the parameters of Converse. additionalModelRequestFields may contain further keys of InvokeModel.

    Raises:
        ApiError: ValidationException that names the parameters that are invalid or not supported.
    """
    validate("Converse", parameters, service="bedrock-runtime")
    asked = {name: held for name, held in parameters.items() if name not in _HONORED and held is not None}
    if refused := sorted(name for name, held in asked.items() if held != _WITHOUT_EFFECT.get(name)):
        raise unsupported(refused)
    messages = _messages(parameters.get("messages") or [])
    if system := parameters.get("system"):
        messages.insert(0, {"role": "system", "content": _text(system)})
    settings = parameters.get("inferenceConfig") or {}
    options = {_SETTINGS.get(name, name): value for name, value in settings.items() if value is not None}
    for name in ("temperature", "top_p"):  # InvokeModel accepts a higher temperature
        value = options.get(name)
        if isinstance(value, int | float) and value > 1:
            raise invalid(f"inferenceConfig: {name} must be at most 1, but is {value!r}")
    more = parameters.get("additionalModelRequestFields") or {}
    if not isinstance(more, dict):
        raise invalid(f"additionalModelRequestFields must be an object, but is {more!r:.80}")
    if twice := sorted(options.keys() & more.keys()):
        raise invalid(f"inferenceConfig and additionalModelRequestFields both contain {', '.join(twice)}")
    request = chat_request(messages, options | more)
    if request.decoding.logprobs:
        raise invalid("answers of Converse cannot contain logprobs. Use InvokeModel instead.")
    return request


def _messages(turns: Sequence[MessageUnionTypeDef]) -> list[dict[str, str]]:
    roles = [turn["role"] for turn in turns]
    if roles != ["user" if index % 2 == 0 else "assistant" for index in range(len(turns))] or len(turns) % 2 == 0:
        raise invalid(f"messages must begin and end with a user message, and roles must alternate, but are {roles}")
    return [{"role": turn["role"], "content": _text(turn["content"])} for turn in turns]


def converse_answer(generation: Generation, *, without_text: bool = False) -> ApiAnswer:
    """Return the answer of Converse. `without_text` leaves its content empty."""
    content = [] if without_text else [{"text": generation.text}]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": _stop_reason(generation),
        **_metadata(generation),
    }


def converse_events(generation: Generation, *, without_text: bool = False) -> list[ApiAnswer]:
    """Return the events of ConverseStream. `without_text` omits the events with content."""
    block: list[ApiAnswer] = [
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": piece}}}
        for piece in split_text(generation.text)
    ]
    block.append({"contentBlockStop": {"contentBlockIndex": 0}})
    return [
        {"messageStart": {"role": "assistant"}},
        *([] if without_text else block),
        {"messageStop": {"stopReason": _stop_reason(generation)}},
        {"metadata": _metadata(generation)},
    ]


def _stop_reason(generation: Generation) -> str:
    return "stop_sequence" if generation.stop_text else _STOP_REASONS[generation.stop_reason]


def _metadata(generation: Generation) -> ApiAnswer:
    read, written = generation.prompt_tokens or 0, generation.completion_tokens or 0
    return {
        "usage": {"inputTokens": read, "outputTokens": written, "totalTokens": read + written},
        "metrics": {"latencyMs": round(1000 * (generation.latency_s or 0))},
    }


def _text(blocks: Sequence[ContentBlockUnionTypeDef] | Sequence[SystemContentBlockTypeDef]) -> str:
    kinds = {kind for block in blocks for kind in block}
    if not blocks or kinds != {"text"}:
        raise invalid(f"content must be text, but contains {', '.join(sorted(kinds)) or 'nothing'}")
    if not all(block["text"].strip() for block in blocks):
        raise invalid(BLANK)
    return "\n".join(block["text"] for block in blocks)
