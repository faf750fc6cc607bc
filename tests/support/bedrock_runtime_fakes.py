"""A scripted Bedrock whose answers depend only on the request, with time that passes only in sleeps."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from bedrock_fakes import FORMATTER
from sqlquarry.models import FoundationModel, ImportedModel, RetryPolicy
from sqlquarry.records import Record

ARN = "arn:aws:bedrock:us-west-2:123456789012:imported-model/abcdefghijkl"
RECORD = Record("How many?", "CREATE TABLE t (a)")


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "InvokeModel")


COLD = refusal("ModelNotReadyException", "Model is not ready for inference")
THROTTLED = refusal("ThrottlingException")


def echo(body: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 10, "completion_tokens": 3}
    return {"choices": [{"text": body["prompt"].upper(), "finish_reason": "stop"}], "usage": usage}


class FakeTime:
    """A thread-safe clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.sleeps, self._lock = 0.0, list[float](), threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
            self.sleeps.append(seconds)

    def clock(self) -> float:
        return self.now


class FakeSession:
    """A fake boto3 session. `answer` returns a response's content or raises AWS's error."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any] = echo) -> None:
        self.answer, self.bodies, self.asked_for = answer, list[dict[str, Any]](), list[tuple[str, dict[str, Any]]]()
        self.deleted: list[str] = []
        self.events: list[Any] = []
        self.units: Any = 2

    def client(self, service: str, **options: Any) -> FakeSession:
        self.asked_for.append((service, options))
        return self

    def invoke_model(self, *, modelId: str, body: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        assert modelId == ARN
        content = json.loads(body)
        self.bodies.append(content)
        return {"body": io.BytesIO(json.dumps(self.answer(content)).encode())}

    def invoke_model_with_response_stream(self, *, modelId: str, body: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        assert modelId == ARN
        self.answer(json.loads(body))
        return {"body": FakeStream(self.events)}

    def converse(self, **request: Any) -> Any:
        self.bodies.append(request)
        return self.answer(request)

    def get_imported_model(self, *, modelIdentifier: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        assert modelIdentifier == ARN
        if isinstance(self.units, Exception):
            raise self.units
        return {"customModelUnits": {"customModelUnitsPerModelCopy": self.units, "customModelUnitsVersion": "v1.0"}}

    def delete_imported_model(self, *, modelIdentifier: str) -> None:  # noqa: N803 - boto3's name
        self.deleted.append(modelIdentifier)


class FakeStream:
    def __init__(self, events: list[Any]) -> None:
        self.events, self.closed = events, False

    def __iter__(self) -> Iterator[Any]:
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event

    def close(self) -> None:
        self.closed = True


def chunk(**content: Any) -> dict[str, Any]:
    return {"chunk": {"bytes": json.dumps(content).encode()}}


def retry_policy(fake_time: FakeTime | None = None, **options: Any) -> RetryPolicy:
    time = fake_time or FakeTime()
    return RetryPolicy(sleep=time.sleep, clock=time.clock, seed=0, **options)


def imported(
    session: FakeSession,
    fake_time: FakeTime | None = None,
    formatter: Any = FORMATTER,
    *,
    retry: RetryPolicy | None = None,
    **options: Any,
) -> ImportedModel:
    return ImportedModel(ARN, formatter=formatter, session=session, retry=retry or retry_policy(fake_time), **options)


def foundation(session: FakeSession, model_id: str = "global.some.judge", **options: Any) -> FoundationModel:
    return FoundationModel(model_id, session=session, retry=retry_policy(), **options)
