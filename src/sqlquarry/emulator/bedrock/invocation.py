"""Parse the body of InvokeModel. Every key is either honored as vLLM defines it or refused by name.

Sources: "Invoke your imported model" and "Advanced API features for imported models" (Bedrock user guide). The service
reportedly ignores unknown keys. This emulator refuses them, so that no test passes for the wrong reason.
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

# The keys that select a format.
_FORMAT_KEYS = ("prompt", "messages", "max_gen_len", "max_completion_tokens", "max_tokens")


def parse_invocation(raw: bytes | str) -> tuple[AnswerFormat, CompletionRequest]:
    """Parse the body of an invocation into the format of its answer and the request.

    Without ``temperature``, the answer is sampled at 1.0 as in vLLM. 0 means greedy decoding. A prompt without a limit
    is answered in Bedrock's own format, as in the examples of "Advanced API features for imported models".

    Raises:
        ApiError: ValidationException that names the invalid keys.
    """
    try:
        body = parse_json(raw, "the body", lenient=True)
    except MetadataError as error:
        raise invalid(f"the body is not valid JSON ({error})") from error
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    body = {key: value for key, value in body.items() if value is not None or key not in _FORMAT_KEYS}
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
            raise invalid("this emulator does not support echo together with logprobs. Leave one of them out.")
        request = CompletionRequest(prompt, decoding, add_special_tokens=given.get("add_special_tokens"))
        return OpenAICompletion(prompt if given.get("echo") else ""), request
    return BedrockCompletion(), CompletionRequest(
        prompt, _decoding(check_keys(rest, BedrockCompletion), BedrockCompletion)
    )


def chat_request(messages: object, options: Mapping[str, object]) -> CompletionRequest:
    """Parse messages and the other keys of the body.

    Raises:
        ApiError: ValidationException that names the problem.
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
        raise invalid(f"min_tokens is {least}, but the limit is {limit} tokens")
    if constraint and (least or given.get("ignore_eos")):
        raise invalid("a constraint determines where the answer ends, so leave out min_tokens and ignore_eos")
    if given.get("top_logprobs") and not given.get("logprobs"):
        raise invalid("top_logprobs requires logprobs")
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
    """Return the maximum number of tokens of the answer, or None if the body sets no limit."""
    limits = [key for key in LIMITS if key in given]
    if len(limits) > 1:
        raise invalid(f"{' and '.join(limits)} cannot be used together")
    return given[limits[0]] if limits else None


def _wants_logprobs(given: InvocationOptions, answer_format: type[AnswerFormat]) -> bool:
    if answer_format is OpenAICompletion:  # the number of candidates: 0 is the generated token only, true means 1
        return given.get("logprobs", False) is not False
    return bool(given.get("return_logprobs") if answer_format is BedrockCompletion else given.get("logprobs"))


def _message(message: object) -> dict[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise invalid(f"a message must be an object with role and content, but is {message!r:.80}")
    if refused := sorted(message.keys() - {"role", "content"}):
        raise invalid(f"this emulator does not support {', '.join(refused)} in messages, only role and content")
    content = message.get("content")
    if isinstance(content, list) and content and all(map(_is_text_part, content)):
        content = "\n".join(part["text"] for part in content)  # vLLM's rule for templates that expect strings
    if not isinstance(content, str):
        raise invalid(f"the content of the {message['role']} message must be text, but is {content!r:.80}")
    return {"role": message["role"], "content": content}


def _is_text_part(part: object) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() <= {"type", "text"}
        and part.get("type", "text") == "text"
        and isinstance(part.get("text"), str)
    )
