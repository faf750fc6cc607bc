"""Read the body of InvokeModel: every key is honoured as vLLM defines it, or refused by its name.

Sources: "Invoke your imported model" and "Advanced API features for imported models" (Bedrock user guide) for shapes
and constraints; vLLM's SamplingParams and OpenAI-compatible server for all other keys, types and ranges. The service
is said to ignore keys that it does not know; here they are refused, so that no test passes for the wrong reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlquarry.emulator.bedrock.engine import Decoding, Request
from sqlquarry.emulator.bedrock.formats import BedrockCompletion, OpenAIChatCompletion, OpenAICompletion, Shape
from sqlquarry.emulator.requests.api import invalid, unsupported
from sqlquarry.errors import ConfigError, MetadataError
from sqlquarry.files.metadata import parse_json
from sqlquarry.models.local.constraints import AnswerForm
from sqlquarry.models.local.sampling import Sampling


class _Allowed(NamedTuple):
    """Says what a key may hold; null always counts as leaving it out."""

    wanted: str
    fits: Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_NUMBER = _Allowed("a number", _is_number)
_INTEGER = _Allowed("an integer", _is_int)
_COUNT = _Allowed("a positive integer", lambda value: _is_int(value) and value > 0)
_FLAG = _Allowed("true or false", lambda value: isinstance(value, bool))
_OBJECT = _Allowed("an object", lambda value: isinstance(value, dict))
_WRITTEN_TOKENS_ONLY = _Allowed(
    "true, false, 0 or 1, because other candidates are not reported here", lambda value: value in (0, 1)
)
_TOKEN_ID = re.compile("0|[1-9][0-9]{0,8}")  # one spelling each, so that no token is named twice
_SAMPLING: Mapping[str, _Allowed] = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "top_k": _INTEGER,
    "min_p": _NUMBER,
    "repetition_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
}
_EVERY_SHAPE: Mapping[str, _Allowed] = {
    **_SAMPLING,
    "logit_bias": _Allowed(
        "an object with a number for each token id",
        lambda value: isinstance(value, dict) and all(_TOKEN_ID.fullmatch(k) and _is_number(value[k]) for k in value),
    ),
    "seed": _Allowed("an integer of 64 bits", lambda value: _is_int(value) and -(2**63) <= value < 2**63),
    "stop": _Allowed(
        "a string or a list of strings, none of them empty",
        lambda value: (
            (isinstance(value, str) and bool(value))
            or (isinstance(value, list) and all(isinstance(text, str) and text for text in value))
        ),
    ),
    "stop_token_ids": _Allowed(
        "a list of token ids",
        lambda value: isinstance(value, list) and all(_is_int(token) and token >= 0 for token in value),
    ),
    "ignore_eos": _FLAG,
    "min_tokens": _Allowed("an integer of at least 0", lambda value: _is_int(value) and value >= 0),
    "skip_special_tokens": _FLAG,
    "response_format": _OBJECT,
}
# Each shape's own keys, without `prompt` and `messages`.
_OWN_KEYS: Mapping[type[Shape], Mapping[str, _Allowed]] = {
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
_LIMITS = ("max_gen_len", "max_completion_tokens", "max_tokens")
_CHOOSING = ("prompt", "messages", *_LIMITS)  # the keys that choose the shape
# vLLM knows these keys, and this emulator does not. These values change nothing, so clients may send them.
_WITHOUT_EFFECT: Mapping[str, Any] = {
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


def parse(raw: bytes | str) -> tuple[Shape, Request]:
    """Read the body of an invocation: the shape of its answer, and what is asked.

    Without ``temperature`` the answer is sampled at 1.0, as vLLM does; 0 is greedy. Without a limit a prompt gets
    Bedrock's own shape, as in the examples of "Advanced API features for imported models".

    Raises:
        ApiError: ValidationException that says which keys are wrong.
    """
    try:
        body = parse_json(raw, "the body", lenient=True)
    except MetadataError as error:
        raise invalid(f"the body is not valid JSON ({error})") from error
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    body = {key: value for key, value in body.items() if value is not None or key not in _CHOOSING}
    if "messages" in body:
        rest = {key: value for key, value in body.items() if key != "messages"}
        return OpenAIChatCompletion(), chat_request(body["messages"], rest)
    if not isinstance(prompt := body.get("prompt"), str):
        raise invalid("prompt (a string) or messages (a list) is required")
    rest = {key: value for key, value in body.items() if key != "prompt"}
    if "max_tokens" in body and "max_gen_len" not in body:
        request = Request(prompt, _decoding(rest, OpenAICompletion), add_special_tokens=rest.get("add_special_tokens"))
        if body.get("echo") and request.decoding.logprobs:
            raise invalid("this emulator does not support echo together with logprobs; leave one out")
        return OpenAICompletion(prompt if body.get("echo") else ""), request
    return BedrockCompletion(), Request(prompt, _decoding(rest, BedrockCompletion))


def chat_request(messages: Any, options: Mapping[str, Any]) -> Request:
    """Read messages, and the other keys of the body.

    Raises:
        ApiError: ValidationException that says what is wrong.
    """
    if not isinstance(messages, list) or not messages:
        raise invalid("messages must be a list with at least one message")
    decoding = _decoding(options, OpenAIChatCompletion)
    template = dict(options.get("chat_template_kwargs") or {})
    if options.get("add_generation_prompt") is not None:
        template["add_generation_prompt"] = options["add_generation_prompt"]
    return Request(
        [_message(message) for message in messages],
        decoding,
        add_special_tokens=options.get("add_special_tokens"),
        template=template,
    )


def _decoding(options: Mapping[str, Any], shape: type[Shape]) -> Decoding:
    kinds = {**_EVERY_SHAPE, **_OWN_KEYS[shape]}
    if refused := [key for key in options if key not in kinds and not _changes_nothing(key, options[key])]:
        raise unsupported(sorted(refused), f" in {shape.__name__}")
    given = {key: value for key, value in options.items() if key in kinds and value is not None}
    if wrong := [key for key, value in given.items() if not kinds[key].fits(value)]:
        raise invalid("; ".join(f"{key} is {given[key]!r:.80}, but must be {kinds[key].wanted}" for key in wrong))
    try:
        sampling = Sampling(
            **{"temperature": 1.0} | {key: given[key] for key in _SAMPLING if key in given},
            logit_bias=tuple((int(token), bias) for token, bias in given.get("logit_bias", {}).items()),
        )
    except ConfigError as error:
        raise invalid(str(error).removeprefix("Sampling: ")) from error
    constraint = _form(given, shape)
    stop, least = given.get("stop", ()), given.get("min_tokens", 0)
    limits = [key for key in _LIMITS if key in given]
    if len(limits) > 1:
        raise invalid(f"{' and '.join(limits)} cannot both be given")
    limit = given[limits[0]] if limits else None
    if limit is not None and least > limit:
        raise invalid(f"min_tokens is {least}, but at most {limit} tokens are asked for")
    if constraint and (least or given.get("ignore_eos")):
        raise invalid("a constraint says where the answer ends: leave out min_tokens and ignore_eos")
    if given.get("top_logprobs") and not given.get("logprobs"):
        raise invalid("top_logprobs needs logprobs")
    return Decoding(
        max_tokens=limit,
        sampling=sampling,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=given.get("seed"),
        logprobs=_wants_logprobs(given, shape),
        constraint=constraint,
        stop_ids=tuple(given.get("stop_token_ids", ())),
        ignore_eos=given.get("ignore_eos", False),
        min_tokens=least,
        skip_special_tokens=given.get("skip_special_tokens", True),
    )


def _changes_nothing(key: str, value: Any) -> bool:
    if key not in _WITHOUT_EFFECT:
        return False
    neutral = _WITHOUT_EFFECT[key]
    return value is None or (value == neutral and isinstance(value, bool) == isinstance(neutral, bool))


def _wants_logprobs(given: Mapping[str, Any], shape: type[Shape]) -> bool:
    if shape is OpenAICompletion:  # a count of candidates: 0 is the written token alone, and true counts as 1
        return given.get("logprobs", False) is not False
    return bool(given.get("return_logprobs" if shape is BedrockCompletion else "logprobs"))


def _form(given: Mapping[str, Any], shape: type[Shape]) -> AnswerForm | None:
    outputs, wanted = (_without_null(given.get(key)) for key in ("structured_outputs", "response_format"))
    if outputs is not None and wanted is not None:
        raise invalid("structured_outputs and response_format cannot both be given")
    if outputs is not None:
        if len(outputs) != 1:
            raise invalid(f"structured_outputs must hold one of json, regex, choice, grammar, not {sorted(outputs)}")
        ((kind, value),) = outputs.items()
        return _read_form("structured_outputs", kind, value)
    if wanted is None or wanted == {"type": "text"}:
        return None
    if wanted == {"type": "json_object"}:
        return _read_form("response_format", "json", {"type": "object"})
    if wanted.get("type") != "json_schema" or wanted.keys() != {"type", "json_schema"}:
        raise invalid(
            f"response_format is {wanted!r:.80}, but must be of type text, json_object, or json_schema with json_schema"
        )
    return _read_form("response_format", "json", _schema(wanted["json_schema"], shape))


def _without_null(value: dict[str, Any] | None) -> dict[str, Any] | None:
    return value and {key: held for key, held in value.items() if held is not None}


def _read_form(key: str, kind: str, value: Any) -> AnswerForm:
    try:
        return AnswerForm.of(kind, value)
    except ConfigError as error:
        raise invalid(f"{key}: {error}") from error


def _schema(described: Any, shape: type[Shape]) -> Any:
    """Return the schema in a response_format: BedrockCompletion takes it bare, the others with a name."""
    fits = isinstance(described, dict)
    if shape is BedrockCompletion:
        if not fits or isinstance(described.get("schema"), dict):
            raise invalid(f"response_format.json_schema is {described!r:.80}, but must be the schema itself here")
        return described
    if (
        not fits
        or not {"name", "schema"} <= described.keys() <= {"name", "schema", "strict", "description"}
        or not isinstance(described["name"], str)
        or not isinstance(described["schema"], dict)
        or not isinstance(described.get("strict"), bool | None)
        or not isinstance(described.get("description"), str | None)
    ):
        raise invalid(f"response_format.json_schema is {described!r:.80}, but must be an object with name and schema")
    return described["schema"]


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise invalid(f"a message is {message!r:.80}, but must be an object with role and content")
    if refused := sorted(message.keys() - {"role", "content"}):
        raise invalid(f"this emulator does not support {', '.join(refused)} in messages, only role and content")
    content = message.get("content")
    if isinstance(content, list) and content and all(map(_is_text_part, content)):
        content = "\n".join(part["text"] for part in content)  # vLLM's rule for templates that take strings
    if not isinstance(content, str):
        raise invalid(f"the content of the {message['role']} message is {content!r:.80}, but must be text")
    return {"role": message["role"], "content": content}


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() <= {"type", "text"}
        and part.get("type", "text") == "text"
        and isinstance(part.get("text"), str)
    )
