"""Read the body of InvokeModel: every key is honored as vLLM defines it, or refused by its name.

Sources: "Invoke your imported model" and "Advanced API features for imported models" (Bedrock user guide). The service
is said to ignore keys that it does not know; here they are refused, so that no test passes for the wrong reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlquarry.emulator.bedrock.allowed_keys import LIMITS, InvocationOptions, check_keys
from sqlquarry.emulator.bedrock.answer_formats import (
    AnswerFormat,
    BedrockCompletion,
    OpenAIChatCompletion,
    OpenAICompletion,
)
from sqlquarry.emulator.bedrock.completion_request import CompletionRequest, Decoding
from sqlquarry.emulator.bedrock.constraint import read_constraint
from sqlquarry.emulator.requests.errors import invalid
from sqlquarry.errors import ConfigError, MetadataError
from sqlquarry.files.metadata import parse_json
from sqlquarry.models.local.sampling import Sampling

_CHOOSING = (
    "prompt",
    "messages",
    "max_gen_len",
    "max_completion_tokens",
    "max_tokens",
)  # the keys that choose a format


def parse_invocation(raw: bytes | str) -> tuple[AnswerFormat, CompletionRequest]:
    """Read the body of an invocation: the format of its answer, and what is asked.

    Without ``temperature`` the answer is sampled at 1.0, as vLLM does; 0 is greedy. Without a limit a prompt gets
    Bedrock's own format, as in the examples of "Advanced API features for imported models".

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
        given = check_keys(rest, OpenAICompletion)
        decoding = _decoding(given, OpenAICompletion)
        if given.get("echo") and decoding.logprobs:
            raise invalid("this emulator does not support echo together with logprobs; leave one out")
        request = CompletionRequest(prompt, decoding, add_special_tokens=given.get("add_special_tokens"))
        return OpenAICompletion(prompt if given.get("echo") else ""), request
    return BedrockCompletion(), CompletionRequest(
        prompt, _decoding(check_keys(rest, BedrockCompletion), BedrockCompletion)
    )


def chat_request(messages: object, options: Mapping[str, object]) -> CompletionRequest:
    """Read messages, and the other keys of the body.

    Raises:
        ApiError: ValidationException that says what is wrong.
    """
    if not isinstance(messages, list) or not messages:
        raise invalid("messages must be a list with at least one message")
    given = check_keys(options, OpenAIChatCompletion)
    decoding = _decoding(given, OpenAIChatCompletion)
    template = dict(given.get("chat_template_kwargs") or {})
    if "add_generation_prompt" in given:
        template["add_generation_prompt"] = given["add_generation_prompt"]
    return CompletionRequest(
        [_message(message) for message in messages],
        decoding,
        add_special_tokens=given.get("add_special_tokens"),
        template=template,
    )


def _decoding(given: InvocationOptions, answer_format: type[AnswerFormat]) -> Decoding:
    sampling = _sampling(given)
    constraint = read_constraint(given, answer_format)
    stop, least, limit = given.get("stop", ()), given.get("min_tokens", 0), _limit(given)
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
        logprobs=_wants_logprobs(given, answer_format),
        constraint=constraint,
        stop_ids=tuple(given.get("stop_token_ids", ())),
        ignore_eos=given.get("ignore_eos", False),
        min_tokens=least,
        skip_special_tokens=given.get("skip_special_tokens", True),
    )


def _sampling(given: InvocationOptions) -> Sampling:
    try:
        return Sampling(
            temperature=given.get("temperature", 1.0),
            top_p=given.get("top_p", 1.0),
            top_k=given.get("top_k", 0),
            min_p=given.get("min_p", 0.0),
            repetition_penalty=given.get("repetition_penalty", 1.0),
            presence_penalty=given.get("presence_penalty", 0.0),
            frequency_penalty=given.get("frequency_penalty", 0.0),
            logit_bias={int(token): bias for token, bias in given.get("logit_bias", {}).items()},
        )
    except ConfigError as error:
        raise invalid(str(error).removeprefix("Sampling: ")) from error


def _limit(given: InvocationOptions) -> int | None:
    """Return how many tokens the answer may have; None if the body does not say."""
    limits = [key for key in LIMITS if key in given]
    if len(limits) > 1:
        raise invalid(f"{' and '.join(limits)} cannot both be given")
    return given[limits[0]] if limits else None


def _wants_logprobs(given: InvocationOptions, answer_format: type[AnswerFormat]) -> bool:
    if answer_format is OpenAICompletion:  # a count of candidates: 0 is the written token alone, and true counts as 1
        return given.get("logprobs", False) is not False
    return bool(given.get("return_logprobs") if answer_format is BedrockCompletion else given.get("logprobs"))


def _message(message: object) -> dict[str, str]:
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


def _is_text_part(part: object) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() <= {"type", "text"}
        and part.get("type", "text") == "text"
        and isinstance(part.get("text"), str)
    )
