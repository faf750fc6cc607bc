"""The three shapes in which imported models answer InvokeModel; a request's own keys choose one (see `invocation`).

Source: "Invoke your imported model" (Bedrock user guide).
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from sqlquarry.artifacts import Generation

_PIECE_CHARACTERS = 4  # about a token


class Shape(ABC):
    """What an answer looks like, whole and in pieces.

    Logprobs are those of the written tokens, without other candidates and without the tokens' texts or ids.
    """

    @abstractmethod
    def answer(self, generation: Generation, model_arn: str) -> dict[str, Any]:
        """The answer of InvokeModel."""

    @abstractmethod
    def pieces(self, generation: Generation, model_arn: str) -> Iterator[dict[str, Any]]:
        """The chunks of InvokeModelWithResponseStream: the text, then one with stop reason and usage."""


class BedrockCompletion(Shape):
    """``prompt`` + ``max_gen_len`` -> ``generation``."""

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
    """``prompt`` + ``max_tokens`` -> ``choices[0].text``.

    Args:
        echo: the prompt, where the answer is to begin with it.
    """

    kind, prefix, piece_kind = "text_completion", "cmpl-", "text_completion"

    def __init__(self, echo: str = "") -> None:
        self._echo = echo

    def answer(self, generation: Generation, model_arn: str) -> dict[str, Any]:  # noqa: D102 - see Shape
        choice = self._choice(self._echo + generation.text, generation.stop_reason)
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
        for text in _split(self._echo + generation.text):
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


def _split(text: str) -> list[str]:
    return [text[start : start + _PIECE_CHARACTERS] for start in range(0, len(text), _PIECE_CHARACTERS)]
