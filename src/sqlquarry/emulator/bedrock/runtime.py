"""The operations of bedrock-runtime for imported models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlquarry.artifacts import Generation
from sqlquarry.emulator.bedrock.converse import UNSUPPORTED, converse_answer, converse_events, parse_converse
from sqlquarry.emulator.bedrock.engine import EnginePool, Request
from sqlquarry.emulator.bedrock.formats import Shape, without_text
from sqlquarry.emulator.bedrock.imports import ModelImports
from sqlquarry.emulator.bedrock.invocation import parse
from sqlquarry.emulator.bedrock.records import Model
from sqlquarry.emulator.faults import CutAnswer, Faults, ModelDeleted, NoText, NotReady, SlowAnswers, StreamBroken
from sqlquarry.emulator.requests.api import STREAM_ERROR, ApiError, Parameters, unsupported
from sqlquarry.errors import ConfigError

_HONOURED = {"modelId", "body", "requestMetadata"}  # the last is for the logs of the service; it changes no answer
# Of InvokeModel's other parameters -> the values that change nothing.
_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "accept": ("application/json", "*/*"),
    "contentType": ("application/json",),
    "guardrailIdentifier": ("",),
    "guardrailVersion": ("",),
    "trace": ("DISABLED",),
    "performanceConfigLatency": ("standard",),
    "serviceTier": ("default",),
}


class Runtime:
    """Answers invocations of imported models; each method maps an operation's parameters to its answer.

    Args:
        imports: knows the models.
        pool: their weights.
        faults: what goes wrong on purpose.
        sleep: waits for so many seconds.
    """

    def __init__(self, imports: ModelImports, pool: EnginePool, faults: Faults, sleep: Callable[[float], None]) -> None:
        self._imports, self._pool, self._faults, self._sleep = imports, pool, faults, sleep

    def invoke_model(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        shape, generation, arn = self._invoke(parameters)
        answer = shape.answer(generation, arn)
        if self._faults.take(NoText):
            answer = without_text(answer)
        return {"body": json.dumps(answer).encode(), "contentType": "application/json"}

    def invoke_model_with_response_stream(self, parameters: Parameters) -> dict[str, Any]:
        """The same answer in several chunks; they leave together, once the whole answer is there."""
        shape, generation, arn = self._invoke(parameters)
        if generation.logprobs is not None:
            raise ApiError("ValidationException", "this emulator does not stream logprobs")
        pieces = list(shape.pieces(generation, arn))
        if self._faults.take(NoText):
            pieces = [without_text(piece) for piece in pieces]
        events = [{"chunk": {"bytes": json.dumps(piece).encode()}} for piece in pieces]
        return {"contentType": "application/json", **self._stream("body", events)}

    def converse(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        answer = converse_answer(self._converse(parameters))
        if self._faults.take(NoText):
            answer["output"]["message"]["content"] = []
        return answer

    def converse_stream(self, parameters: Parameters) -> dict[str, Any]:
        """The same answer in several events; they leave together, once the whole answer is there."""
        events = converse_events(self._converse(parameters))
        if self._faults.take(NoText):
            events = [event for event in events if not event.keys() & {"contentBlockDelta", "contentBlockStop"}]
        return self._stream("stream", events)

    def _stream(self, member: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        broken = self._faults.take(StreamBroken)
        if not broken:
            return {member: events}
        return {member: events[: broken.after_chunks], STREAM_ERROR: ApiError(broken.code, broken.message)}

    def _model(self, parameters: Parameters) -> Model:
        identifier = parameters["modelId"]
        if ":imported-model/" not in identifier:  # a name is none, and there are no other models here
            raise ApiError("ValidationException", "The provided model identifier is invalid.")
        if self._faults.take(ModelDeleted):
            self._imports.delete_imported_model({"modelIdentifier": identifier})
        return self._imports.model(identifier)

    def _invoke(self, parameters: Parameters) -> tuple[Shape, Generation, str]:
        model = self._model(parameters)
        asked = {name: held for name, held in parameters.items() if name not in _HONOURED}
        refused = [name for name, held in asked.items() if held not in (None, *_WITHOUT_EFFECT.get(name, ()))]
        if refused:
            raise unsupported(refused)
        shape, request = parse(parameters.get("body") or b"")
        return shape, self._complete(model, request), model.arn

    def _converse(self, parameters: Parameters) -> Generation:
        model = self._model(parameters)
        if not model.admitted.converses:
            raise ApiError("ValidationException", UNSUPPORTED)
        return self._complete(model, parse_converse(parameters))

    def _complete(self, model: Model, request: Request) -> Generation:
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
        except ConfigError as error:  # of a constraint that fits neither the model's tokens nor reasonable time
            raise ApiError("ValidationException", str(error)) from error
        except Exception as error:
            # Not InternalServerException: botocore would send that again, and the model would fail again.
            raise ApiError("ModelErrorException", f"{type(error).__name__}: {error}") from error
        if slow := self._faults.take(SlowAnswers):
            self._sleep(slow.latency_s)
        return replace(generation, stop_reason="length", stop_text=None) if cut else generation
