"""ImportedModel with a scripted runtime and a fake clock: order, cold starts, throttling, truncation, streaming."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
import warnings
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from urllib3.exceptions import ProtocolError

from bedrock_fakes import FORMATTER
from bedrock_runtime_fakes import (
    ARN,
    COLD,
    RECORD,
    THROTTLED,
    FakeSession,
    FakeStream,
    FakeTime,
    chunk,
    echo,
    imported,
    refusal,
    retry_policy,
)
from sqlquarry.answers import TextGenerator
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.errors import BedrockError, ConfigError, GenerationError, MissingExtraError, ModelNotReadyError
from sqlquarry.models import ImportedModel, RetryPolicy
from sqlquarry.prompt import PromptFormatter


def test_records_are_rendered_and_texts_are_sent_unchanged() -> None:
    session = FakeSession()
    generator: TextGenerator = imported(session)
    assert generator.generate(["unchanged"])[0].text == "UNCHANGED"
    generator.generate([RECORD])
    assert session.bodies == [
        {"prompt": "unchanged", "max_tokens": 512, "temperature": 0},
        {"prompt": FORMATTER.prompt(RECORD), "max_tokens": 512, "temperature": 0},
    ]


def test_the_schema_max_gen_len() -> None:
    session = FakeSession()
    imported(session, request_schema="max_gen_len", max_tokens=7).generate(["x"])
    assert session.bodies == [{"prompt": "x", "max_gen_len": 7, "temperature": 0}]


def test_the_client_uses_the_models_region_and_allows_long_answers() -> None:
    session = FakeSession()
    ImportedModel(ARN, formatter=FORMATTER, session=session, concurrency=3)
    ((service, options),) = session.asked_for
    assert (service, options["region_name"]) == ("bedrock-runtime", "us-west-2")
    config = options["config"]
    assert (config.read_timeout, config.max_pool_connections) == (300, 3)
    assert config.retries["total_max_attempts"] <= 2


def test_answers_come_in_the_order_of_the_inputs() -> None:
    def slow_first(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.05 if body["prompt"] == "a0" else 0)
        return echo(body)

    prompts = [f"a{i}" for i in range(20)]
    answers = imported(FakeSession(slow_first), concurrency=4).generate(prompts)
    assert [answer.text for answer in answers] == [prompt.upper() for prompt in prompts]


def test_no_inputs_give_no_answers() -> None:
    assert imported(FakeSession()).generate([]) == []


@pytest.mark.parametrize("alone", ["SELECT 1", RECORD])
def test_a_single_prompt_is_refused_and_not_split_into_letters(alone: Any) -> None:
    session = FakeSession()
    with pytest.raises(ConfigError, match=re.escape(repr(alone)[:30])):
        imported(session).generate(alone)
    assert session.bodies == []


def test_one_thread_waits_for_a_cold_model_on_behalf_of_all() -> None:
    fake_time = FakeTime()

    def cold_for_two_minutes(body: dict[str, Any]) -> dict[str, Any]:
        if fake_time.now < 120:
            raise COLD
        return echo(body)

    session = FakeSession(cold_for_two_minutes)
    answers = imported(session, fake_time, concurrency=8).generate([f"p{i}" for i in range(40)])
    assert [answer.text for answer in answers] == [f"P{i}" for i in range(40)]
    assert fake_time.sleeps == [10.0] * 12
    # 40 answers, 12 attempts of the waiting thread (the last one is an answer), and at most one refusal per thread.
    assert len(session.bodies) <= 40 + 11 + 8
    assert max(answer.latency_s or 0 for answer in answers) >= 120


def test_if_the_model_stays_cold_all_threads_stop_after_one_budget() -> None:
    fake_time = FakeTime()

    def cold(_: dict[str, Any]) -> dict[str, Any]:
        raise COLD

    session = FakeSession(cold)
    with pytest.raises(ModelNotReadyError, match=r"\b60 s.*cold_start_budget_s"):
        imported(session, retry=retry_policy(fake_time, cold_start_budget_s=60), concurrency=4).generate(["x"] * 50)
    assert fake_time.now == 60
    assert len(session.bodies) <= 4 + 6


def test_a_model_that_falls_asleep_again_has_a_new_budget() -> None:
    fake_time = FakeTime()
    script = iter([COLD] * 5 + [None] + [COLD] * 5 + [None])

    def scripted(body: dict[str, Any]) -> dict[str, Any]:
        if (error := next(script)) is not None:
            raise error
        return echo(body)

    policy = retry_policy(fake_time, cold_start_budget_s=60)
    answers = imported(FakeSession(scripted), retry=policy, concurrency=1).generate(["a", "b"])
    assert [answer.text for answer in answers] == ["A", "B"]
    assert fake_time.now == 100


def test_throttling_does_not_reset_the_budget_of_a_cold_model() -> None:
    fake_time = FakeTime()
    script = iter([COLD, COLD, THROTTLED, *[COLD] * 100])

    def scripted(_: dict[str, Any]) -> dict[str, Any]:
        raise next(script)

    policy = retry_policy(fake_time, cold_start_budget_s=60)
    with pytest.raises(ModelNotReadyError):
        imported(FakeSession(scripted), retry=policy, concurrency=1).generate(["a"])
    assert 60 <= fake_time.now < 75


def test_throttling_backs_off_with_growing_bounded_waits() -> None:
    fake_time = FakeTime()
    script = iter([THROTTLED] * 9 + [None])

    def scripted(body: dict[str, Any]) -> dict[str, Any]:
        if (error := next(script)) is not None:
            raise error
        return echo(body)

    assert imported(FakeSession(scripted), fake_time, concurrency=1).generate(["a"])[0].text == "A"
    ceilings, jitter = [1, 2, 4, 8, 16, 30, 30, 30, 30], random.Random(0)
    assert fake_time.sleeps == [jitter.uniform(0, ceiling) for ceiling in ceilings]


def test_endless_throttling_ends_with_an_error_that_mentions_concurrency() -> None:
    def throttle(_: dict[str, Any]) -> dict[str, Any]:
        raise THROTTLED

    session = FakeSession(throttle)
    with pytest.raises(BedrockError, match=r"ThrottlingException.*`concurrency`"):
        imported(session, retry=retry_policy(max_attempts=3), concurrency=1).generate(["a"])
    assert len(session.bodies) == 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal("AccessDeniedException"), "iam:PassRole"),
        (refusal("ValidationException", "This action doesn't support the model that you provided."), "InvokeModel"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), r"Could not connect.*127\.0\.0\.1:1.*network"),
        (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), r"timeout.*127\.0\.0\.1:1.*network"),
        (NoCredentialsError(), "Unable to locate credentials"),
    ],
)
def test_other_errors_are_not_retried(error: Exception, message: str) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    session = FakeSession(refuse)
    with pytest.raises(BedrockError, match=message) as caught:
        imported(session, concurrency=1).generate(["a"])
    assert caught.value.__cause__ is error
    assert len(session.bodies) == 1


def test_an_answer_of_unknown_shape_is_an_error_and_stops_the_batch() -> None:
    session = FakeSession(lambda _: {"strange": 1})
    with pytest.raises(GenerationError, match="strange"):
        imported(session, concurrency=2).generate(["x"] * 1000)
    assert len(session.bodies) < 1000


def test_after_ctrl_c_no_request_starts_and_no_thread_keeps_the_process_alive() -> None:
    released, threads = threading.Event(), list[threading.Thread]()

    def hang(body: dict[str, Any]) -> dict[str, Any]:
        threads.append(threading.current_thread())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        released.wait(5)
        return echo(body)

    session = FakeSession(hang)
    before = time.monotonic()
    # Background jobs of a shell ignore SIGINT.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            imported(session, concurrency=1).generate(["x"] * 10)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - before < 4
    (thread,) = threads
    assert thread.daemon  # Before it ends, the interpreter joins all other threads and those of ThreadPoolExecutor.
    released.set()
    thread.join(5)
    assert len(session.bodies) == 1


def test_cut_answers_are_kept_and_warned_about_once() -> None:
    def cut(body: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [{"text": "x", "finish_reason": "stop" if body["prompt"] == "ok" else "length"}]}

    with pytest.warns(UserWarning, match=r"\b2 of 3\b.*\b512\b.*max_tokens") as caught:
        answers = imported(FakeSession(cut)).generate(["a", "ok", "b"])
    assert [answer.stop_reason for answer in answers] == ["length", "stop", "length"]
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_complete_answers_cause_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imported(FakeSession()).generate(["a"])


def test_streaming_yields_pieces_of_text() -> None:
    session = FakeSession()
    session.events = [chunk(choices=[{"text": "SELECT"}]), chunk(choices=[{"text": " 1", "finish_reason": "stop"}])]
    assert list(imported(session).stream(RECORD)) == ["SELECT", " 1"]


def test_streaming_waits_for_a_cold_model_and_warns_if_the_answer_is_cut() -> None:
    fake_time = FakeTime()

    def cold(body: dict[str, Any]) -> dict[str, Any]:
        if fake_time.now < 30:
            raise COLD
        return echo(body)

    session = FakeSession(cold)
    session.events = [chunk(generation="SEL", stop_reason="length")]
    with pytest.warns(UserWarning, match=r"\b1 of 1\b.*max_tokens"):
        assert list(imported(session, fake_time).stream("x")) == ["SEL"]
    assert fake_time.now == 30


@pytest.mark.parametrize("error", [refusal("modelStreamErrorException", "broken"), ProtocolError("broken")])
def test_an_error_in_the_stream_becomes_a_bedrock_error(error: Exception) -> None:
    session = FakeSession()
    session.events = [chunk(generation="SEL"), error]
    stream = imported(session).stream("x")
    assert next(stream) == "SEL"
    with pytest.raises(BedrockError, match="broken"):
        next(stream)


def test_a_stream_is_closed_even_if_it_is_not_read_to_its_end() -> None:
    streams: list[FakeStream] = []

    class Recording(FakeSession):
        def invoke_model_with_response_stream(self, **request: Any) -> dict[str, Any]:
            answer = super().invoke_model_with_response_stream(**request)
            streams.append(answer["body"])
            return answer

    session = Recording()
    session.events = [chunk(generation="SEL"), chunk(generation="ECT", stop_reason="stop")]
    assert list(imported(session).stream("x")) == ["SEL", "ECT"]
    stream = imported(session).stream("x")
    assert next(stream) == "SEL"
    assert [one.closed for one in streams] == [True, False]
    stream.close()
    assert [one.closed for one in streams] == [True, True]


def test_delete() -> None:
    session = FakeSession()
    imported(session).delete()
    assert session.deleted == [ARN]
    assert session.asked_for[-1][0] == "bedrock"


def test_all_bad_options_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ImportedModel(
            "arn:x",
            formatter=PromptFormatter(),
            max_tokens=0,
            concurrency=0,
            structured={"xml": 1},
        )
    wrong = ("'arn:x'", r"max_tokens\b\D*\b0\b", r"concurrency\b\D*\b0\b", "'xml'", r"formatter\b")
    for option in wrong:
        assert re.search(option, str(caught.value))
    with pytest.raises(ConfigError) as caught:
        RetryPolicy(cold_start_interval_s=-1, max_attempts=0)
    for option in (r"cold_start_interval_s\b.*-1\b", r"max_attempts\b\D*\b0\b"):
        assert re.search(option, str(caught.value))
    with pytest.raises(ConfigError) as caught:
        ImportedModel(ARN, request_schema="n", stop="x")  # type: ignore[arg-type] - wrong on purpose
    for option in (r"request_schema\b.*'n'", r"stop\b.*'x'"):
        assert re.search(option, str(caught.value))


def test_the_error_without_boto3_has_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlquarry.extras.find_spec", lambda _: None)
    for make in (
        lambda: ImportedModel(ARN, formatter=FORMATTER),
        lambda: BedrockImporter("arn:aws:iam::123456789012:role/r"),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'sqlquarry\[aws\]'"):
            make()


def test_the_fingerprint_depends_on_the_prompt_and_the_options_that_affect_answers() -> None:
    model = imported(FakeSession())
    options: dict[str, Any] = {
        "formatter": None,
        "request_schema": "messages",
        "max_tokens": 9,
        "stop": [";"],
        "structured": {"regex": "a"},
        "logprobs": True,
    }
    changed = [model.with_options(**{name: value}).fingerprint for name, value in options.items()]
    assert len({model.fingerprint, *changed}) == 7
    assert model.with_options(concurrency=2, name="other").fingerprint == model.fingerprint


def test_the_default_name_is_the_id() -> None:
    assert imported(FakeSession()).name == "abcdefghijkl"
    assert repr(imported(FakeSession(), name="sql")) == f"ImportedModel({ARN!r}, name='sql')"
