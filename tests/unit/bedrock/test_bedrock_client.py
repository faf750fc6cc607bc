"""ImportedModel against a scripted runtime: order, cold starts, throttling, truncation, streaming; time is made up."""

from __future__ import annotations

import io
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bedrock_fakes import FORMATTER
from botocore.exceptions import ClientError, EndpointConnectionError

from sqlquarry.artifacts import Record, TextGenerator
from sqlquarry.bedrock import ImportedModel
from sqlquarry.errors import BedrockError, ConfigError, GenerationError, ModelNotReadyError
from sqlquarry.prompt import PromptFormatter

ARN = "arn:aws:bedrock:us-west-2:123456789012:imported-model/abcdefghijkl"
RECORD = Record("How many?", "CREATE TABLE t (a)")


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "InvokeModel")


COLD = refusal("ModelNotReadyException", "Model is not ready for inference")
THROTTLED = refusal("ThrottlingException")


def echo(body: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"text": body["prompt"].upper(), "finish_reason": "stop"}]}


class FakeTime:
    """A clock that only sleeping moves; safe to share between threads."""

    def __init__(self) -> None:
        self.now, self.sleeps, self._lock = 0.0, list[float](), threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
            self.sleeps.append(seconds)

    def clock(self) -> float:
        return self.now


