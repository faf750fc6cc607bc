"""The operations of bedrock-runtime for imported models."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from sqlquarry.artifacts import Generation
from sqlquarry.emulator.api import ApiError, Parameters
from sqlquarry.emulator.engine import EnginePool, Request
from sqlquarry.emulator.formats import Shape, parse
from sqlquarry.emulator.imports import ModelImports


class Runtime:
    """Answers invocations of imported models; each method maps an operation's parameters to its answer."""

    def __init__(self, imports: ModelImports, pool: EnginePool) -> None:
        self._imports, self._pool = imports, pool

    def invoke_model(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Bedrock's own operation
        shape, generation, arn = self._generate(parameters)
        return {"body": json.dumps(shape.answer(generation, arn)).encode(), "contentType": "application/json"}

    def invoke_model_with_response_stream(self, parameters: Parameters) -> dict[str, Any]:
        """The same answer in several chunks; they leave together, once the whole answer is there."""
        shape, generation, arn = self._generate(parameters)
        chunks = [{"chunk": {"bytes": json.dumps(piece).encode()}} for piece in shape.pieces(generation, arn)]
        return {"body": chunks, "contentType": "application/json"}

    def converse(self, parameters: Parameters) -> NoReturn:
        """Refuse, in the words that users of imported models report."""
        self._imports.model(parameters["modelId"])
        raise ApiError(
            "ValidationException",
            "This action doesn't support the model that you provided. Try again with a supported text or chat model.",
        )

    converse_stream = converse

    def _generate(self, parameters: Parameters) -> tuple[Shape, Generation, str]:
        model = self._imports.model(parameters["modelId"])
        shape, prompt, decoding = parse(parameters.get("body") or b"")
        if self._imports.still_cold(model):
            raise ApiError("ModelNotReadyException", "Model is not ready for inference. Wait and try again.")
        request = Request(prompt, decoding, model.admitted.context_tokens)
        try:
            return shape, self._pool.submit(model.directory, request).result(), model.arn
        except ApiError:
            raise
        except Exception as error:
            # Not InternalServerException: botocore would send that again, and the model would fail again.
            raise ApiError("ModelErrorException", f"{type(error).__name__}: {error}") from error
