"""The operations of Bedrock's runtime for imported models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlquarry.answers import Generation
from sqlquarry.emulator.bedrock.answer_formats import AnswerFormat, without_text
from sqlquarry.emulator.bedrock.completion_request import CompletionRequest
from sqlquarry.emulator.bedrock.control_plane import ModelImports
from sqlquarry.emulator.bedrock.converse import UNSUPPORTED, converse_answer, converse_events, parse_converse
from sqlquarry.emulator.bedrock.engine import EnginePool
from sqlquarry.emulator.bedrock.invocation import parse_invocation
from sqlquarry.emulator.bedrock.records import ImportedModelRecord
from sqlquarry.emulator.faults import CutAnswer, Faults, ModelDeleted, NoText, NotReady, SlowAnswers, StreamBroken
from sqlquarry.emulator.requests.errors import ApiError, invalid, unsupported
from sqlquarry.emulator.requests.parameters import ApiAnswer, BrokenStream
from sqlquarry.errors import ConfigError

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import type_defs as bedrock_runtime

_HONORED = {"modelId", "body", "requestMetadata"}  # requestMetadata is only for the logs of the service
# InvokeModel's other parameters -> the values that have no effect.
_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "accept": ("application/json", "*/*"),
    "contentType": ("application/json",),
    "guardrailIdentifier": ("",),
    "guardrailVersion": ("",),
    "trace": ("DISABLED",),
    "performanceConfigLatency": ("standard",),
    "serviceTier": ("default",),
}


class BedrockRuntime:
    """The operations that invoke imported models. Each maps parameters to an answer.

    Args:
        imports: imported models.
        pool: loads models and decodes requests.
        faults: faults to apply.
        sleep: waits for a number of seconds.
    """

    def __init__(self, imports: ModelImports, pool: EnginePool, faults: Faults, sleep: Callable[[float], None]) -> None:
        self._imports, self._pool, self._faults, self._sleep = imports, pool, faults, sleep

    def invoke_model(self, parameters: bedrock_runtime.InvokeModelRequestTypeDef) -> ApiAnswer:
        """Answer with one JSON object."""
        answer_format, generation, arn = self._invoke(parameters)
        answer = answer_format.answer(generation, arn)
        if self._faults.take(NoText):
            answer = without_text(answer)
        return {"body": json.dumps(answer).encode(), "contentType": "application/json"}

    def invoke_model_with_response_stream(
        self, parameters: bedrock_runtime.InvokeModelWithResponseStreamRequestTypeDef
    ) -> ApiAnswer | BrokenStream:
        """Answer in several chunks, which are sent together when the answer is complete."""
        answer_format, generation, arn = self._invoke(parameters)
        if generation.logprobs is not None:
            raise invalid("this emulator does not stream logprobs")
        pieces = list(answer_format.pieces(generation, arn))
        if self._faults.take(NoText):
            pieces = [without_text(piece) for piece in pieces]
        events: list[ApiAnswer] = [{"chunk": {"bytes": json.dumps(piece).encode()}} for piece in pieces]
        return self._stream("body", events, {"contentType": "application/json"})

    def converse(self, parameters: bedrock_runtime.ConverseRequestTypeDef) -> ApiAnswer:
        """Answer with one message."""
        generation = self._converse(parameters)
        return converse_answer(generation, without_text=self._faults.take(NoText) is not None)

    def converse_stream(self, parameters: bedrock_runtime.ConverseStreamRequestTypeDef) -> ApiAnswer | BrokenStream:
        """Answer in several events, which are sent together when the answer is complete."""
        generation = self._converse(parameters)
        events = converse_events(generation, without_text=self._faults.take(NoText) is not None)
        return self._stream("stream", events, {})

    def _stream(self, member: str, events: list[ApiAnswer], rest: ApiAnswer) -> ApiAnswer | BrokenStream:
        broken = self._faults.take(StreamBroken)
        if not broken:
            return rest | {member: events}
        error = ApiError(broken.code, broken.message)
        return BrokenStream(rest | {member: events[: broken.after_chunks]}, error)

    def _model(self, identifier: str) -> ImportedModelRecord:
        if ":imported-model/" not in identifier:  # a name is not a valid identifier, and there are no other models
            raise invalid("The provided model identifier is invalid.")
        if self._faults.take(ModelDeleted):
            self._imports.delete_imported_model({"modelIdentifier": identifier})
        return self._imports.model(identifier)

    def _invoke(
        self,
        parameters: bedrock_runtime.InvokeModelRequestTypeDef
        | bedrock_runtime.InvokeModelWithResponseStreamRequestTypeDef,
    ) -> tuple[AnswerFormat, Generation, str]:
        model = self._model(parameters["modelId"])
        asked = {name: held for name, held in parameters.items() if name not in _HONORED}
        refused = [name for name, held in asked.items() if held not in (None, *_WITHOUT_EFFECT.get(name, ()))]
        if refused:
            raise unsupported(refused)
        body = parameters.get("body") or b""
        answer_format, request = parse_invocation(body if isinstance(body, str | bytes) else body.read())
        return answer_format, self._complete(model, request), model.arn

    def _converse(
        self, parameters: bedrock_runtime.ConverseRequestTypeDef | bedrock_runtime.ConverseStreamRequestTypeDef
    ) -> Generation:
        model = self._model(parameters["modelId"])
        if not model.admitted.converses:
            raise invalid(UNSUPPORTED)
        return self._complete(model, parse_converse(parameters))

    def _complete(self, model: ImportedModelRecord, request: CompletionRequest) -> Generation:
        if self._imports.still_cold(model):
            raise ApiError(NotReady().code, NotReady().message)
        request = replace(request, context_tokens=model.admitted.context_tokens)
        cut = self._faults.take(CutAnswer)
        if cut:
            least = min(request.decoding.min_tokens, cut.tokens)
            request = replace(request, decoding=replace(request.decoding, max_tokens=cut.tokens, min_tokens=least))
        try:
            generation = self._pool.submit(model.directory, request).result()
        except ApiError:
            raise
        except ConfigError as error:  # the constraint does not suit the model's tokens, or takes too long to compile
            raise invalid(str(error)) from error
        except Exception as error:
            # After an InternalServerException, botocore would retry, and the model would fail again.
            raise ApiError("ModelErrorException", f"{type(error).__name__}: {error}") from error
        if slow := self._faults.take(SlowAnswers):
            self._sleep(slow.latency_s)
        return replace(generation, stop_reason="length", stop_text=None) if cut else generation
