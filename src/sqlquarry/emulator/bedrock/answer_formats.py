"""The three answer formats of InvokeModel for imported models. The keys of a request select one (see `invocation`).

Source: "Invoke your imported model" (Bedrock user guide).
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator

from sqlquarry.answers import Generation
from sqlquarry.emulator.requests.parameters import ApiAnswer

_PIECE_CHARACTERS = 4  # about a token


class AnswerFormat(ABC):
    """The format of an answer, complete or in pieces.

    It reports the logprobs of the generated tokens, without other candidates and without the tokens' texts or IDs.
    """

    @abstractmethod
    def answer(self, generation: Generation, model_arn: str) -> ApiAnswer:
        """Return the answer of InvokeModel."""

    @abstractmethod
    def pieces(self, generation: Generation, model_arn: str) -> Iterator[ApiAnswer]:
        """Yield the chunks of InvokeModelWithResponseStream. The last one contains the stop reason and the usage."""


class BedrockCompletion(AnswerFormat):
    """``prompt`` + ``max_gen_len`` -> ``generation``."""

    def answer(self, generation: Generation, model_arn: str) -> ApiAnswer:  # noqa: ARG002, D102 - see AnswerFormat
        return {
            "generation": generation.text,
            "prompt_token_count": generation.prompt_tokens,
            "generation_token_count": generation.completion_tokens,
            "stop_reason": generation.stop_reason,
            # The service returns {token ID: value}, but the IDs are not known here.
            "logprobs": None if generation.logprobs is None else [{"?": value} for value in generation.logprobs],
        }

    def pieces(self, generation: Generation, model_arn: str) -> Iterator[ApiAnswer]:  # noqa: D102 - see AnswerFormat
        whole = self.answer(generation, model_arn)
        for text in split_text(generation.text):
            yield whole | {"generation": text, "generation_token_count": None, "stop_reason": None}
        yield whole | {"generation": ""}


class OpenAICompletion(AnswerFormat):
    """``prompt`` + ``max_tokens`` -> ``choices[0].text``.

    Args:
        echo: prompt to repeat at the start of the answer, or "".
    """

    kind, prefix, piece_kind = "text_completion", "cmpl-", "text_completion"

    def __init__(self, echo: str = "") -> None:
        self._echo = echo

    def answer(self, generation: Generation, model_arn: str) -> ApiAnswer:  # noqa: D102 - see AnswerFormat
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

    def pieces(self, generation: Generation, model_arn: str) -> Iterator[ApiAnswer]:  # noqa: D102 - see AnswerFormat
        envelope = self._envelope(model_arn, self.piece_kind)
        for text in split_text(self._echo + generation.text):
            yield envelope | {"choices": [self._piece(text, None)]}
        usage = self.answer(generation, model_arn)["usage"]
        yield envelope | {"choices": [self._piece("", generation.stop_reason)], "usage": usage}

    def _envelope(self, model_arn: str, kind: str) -> ApiAnswer:
        return {
            "id": self.prefix + secrets.token_hex(16),
            "object": kind,
            "created": int(time.time()),
            "model": model_arn,
        }

    def _choice(self, text: str, finish_reason: str | None) -> ApiAnswer:
        return {"index": 0, "text": text, "finish_reason": finish_reason}

    def _piece(self, text: str, finish_reason: str | None) -> ApiAnswer:
        return self._choice(text, finish_reason)

    def _logprobs(self, values: tuple[float, ...]) -> ApiAnswer:
        return {"token_logprobs": list(values)}


class OpenAIChatCompletion(OpenAICompletion):
    """``messages`` -> ``choices[0].message``."""

    kind, prefix, piece_kind = "chat.completion", "chatcmpl-", "chat.completion.chunk"

    def _choice(self, text: str, finish_reason: str | None) -> ApiAnswer:
        return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}

    def _logprobs(self, values: tuple[float, ...]) -> ApiAnswer:
        return {"content": [{"logprob": value} for value in values]}

    def _piece(self, text: str, finish_reason: str | None) -> ApiAnswer:
        return {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish_reason}


def without_text(answer: ApiAnswer) -> ApiAnswer:
    """Return an answer, or a piece of an answer, without its text."""
    silent = {key: value for key, value in answer.items() if key != "generation"}
    return silent | {"choices": []} if "choices" in silent else silent


def split_text(text: str) -> list[str]:
    """Split a text into the pieces in which it is streamed."""
    return [text[start : start + _PIECE_CHARACTERS] for start in range(0, len(text), _PIECE_CHARACTERS)]