class FakeSession:
    """Stands for a boto3 session; `answer` gives a response's content or raises what AWS would."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any] = echo) -> None:
        self.answer, self.bodies, self.asked_for = answer, list[dict[str, Any]](), list[tuple[str, dict[str, Any]]]()
        self.deleted: list[str] = []
        self.events: list[dict[str, Any]] = []

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


def model(session: FakeSession, fake_time: FakeTime | None = None, **options: Any) -> ImportedModel:
    fake_time = fake_time or FakeTime()
    return ImportedModel(
        ARN, FORMATTER, session=session, sleep=fake_time.sleep, clock=fake_time.clock, seed=0, **options
    )


def test_records_are_rendered_and_strings_sent_as_they_are() -> None:
    session = FakeSession()
    generator: TextGenerator = model(session)
    assert generator.generate(["as it is"])[0].text == "AS IT IS"
    generator.generate([RECORD])
    assert session.bodies == [
        {"prompt": "as it is", "max_tokens": 512, "temperature": 0},
        {"prompt": FORMATTER.prompt(RECORD), "max_tokens": 512, "temperature": 0},
    ]


def test_the_other_request_schema() -> None:
    session = FakeSession()
    model(session, request_schema="max_gen_len", max_tokens=7).generate(["x"])
    assert session.bodies == [{"prompt": "x", "max_gen_len": 7, "temperature": 0}]


def test_the_client_is_made_for_the_models_region_and_long_answers() -> None:
    session = FakeSession()
    ImportedModel(ARN, FORMATTER, session=session, endpoint_url="http://127.0.0.1:1", concurrency=3)
    ((service, options),) = session.asked_for
    assert (service, options["region_name"], options["endpoint_url"]) == (
        "bedrock-runtime",
        "us-west-2",
        "http://127.0.0.1:1",
    )
    config = options["config"]
    assert (config.read_timeout, config.max_pool_connections) == (300, 3)
    assert config.retries["total_max_attempts"] <= 2


def test_answers_come_in_the_order_of_the_inputs() -> None:
    def slow_first(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.05 if body["prompt"] == "a0" else 0)
        return echo(body)

    prompts = [f"a{i}" for i in range(20)]
    answers = model(FakeSession(slow_first), concurrency=4).generate(prompts)
    assert [answer.text for answer in answers] == [prompt.upper() for prompt in prompts]


def test_nothing_in_nothing_out() -> None:
    assert model(FakeSession()).generate([]) == []


def test_a_cold_model_is_waited_for_once_by_all_threads() -> None:
    fake_time = FakeTime()

    def cold_for_two_minutes(body: dict[str, Any]) -> dict[str, Any]:
        if fake_time.now < 120:
            raise COLD
        return echo(body)

    session = FakeSession(cold_for_two_minutes)
    answers = model(session, fake_time, concurrency=8).generate([f"p{i}" for i in range(40)])
    assert [answer.text for answer in answers] == [f"P{i}" for i in range(40)]
    assert fake_time.sleeps == [10.0] * 12
    # 40 answers, 12 tries of the one waiting thread (the last is an answer), and at most one refusal per thread.
    assert len(session.bodies) <= 40 + 11 + 8
    assert max(answer.latency_s or 0 for answer in answers) >= 120


def test_a_model_that_stays_cold_ends_all_threads_after_one_budget() -> None:
    fake_time = FakeTime()

    def cold(_: dict[str, Any]) -> dict[str, Any]:
        raise COLD

    session = FakeSession(cold)
    with pytest.raises(ModelNotReadyError, match="60 s"):
        model(session, fake_time, not_ready_budget_s=60, concurrency=4).generate(["x"] * 50)
    assert fake_time.now == 60
    assert len(session.bodies) <= 4 + 6


def test_a_model_may_fall_asleep_again_with_a_new_budget() -> None:
    fake_time = FakeTime()
    script = iter([COLD] * 5 + [None] + [COLD] * 5 + [None])

    def scripted(body: dict[str, Any]) -> dict[str, Any]:
        if (error := next(script)) is not None:
            raise error
        return echo(body)

    answers = model(FakeSession(scripted), fake_time, not_ready_budget_s=60, concurrency=1).generate(["a", "b"])
    assert [answer.text for answer in answers] == ["A", "B"]
    assert fake_time.now == 100


def test_throttling_while_cold_keeps_the_budget() -> None:
    fake_time = FakeTime()
    script = iter([COLD, COLD, THROTTLED, *[COLD] * 100])

    def scripted(_: dict[str, Any]) -> dict[str, Any]:
        raise next(script)

    with pytest.raises(ModelNotReadyError):
        model(FakeSession(scripted), fake_time, not_ready_budget_s=60, concurrency=1).generate(["a"])
    assert 60 <= fake_time.now < 75


def test_throttling_backs_off_with_growing_bounded_waits() -> None:
    fake_time = FakeTime()
    script = iter([THROTTLED] * 9 + [None])

    def scripted(body: dict[str, Any]) -> dict[str, Any]:
        if (error := next(script)) is not None:
            raise error
        return echo(body)

    assert model(FakeSession(scripted), fake_time, concurrency=1).generate(["a"])[0].text == "A"
    ceilings = [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert len(fake_time.sleeps) == 9
    assert all(0 <= slept <= ceiling for slept, ceiling in zip(fake_time.sleeps, ceilings, strict=True))
    assert len(set(fake_time.sleeps)) == 9


def test_endless_throttling_ends_with_advice() -> None:
    def throttle(_: dict[str, Any]) -> dict[str, Any]:
        raise THROTTLED

    session = FakeSession(throttle)
    with pytest.raises(BedrockError, match=r"Lower `concurrency`"):
        model(session, throttle_attempts=3, concurrency=1).generate(["a"])
    assert len(session.bodies) == 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal("AccessDeniedException"), "iam:PassRole"),
        (refusal("ValidationException", "This action doesn't support the model that you provided."), "InvokeModel"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "Could not connect"),
    ],
)
def test_other_refusals_are_not_retried(error: Exception, message: str) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    session = FakeSession(refuse)
    with pytest.raises(BedrockError, match=message) as caught:
        model(session, concurrency=1).generate(["a", "b"])
    assert caught.value.__cause__ is error
    assert len(session.bodies) <= 2


def test_an_unknown_shape_is_an_error_and_stops_the_rest() -> None:
    session = FakeSession(lambda _: {"strange": 1})
    with pytest.raises(GenerationError, match="strange"):
        model(session, concurrency=2).generate(["x"] * 1000)
    assert len(session.bodies) < 1000


def test_ctrl_c_starts_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    started, released = threading.Event(), threading.Event()

    def hang(body: dict[str, Any]) -> dict[str, Any]:
        started.set()
        released.wait(5)
        return echo(body)

    def interrupt(_: Any) -> Iterator[Any]:
        started.wait(5)
        raise KeyboardInterrupt

    monkeypatch.setattr("sqlquarry.bedrock.client.as_completed", interrupt)
    session = FakeSession(hang)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        model(session, concurrency=1).generate(["x"] * 10)
    assert time.monotonic() - before < 4
    released.set()
    time.sleep(0.05)
    assert len(session.bodies) == 1


def test_cut_answers_are_kept_and_warned_about_once() -> None:
    def cut(body: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [{"text": "x", "finish_reason": "stop" if body["prompt"] == "ok" else "length"}]}

    with pytest.warns(UserWarning, match="2 of 3 answers were cut at 512 tokens") as caught:
        answers = model(FakeSession(cut)).generate(["a", "ok", "b"])
    assert [answer.stop_reason for answer in answers] == ["length", "stop", "length"]
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_whole_answers_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(FakeSession()).generate(["a"])


def chunk(**content: Any) -> dict[str, Any]:
    return {"chunk": {"bytes": json.dumps(content).encode()}}


def test_streaming_yields_text_as_it_comes() -> None:
    session = FakeSession()
    session.events = [chunk(choices=[{"text": "SELECT"}]), chunk(choices=[{"text": " 1", "finish_reason": "stop"}])]
    assert list(model(session).stream(RECORD)) == ["SELECT", " 1"]


def test_streaming_waits_for_a_cold_model_and_warns_of_a_cut() -> None:
    fake_time = FakeTime()

    def cold(body: dict[str, Any]) -> dict[str, Any]:
        if fake_time.now < 30:
            raise COLD
        return echo(body)

    session = FakeSession(cold)
    session.events = [chunk(generation="SEL", stop_reason="length")]
    with pytest.warns(UserWarning, match="1 of 1 answers"):
        assert list(model(session, fake_time).stream("x")) == ["SEL"]
    assert fake_time.now == 30


def test_an_error_in_the_stream_is_ours() -> None:
    session = FakeSession()
    session.events = [chunk(generation="SEL"), refusal("modelStreamErrorException", "broken")]  # type: ignore[list-item] - the fake raises it
    stream = model(session).stream("x")
    assert next(stream) == "SEL"
    with pytest.raises(BedrockError, match="broken"):
        next(stream)


def test_delete() -> None:
    session = FakeSession()
    model(session).delete()
    assert session.deleted == [ARN]
    assert session.asked_for[-1][0] == "bedrock"


def test_bad_options_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ImportedModel("arn:x", PromptFormatter(), max_tokens=0, concurrency=0, request_schema="n")  # type: ignore[arg-type] - wrong on purpose
    for part in ("'arn:x'", "not bound", "max_tokens is 0", "concurrency is 0", "request_schema is 'n'"):
        assert part in str(caught.value)


def test_the_name_is_the_id_where_it_is_not_given() -> None:
    assert model(FakeSession()).name == "abcdefghijkl"
    assert repr(model(FakeSession(), name="sql")) == f"ImportedModel({ARN!r}, name='sql')"
