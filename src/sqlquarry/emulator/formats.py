"""The three request and response shapes of imported models, chosen by the request's own keys.

Source: "Invoke your imported model" (Bedrock user guide). Unknown keys are ignored there, and here; keys that would
change the answer and that this emulator does not do are refused, so that no test passes for the wrong reason.
"""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from sqlquarry.artifacts import Generation
from sqlquarry.emulator.api import ApiError
from sqlquarry.emulator.engine import Decoding

_NOT_EMULATED = ("response_format", "structured_outputs", "tools", "top_k")
_PIECE_CHARACTERS = 4  # about a token


class Shape(ABC):
    """One shape: which keys hold the token limit and ask for logprobs, what an answer looks like, whole and in pieces.

    Logprobs are those of the written tokens, without other candidates and without the tokens' texts or ids.
    """

    limit_key = "max_tokens"
    logprobs_key = "logprobs"

    @abstractmethod
    def answer(self, generation: Generation, model_arn: str) -> dict[str, Any]:
        """The answer of InvokeModel."""

    @abstractmethod
    def pieces(self, generation: Generation, model_arn: str) -> Iterator[dict[str, Any]]:
        """The chunks of InvokeModelWithResponseStream: the text, then one with stop reason and usage."""


class BedrockCompletion(Shape):
    """``prompt`` + ``max_gen_len`` -> ``generation``."""

    limit_key = "max_gen_len"
    logprobs_key = "return_logprobs"

    def answer(self, generation: Generation, model_arn: str) -> dict[str, Any]:  # noqa: ARG002, D102 - see Shape
        return {
            "generation": generation.text,
            "prompt_token_count": generation.prompt_tokens,
            "generation_token_count": generation.completion_tokens,
            "stop_reason": generation.stop_reason,
            # {token id: value} in the service; ids are not known here.
            "logprobs": None if generation.logprobs is None else [{"?": value} for value in generation.logprobs],
        }

    def pieces(self, generation: Generation, model_arn: str) -> Iterator[dict[str, Any]]:  # noqa: D102 - see Shape
        whole = self.answer(generation, model_arn)
        for text in _split(generation.text):
            yield whole | {"generation": text, "generation_token_count": None, "stop_reason": None}
        yield whole | {"generation": ""}


class OpenAICompletion(Shape):
    """``prompt`` + ``max_tokens`` -> ``choices[0].text``."""

    kind, prefix, piece_kind = "text_completion", "cmpl-", "text_completion"

    def answer(self, generation: Generation, model_arn: str) -> dict[str, Any]:  # noqa: D102 - see Shape
        choice = self._choice(generation.text, generation.stop_reason)
        if generation.logprobs is not None:
            choice["logprobs"] = self._logprobs(generation.logprobs)
        return self._envelope(model_arn, self.kind) | {
            "choices": [choice],
            "usage": {
                "prompt_tokens": generation.prompt_tokens,
                "completion_tokens": generation.completion_tokens,
                "total_tokens": (generation.prompt_tokens or 0) + (generation.completion_tokens or 0),
            },
        }

    def pieces(self, generation: Generation, model_arn: str) -> Iterator[dict[str, Any]]:  # noqa: D102 - see Shape
        envelope = self._envelope(model_arn, self.piece_kind)
        for text in _split(generation.text):
            yield envelope | {"choices": [self._piece(text, None)]}
        usage = self.answer(generation, model_arn)["usage"]
        yield envelope | {"choices": [self._piece("", generation.stop_reason)], "usage": usage}

    def _envelope(self, model_arn: str, kind: str) -> dict[str, Any]:
        return {
            "id": self.prefix + secrets.token_hex(16),
            "object": kind,
            "created": int(time.time()),
            "model": model_arn,
        }

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "finish_reason": finish_reason}

    def _piece(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        return self._choice(text, finish_reason)

    def _logprobs(self, values: tuple[float, ...]) -> dict[str, Any]:
        return {"token_logprobs": list(values)}


class OpenAIChatCompletion(OpenAICompletion):
    """``messages`` -> ``choices[0].message``."""

    kind, prefix, piece_kind = "chat.completion", "chatcmpl-", "chat.completion.chunk"

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}

    def _logprobs(self, values: tuple[float, ...]) -> dict[str, Any]:
        return {"content": [{"logprob": value} for value in values]}

    def _piece(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish_reason}


