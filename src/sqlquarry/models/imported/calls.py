"""Send requests to an imported model through InvokeModel, or through Converse if the model supports it.

AWS documents Converse for imported models, but not for Qwen2.5, Qwen2-VL, Qwen2.5-VL, Qwen3 and GPT-OSS, and users
report models of other families that refuse it. So GetImportedModel is asked first, and a refusal leads to InvokeModel.
Sources: "Invoke your imported model" (Bedrock user guide); GetImportedModel's `instructSupported` (API reference).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from sqlquarry.artifacts import Generation
from sqlquarry.aws.failures import error_code, says
from sqlquarry.models.foundation import conversation
from sqlquarry.models.foundation.conversation import Inquiry, Manner
from sqlquarry.models.responses import Piece, parse_answer, parse_chunk, stop_word
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
Answer = TypeVar("Answer")


class Calls:
    """Sends request bodies to one imported model; safe for several threads.

    Args:
        arn: the model's.
        runtime: a client of bedrock-runtime.
        describe: asks GetImportedModel.
        converse: use Converse, as long as the model supports it; bodies are those of the schema "messages".
    """

    def __init__(self, arn: str, runtime: Any, describe: Callable[[], Mapping[str, Any]], *, converse: bool) -> None:
        self._arn, self._runtime, self._describe = arn, runtime, describe
        self._converses: bool | None = None if converse else False  # None: not known yet
        self._asking = threading.Lock()

    def send(self, body: str) -> bytes | dict[str, Any]:
        """Send a body and return the unparsed answer.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: AWS refused, or was not reached.
        """

        def invoke() -> bytes | dict[str, Any]:
            content: bytes = self._runtime.invoke_model(modelId=self._arn, body=body)["body"].read()
            return content

        def converse() -> bytes | dict[str, Any]:
            return conversation.whole(self._runtime.converse(modelId=self._arn, **_converse_request(body)))

        return self._either(converse, invoke)

    def open_stream(self, body: str) -> Any:
        """Send a body and return the events of the answer; `pieces` reads them.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: AWS refused, or was not reached.
        """
        return self._either(
            lambda: self._runtime.converse_stream(modelId=self._arn, **_converse_request(body))["stream"],
            lambda: self._runtime.invoke_model_with_response_stream(modelId=self._arn, body=body)["body"],
        )

    def read(self, answer: bytes | dict[str, Any], latency_s: float) -> Generation:
        """Parse what `send` returned.

        Raises:
            GenerationError: it is of no known shape, or without text.
        """
        if isinstance(answer, bytes):
            return parse_answer(answer, latency_s)
        return conversation.read(answer, Inquiry(()), Manner(1), self._arn, latency_s)

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
                    self._say("instructSupported is not true")
            return self._converses

    def _fall_back(self) -> None:
        with self._asking:
            if self._converses:
                self._converses = False
                self._say("it refuses Converse")

    def _say(self, reason: str) -> None:
        logger.warning("%s: %s; asking it through InvokeModel with messages from now on", self._arn, reason)


def pieces(events: Any) -> Iterator[Piece]:
    """Parse the events of either stream.

    Raises:
        GenerationError: a chunk of no known shape.
    """
    for event in events:
        if "chunk" in event:
            yield parse_chunk(event["chunk"]["bytes"])
        elif "contentBlockDelta" in event:
            yield Piece(event["contentBlockDelta"]["delta"].get("text"))
        elif "messageStop" in event:
            yield Piece(stop_reason=stop_word(event["messageStop"]["stopReason"]))
        elif "metadata" in event:
            usage = event["metadata"].get("usage", {})
            yield Piece(prompt_tokens=usage.get("inputTokens"), completion_tokens=usage.get("outputTokens"))
        elif "contentBlockStop" in event:
            yield Piece("")  # an answer without deltas is one, without text


def _converse_request(body: str) -> dict[str, Any]:
    """Translate a body of InvokeModel with messages to the keyword arguments of Converse, the model excepted."""
    content = json.loads(body)
    turns = [(message["role"], message["content"]) for message in content["messages"]]
    inquiry = Inquiry(
        tuple(turn for turn in turns if turn[0] != "system"),
        "\n\n".join(text for role, text in turns if role == "system"),
    )
    manner = Manner(content["max_tokens"], content["temperature"], tuple(content.get("stop", ())))
    return conversation.body("converse", inquiry, manner)
