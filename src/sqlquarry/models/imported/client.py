"""Send requests to an imported model through InvokeModel, or through Converse if the model supports it.

AWS documents Converse for imported models except Qwen2.5, Qwen2-VL, Qwen2.5-VL, Qwen3 and GPT-OSS, and users report
that models of other families refuse it too. So the client asks GetImportedModel first, and falls back to InvokeModel if
Converse refuses the model.
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
    """An answer that is still being written.

    Args:
        chunks: parts of the answer as they arrive. A chunk of unknown shape raises GenerationError.
        close: closes the connection.
    """

    chunks: Iterator[AnswerChunk]
    close: Callable[[], None]


class ImportedModelClient:
    """A client for one imported model that sends request bodies. Several threads can share it.

    Args:
        arn: the ARN of the model.
        runtime: a bedrock-runtime client.
        describe: calls GetImportedModel.
        converse: use Converse as long as the model supports it. Request bodies then follow the schema "messages".
    """

    def __init__(
        self, arn: str, runtime: BedrockRuntimeClient, describe: Callable[[], Mapping[str, object]], *, converse: bool
    ) -> None:
        self._arn, self._runtime, self._describe = arn, runtime, describe
        self._converses: bool | None = None if converse else False  # None means not known yet.
        self._asking = threading.Lock()

    def send(self, body: str) -> bytes | Mapping[str, object]:
        """Send a body and return the unparsed answer.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: AWS refused the request or could not be reached.
        """

        def invoke() -> bytes | Mapping[str, object]:
            content: bytes = self._runtime.invoke_model(modelId=self._arn, body=body)["body"].read()
            return content

        def converse() -> bytes | Mapping[str, object]:
            return require_complete(self._runtime.converse(modelId=self._arn, **_converse_request(body)))

        return self._either(converse, invoke)

    def open_stream(self, body: str) -> AnswerStream:
        """Send a body and return the answer as a stream.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: AWS refused the request or could not be reached.
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
            GenerationError: the answer has an unknown shape or no text.
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
                    self._converses = True  # Still unknown. Converse itself refuses if it is not supported.
                if not self._converses:
                    self._warn("GetImportedModel does not report instructSupported=true")
            return self._converses

    def _fall_back(self) -> None:
        with self._asking:
            if self._converses:
                self._converses = False
                self._warn("Converse refuses the model")

    def _warn(self, reason: str) -> None:
        logger.warning("%s: %s, so requests now go through InvokeModel with messages", self._arn, reason)


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
            yield AnswerChunk("")  # An empty answer has no deltas, but is still an answer.


def _converse_request(body: str) -> ConverseRequest:
    """Translate an InvokeModel body with messages into keyword arguments for Converse."""
    content = json.loads(body)
    messages = [(message["role"], message["content"]) for message in content["messages"]]
    request = PromptRequest(
        tuple(("user", text) for role, text in messages if role != "system"),
        "\n\n".join(text for role, text in messages if role == "system"),
    )
    style = RequestStyle(content["max_tokens"], content["temperature"], tuple(content.get("stop", ())))
    return converse_request(request, style)