def without_text(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer, or a piece of one, that says nothing."""
    silent = {key: value for key, value in answer.items() if key != "generation"}
    return silent | {"choices": []} if "choices" in silent else silent


def parse(raw: bytes | str) -> tuple[Shape, str | list[dict[str, Any]], Decoding]:
    """Read the body of an invocation: its shape, the prompt or messages, and how to decode.

    Without ``temperature`` the answer is sampled at 1.0, as vLLM does; 0 is greedy.

    Raises:
        ApiError: ValidationException that says which key is wrong.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"the body is not valid JSON ({error})") from error
    if not isinstance(body, dict):
        raise _invalid("the body must be a JSON object")
    shape: Shape
    prompt: str | list[dict[str, Any]]
    if "messages" in body:
        shape, prompt = OpenAIChatCompletion(), [_message(message) for message in _nonempty_list(body["messages"])]
    elif isinstance(body.get("prompt"), str):
        if "max_gen_len" not in body and "max_tokens" not in body:
            raise _invalid("send max_tokens or max_gen_len: without one, the shape of the answer is not documented")
        shape, prompt = (BedrockCompletion() if "max_gen_len" in body else OpenAICompletion()), body["prompt"]
    else:
        raise _invalid("prompt (a string) or messages (a list) is required")
    return shape, prompt, _decoding(body, shape)


def _decoding(body: dict[str, Any], shape: Shape) -> Decoding:
    limit_key = shape.limit_key
    limit, temperature, seed = body.get(limit_key), body.get("temperature", 1.0), body.get("seed")
    stop = body.get("stop") or []
    stop = [stop] if isinstance(stop, str) else stop
    if not (limit is None or _is_int(limit)) or (limit is not None and limit < 1):
        raise _invalid(f"{limit_key} is {limit!r}, but must be a positive integer")
    if not isinstance(temperature, int | float) or isinstance(temperature, bool) or temperature < 0:
        raise _invalid(f"temperature is {temperature!r}, but must be a number of at least 0")
    if not (seed is None or _is_int(seed)):
        raise _invalid(f"seed is {seed!r}, but must be an integer")
    if not isinstance(stop, list) or not all(isinstance(text, str) and text for text in stop):
        raise _invalid(f"stop is {stop!r}, but must be a string or a list of strings")
    refused = [key for key in _NOT_EMULATED if body.get(key) not in (None, False, {"type": "text"})]
    logprobs = body.get(shape.logprobs_key)
    # True counts as 1, and 0 of Completions is the written token alone.
    if logprobs not in (None, False, True) or body.get("top_logprobs", 1) not in (None, 0, 1):
        refused += [f"more candidates than one ({shape.logprobs_key}, top_logprobs)"]
    refused += ["n"] if body.get("n", 1) != 1 else []
    refused += ["top_p"] if temperature > 0 and body.get("top_p", 1) != 1 else []
    if refused:
        raise _invalid(f"this emulator does not do {', '.join(refused)}: leave it out here, or ask the service itself")
    return Decoding(limit, float(temperature), tuple(stop), seed, logprobs is not None and logprobs is not False)


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise _invalid(f"a message is {message!r}, but must be an object with role and content")
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "\n".join(part["text"] for part in content)  # vLLM's rule for templates that take strings
    if not isinstance(content, str):
        raise _invalid(f"the content of the {message['role']} message must be text")
    return {**message, "content": content}


def _nonempty_list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _invalid("messages must be a list with at least one message")
    return value


def _split(text: str) -> list[str]:
    return [text[start : start + _PIECE_CHARACTERS] for start in range(0, len(text), _PIECE_CHARACTERS)]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationException", message)
