"""Build requests to an imported model in one of three schemas.

A fourth schema, "converse", is built like "messages" and sent through Converse (see `client`). Converse supports
neither logprobs nor constraints for imported models.

|                | "max_tokens"         | "messages"                         | "max_gen_len"                |
|----------------|----------------------|------------------------------------|------------------------------|
| answer's shape | OpenAICompletion     | OpenAIChatCompletion               | BedrockCompletion            |
| limit          | `max_tokens`         | `max_tokens`                       | `max_gen_len`                |
| logprobs       | `logprobs`: 1        | `logprobs`: true, `top_logprobs`: 1| `return_logprobs`: true      |
| structured     | `structured_outputs` | `structured_outputs`               | `response_format`, JSON only |

Sources: "Invoke your imported model" and "Advanced API features for imported models" (Bedrock user guide); "Unlock
model insights with log probability support for Amazon Bedrock Custom Model Import" (AWS ML blog, September 2025).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlquarry.errors import ConfigError
from sqlquarry.inputs import option_problems, stop_problems
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record

RequestSchema = Literal["max_tokens", "max_gen_len", "messages", "converse"]
_CHAT = ("messages", "converse")
# Kind of constraint -> type of its value.
_CONSTRAINTS: Mapping[str, tuple[type, ...]] = {
    "json": (Mapping,),
    "regex": (str,),
    "choice": (list, tuple),
    "grammar": (str,),
}


@dataclass(frozen=True, slots=True)
class RequestFormat:
    """The format of request bodies. Decoding is always greedy (temperature 0).

    Args:
        formatter: renders records. It can be None if all inputs are texts.
        schema: the request schema.
        max_tokens: longest answer, in tokens.
        stop: texts that end an answer.
        logprobs: request the log-probability of each written token.
        structured: ``{"json": schema}``, ``{"regex": …}``, ``{"choice": […]}``, ``{"grammar": …}`` or None.
    """

    formatter: PromptFormatter | None
    schema: RequestSchema = "max_tokens"
    max_tokens: int = 512
    stop: Sequence[str] = ()
    logprobs: bool = False
    structured: Mapping[str, object] | None = None

    def problems(self) -> Iterator[str]:
        """Yield one message for each field that the service does not support or that is out of range."""
        if self.formatter is not None and self.formatter.tokens is None and self.schema not in _CHAT:
            yield "formatter is not bound to a base model (use PromptFormatter.load(merged.path))"
        yield from option_problems({"max_tokens": self.max_tokens}, {})
        yield from stop_problems(self.stop)
        if self.logprobs and self.schema == "converse":
            yield "logprobs is not supported with request_schema='converse' (use 'messages')"
        if self.structured is not None:
            yield from _structured_problems(self.structured, self.schema)

    def body(self, item: Record | str) -> str:
        """Return the JSON body of the request for one record or text. A record's own SQL is never sent.

        Raises:
            ConfigError: `item` is a record, but there is no formatter to render it.
        """
        content: dict[str, object]
        if self.schema in _CHAT:
            content = {"messages": self._messages(item), "max_tokens": self.max_tokens}
        else:
            content = {"prompt": self._prompt(item), self.schema: self.max_tokens}
        content["temperature"] = 0
        if self.stop:
            content["stop"] = list(self.stop)
        if self.logprobs:
            content |= _LOGPROBS[self.schema]
        if self.structured is not None:
            content |= _constraint(self.structured, self.schema)
        return json.dumps(content)

    def wake_up_body(self) -> str:
        """Return the body of the smallest request in this schema, which generates one token."""
        return RequestFormat(None, self.schema, max_tokens=1).body("SELECT")

    def _messages(self, item: Record | str) -> list[dict[str, str]]:
        if isinstance(item, str):
            return [{"role": "user", "content": item}]
        return self._formatter().messages(item.asked)

    def _prompt(self, item: Record | str) -> str:
        return item if isinstance(item, str) else self._formatter().prompt(item)

    def _formatter(self) -> PromptFormatter:
        if self.formatter is None:
            raise ConfigError(
                "this model has no formatter, so it cannot render records. Pass formatter= (PromptFormatter.load on "
                "the merged model's directory), or give texts."
            )
        return self.formatter


_LOGPROBS: Mapping[str, Mapping[str, object]] = {
    "max_tokens": {"logprobs": 1},
    "messages": {"logprobs": True, "top_logprobs": 1},
    "max_gen_len": {"return_logprobs": True},
}


def _structured_problems(structured: Mapping[str, object], schema: str) -> Iterator[str]:
    if not isinstance(structured, Mapping) or len(structured) != 1 or next(iter(structured)) not in _CONSTRAINTS:
        yield f"structured is {structured!r:.80}, but must be a dict with one key, one of {', '.join(_CONSTRAINTS)}"
        return
    ((kind, value),) = structured.items()
    fits = isinstance(value, _CONSTRAINTS[kind]) and bool(value)
    if not fits:
        yield f"structured[{kind!r}] is {value!r:.80}, but must be a non-empty {_CONSTRAINTS[kind][0].__name__}"
    elif isinstance(value, list | tuple) and not all(isinstance(choice, str) for choice in value):
        yield f"structured['choice'] is {value!r:.80}, but must be a list of texts"
    elif kind == "json" and not _is_json(value):
        yield f"structured['json'] is {value!r:.80}, but must be a schema that can be written as JSON"
    if schema == "converse":
        yield "structured is not supported with request_schema='converse' (use 'messages')"
    if kind != "json" and schema == "max_gen_len":
        yield f"structured={{{kind!r}: …}} is not supported with request_schema='max_gen_len' (use 'max_tokens')"


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _constraint(structured: Mapping[str, object], schema: str) -> dict[str, object]:
    if schema != "max_gen_len":
        return {"structured_outputs": dict(structured)}
    # BedrockCompletion accepts the schema itself. OpenAI's own format would wrap it in an object with a name.
    return {"response_format": {"type": "json_schema", "json_schema": structured["json"]}}
