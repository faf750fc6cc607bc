"""Send requests to an imported model through InvokeModel, or through Converse if the model supports it.

AWS documents Converse for imported models, but not for Qwen2.5, Qwen2-VL, Qwen2.5-VL, Qwen3 and GPT-OSS, and users
report models of other families that refuse it. So GetImportedModel is asked first, and a refusal leads to InvokeModel.
Sources: "Invoke your imported model" (Bedrock user guide); GetImportedModel's `instructSupported` (API reference).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sqlquarry.answers import Generation
from sqlquarry.aws.failures import error_code, says
from sqlquarry.models.foundation.answers import normalize_stop_reason, read_answer, require_complete
from sqlquarry.models.foundation.requests import ConverseRequest, PromptRequest, RequestStyle, converse_request
from sqlquarry.models.imported.answers import AnswerChunk, parse_answer, parse_chunk
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient
    from mypy_boto3_bedrock_runtime.type_defs import (
        ConverseStreamOutputTypeDef,
        ResponseStreamTypeDef,
    )

logger = visible_logger(__name__)
Answer = TypeVar("Answer")


class AnswerStream(NamedTuple):
    """Holds an answer while it is written.

    Args:
        chunks: parts of the answer as they come; a chunk of no known shape is a GenerationError.
        close: ends the connection.
    """

    chunks: Iterator[AnswerChunk]
    close: Callable[[], None]


class ImportedModelClient:
    """Sends request bodies to one imported model; safe for several threads.

    Args:
        arn: the model's.
        runtime: a client of bedrock-runtime.
        describe: asks GetImportedModel.
        converse: use Converse, as long as the model supports it; bodies are those of the schema "messages".
    """

    def __init__(
        self, arn: str, runtime: BedrockRuntimeClient, describe: Callable[[], Mapping[str, object]], *, converse: bool
    ) -> None:
        self._arn, self._runtime, self._describe = arn, runtime, describe
        self._converses: bool | None = None if converse else False  # None: not known yet
        self._asking = threading.Lock()

    def send(self, body: str) -> bytes | Mapping[str, object]:
        """Send a body and return the unparsed answer.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: AWS refused, or was not reached.
        """

        def invoke() -> bytes | Mapping[str, object]:
            content: bytes = self._runtime.invoke_model(modelId=self._arn, body=body)["body"].read()
            return content

        def converse() -> bytes | Mapping[str, object]:
            return require_complete(self._runtime.converse(modelId=self._arn, **_converse_request(body)))

        return self._either(converse, invoke)

    def open_stream(self, body: str) -> AnswerStream:
        """Send a body and return the answer as it is written.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: AWS refused, or was not reached.
        """

        def invoke() -> AnswerStream:
            events = self._runtime.invoke_model_with_response_stream(modelId=self._arn, body=body)["body"]
            return AnswerStream(_invoke_chunks(events), events.close)

        def converse() -> AnswerStream:
            events = self._runtime.converse_stream(modelId=self._arn, **_converse_request(body))["stream"]
            return AnswerStream(_converse_chunks(events), events.close)

        return self._either(converse, invoke)

    def read(self, answer: bytes | Mapping[str, object], latency_s: float) -> Generation:
        """Parse what `send` returned.

        Raises:
            GenerationError: it is of no known shape, or without text.
        """
        if isinstance(answer, bytes):
            return parse_answer(answer, latency_s)
        return read_answer(answer, PromptRequest(()), RequestStyle(1), self._arn, latency_s)

    def _either(self, converse: Callable[[], Answer], invoke: Callable[[], Answer]) -> Answer:
        from botocore.exceptions import ClientError

        if not self._supports_converse():
            return invoke()
        try:
            return converse()
        except ClientError as error:
            if not says(error, "ValidationException", "doesn't support the model"):
                raise
            self._fall_back()
        return invoke()

    def _supports_converse(self) -> bool:
        from botocore.exceptions import ClientError

        with self._asking:
            if self._converses is None:
                try:
                    self._converses = self._describe().get("instructSupported") is True
                except ClientError as error:
                    if error_code(error) != "AccessDeniedException":
                        raise
                    self._converses = True  # unknown, so Converse itself has to answer
                if not self._converses:
                    self._warn("instructSupported is not true")
            return self._converses

    def _fall_back(self) -> None:
        with self._asking:
            if self._converses:
                self._converses = False
                self._warn("it refuses Converse")

    def _warn(self, reason: str) -> None:
        logger.warning("%s: %s; asking it through InvokeModel with messages from now on", self._arn, reason)


def _invoke_chunks(events: Iterable[ResponseStreamTypeDef]) -> Iterator[AnswerChunk]:
    for event in events:
        if "chunk" in event:
            yield parse_chunk(event["chunk"]["bytes"])


def _converse_chunks(events: Iterable[ConverseStreamOutputTypeDef]) -> Iterator[AnswerChunk]:
    for event in events:
        if "contentBlockDelta" in event:
            yield AnswerChunk(event["contentBlockDelta"]["delta"].get("text"))
        elif "messageStop" in event:
            yield AnswerChunk(stop_reason=normalize_stop_reason(event["messageStop"]["stopReason"]))
        elif "metadata" in event:
            usage = event["metadata"].get("usage")
            if usage is not None:
                yield AnswerChunk(prompt_tokens=usage.get("inputTokens"), completion_tokens=usage.get("outputTokens"))
        elif "contentBlockStop" in event:
            yield AnswerChunk("")  # an answer without deltas is an answer without text


def _converse_request(body: str) -> ConverseRequest:
    """Translate a body of InvokeModel with messages to the keyword arguments of Converse."""
    content = json.loads(body)
    messages = [(message["role"], message["content"]) for message in content["messages"]]
    request = PromptRequest(
        tuple(("user", text) for role, text in messages if role != "system"),
        "\n\n".join(text for role, text in messages if role == "system"),
    )
    style = RequestStyle(content["max_tokens"], content["temperature"], tuple(content.get("stop", ())))
    return converse_request(request, style)
