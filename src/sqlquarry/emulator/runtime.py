"""The operations of bedrock-runtime for imported models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from sqlquarry.artifacts import Generation
from sqlquarry.emulator.api import STREAM_ERROR, ApiError, Parameters
from sqlquarry.emulator.engine import EnginePool, Request
from sqlquarry.emulator.faults import CutAnswer, Faults, ModelDeleted, NoText, NotReady, SlowAnswers, StreamBroken
from sqlquarry.emulator.formats import Shape, parse, without_text
from sqlquarry.emulator.imports import ModelImports
from sqlquarry.emulator.records import Model


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
        shape, generation, arn = self._generate(parameters)
        answer = shape.answer(generation, arn)
        if self._faults.take(NoText):
            answer = without_text(answer)
        return {"body": json.dumps(answer).encode(), "contentType": "application/json"}

    def invoke_model_with_response_stream(self, parameters: Parameters) -> dict[str, Any]:
        """The same answer in several chunks; they leave together, once the whole answer is there."""
        shape, generation, arn = self._generate(parameters)
        if generation.logprobs is not None:
            raise ApiError("ValidationException", "this emulator does not stream logprobs")
        pieces = list(shape.pieces(generation, arn))
        if self._faults.take(NoText):
            pieces = [without_text(piece) for piece in pieces]
        answer: dict[str, Any] = {"contentType": "application/json"}
        if broken := self._faults.take(StreamBroken):
            answer[STREAM_ERROR] = ApiError(broken.code, broken.message)
            pieces = pieces[: broken.after_chunks]
        return answer | {"body": [{"chunk": {"bytes": json.dumps(piece).encode()}} for piece in pieces]}

    def converse(self, parameters: Parameters) -> NoReturn:
        """Refuse, in the words that users of imported models report."""
        self._model(parameters)
        raise ApiError(
            "ValidationException",
            "This action doesn't support the model that you provided. Try again with a supported text or chat model.",
        )

    converse_stream = converse

    def _model(self, parameters: Parameters) -> Model:
        identifier = parameters["modelId"]
        if ":imported-model/" not in identifier:  # a name is none, and there are no other models here
            raise ApiError("ValidationException", "The provided model identifier is invalid.")
        if self._faults.take(ModelDeleted):
            self._imports.delete_imported_model({"modelIdentifier": identifier})
        return self._imports.model(identifier)

    def _generate(self, parameters: Parameters) -> tuple[Shape, Generation, str]:
        model = self._model(parameters)
        shape, prompt, decoding = parse(parameters.get("body") or b"")
        if self._imports.still_cold(model):
            raise ApiError(NotReady().code, NotReady().message)
        cut = self._faults.take(CutAnswer)
        if cut:
            decoding = replace(decoding, max_tokens=cut.tokens)
        request = Request(prompt, decoding, model.admitted.context_tokens)
        try:
            generation = self._pool.submit(model.directory, request).result()
        except ApiError:
            raise
        except Exception as error:
            # Not InternalServerException: botocore would send that again, and the model would fail again.
            raise ApiError("ModelErrorException", f"{type(error).__name__}: {error}") from error
        if slow := self._faults.take(SlowAnswers):
            self._sleep(slow.latency_s)
        return shape, replace(generation, stop_reason="length") if cut else generation, model.arn
