"""ImportedModel against a scripted runtime: order, cold starts, throttling, truncation, streaming; time is made up."""

from __future__ import annotations

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


def test_records_are_rendered_and_strings_sent_as_they_are() -> None:
    session = FakeSession()
    generator: TextGenerator = imported(session)
    assert generator.generate(["as it is"])[0].text == "AS IT IS"
    generator.generate([RECORD])
    assert session.bodies == [
        {"prompt": "as it is", "max_tokens": 512, "temperature": 0},
        {"prompt": FORMATTER.prompt(RECORD), "max_tokens": 512, "temperature": 0},
    ]


def test_the_other_request_schema() -> None:
    session = FakeSession()
    imported(session, request_schema="max_gen_len", max_tokens=7).generate(["x"])
    assert session.bodies == [{"prompt": "x", "max_gen_len": 7, "temperature": 0}]


def test_the_client_is_made_for_the_models_region_and_long_answers() -> None:
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


def test_nothing_in_nothing_out() -> None:
    assert imported(FakeSession()).generate([]) == []


@pytest.mark.parametrize("alone", ["SELECT 1", RECORD])
def test_one_prompt_that_is_no_list_is_not_taken_letter_by_letter(alone: Any) -> None:
    session = FakeSession()
    with pytest.raises(ConfigError, match="Put it in a list"):
        imported(session).generate(alone)
    assert session.bodies == []


def test_a_cold_model_is_waited_for_once_by_all_threads() -> None:
    fake_time = FakeTime()

    def cold_for_two_minutes(body: dict[str, Any]) -> dict[str, Any]:
        if fake_time.now < 120:
            raise COLD
        return echo(body)

    session = FakeSession(cold_for_two_minutes)
    answers = imported(session, fake_time, concurrency=8).generate([f"p{i}" for i in range(40)])
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
        imported(session, retry=retry_policy(fake_time, cold_start_budget_s=60), concurrency=4).generate(["x"] * 50)
    assert fake_time.now == 60
    assert len(session.bodies) <= 4 + 6


def test_a_model_may_fall_asleep_again_with_a_new_budget() -> None:
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


def test_throttling_while_cold_keeps_the_budget() -> None:
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
    ceilings = [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert len(fake_time.sleeps) == 9
    assert all(0 <= slept <= ceiling for slept, ceiling in zip(fake_time.sleeps, ceilings, strict=True))
    assert len(set(fake_time.sleeps)) == 9


def test_endless_throttling_ends_with_advice() -> None:
    def throttle(_: dict[str, Any]) -> dict[str, Any]:
        raise THROTTLED

    session = FakeSession(throttle)
    with pytest.raises(BedrockError, match=r"Lower `concurrency`"):
        imported(session, retry=retry_policy(max_attempts=3), concurrency=1).generate(["a"])
    assert len(session.bodies) == 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal("AccessDeniedException"), "iam:PassRole"),
        (refusal("ValidationException", "This action doesn't support the model that you provided."), "InvokeModel"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "Could not connect.*Check the network"),
        (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), "timeout.*Check the network"),
        (NoCredentialsError(), "Unable to locate credentials.*Log in"),
    ],
)
def test_other_refusals_are_not_retried(error: Exception, message: str) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    session = FakeSession(refuse)
    with pytest.raises(BedrockError, match=message) as caught:
        imported(session, concurrency=1).generate(["a", "b"])
    assert caught.value.__cause__ is error
    assert len(session.bodies) <= 2


def test_an_unknown_shape_is_an_error_and_stops_the_rest() -> None:
    session = FakeSession(lambda _: {"strange": 1})
    with pytest.raises(GenerationError, match="strange"):
        imported(session, concurrency=2).generate(["x"] * 1000)
    assert len(session.bodies) < 1000


def test_ctrl_c_starts_nothing_new_and_leaves_nothing_that_keeps_the_process_alive() -> None:
    released, threads = threading.Event(), list[threading.Thread]()

    def hang(body: dict[str, Any]) -> dict[str, Any]:
        threads.append(threading.current_thread())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        released.wait(5)
        return echo(body)

    session = FakeSession(hang)
    before = time.monotonic()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            imported(session, concurrency=1).generate(["x"] * 10)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - before < 4
    (thread,) = threads
    assert thread.daemon  # the interpreter joins all others, and ThreadPoolExecutor's, before it ends
    released.set()
    thread.join(5)
    assert len(session.bodies) == 1


def test_cut_answers_are_kept_and_warned_about_once() -> None:
    def cut(body: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [{"text": "x", "finish_reason": "stop" if body["prompt"] == "ok" else "length"}]}

    with pytest.warns(UserWarning, match="2 of 3 answers were cut at 512 tokens") as caught:
        answers = imported(FakeSession(cut)).generate(["a", "ok", "b"])
    assert [answer.stop_reason for answer in answers] == ["length", "stop", "length"]
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_whole_answers_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imported(FakeSession()).generate(["a"])


def test_streaming_yields_text_as_it_comes() -> None:
    session = FakeSession()
    session.events = [chunk(choices=[{"text": "SELECT"}]), chunk(choices=[{"text": " 1", "finish_reason": "stop"}])]
    assert list(imported(session).stream(RECORD)) == ["SELECT", " 1"]


def test_streaming_waits_for_a_cold_model_and_warns_of_a_cut() -> None:
    fake_time = FakeTime()

    def cold(body: dict[str, Any]) -> dict[str, Any]:
        if fake_time.now < 30:
            raise COLD
        return echo(body)

    session = FakeSession(cold)
    session.events = [chunk(generation="SEL", stop_reason="length")]
    with pytest.warns(UserWarning, match="1 of 1 answers"):
        assert list(imported(session, fake_time).stream("x")) == ["SEL"]
    assert fake_time.now == 30


@pytest.mark.parametrize("error", [refusal("modelStreamErrorException", "broken"), ProtocolError("broken")])
def test_an_error_in_the_stream_is_ours(error: Exception) -> None:
    session = FakeSession()
    session.events = [chunk(generation="SEL"), error]
    stream = imported(session).stream("x")
    assert next(stream) == "SEL"
    with pytest.raises(BedrockError, match="broken"):
        next(stream)


def test_delete() -> None:
    session = FakeSession()
    imported(session).delete()
    assert session.deleted == [ARN]
    assert session.asked_for[-1][0] == "bedrock"


def test_bad_options_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ImportedModel(
            "arn:x",
            formatter=PromptFormatter(),
            max_tokens=0,
            concurrency=0,
            structured={"xml": 1},
        )
    wrong = ("'arn:x'", "max_tokens is 0", "concurrency is 0", "'xml'", "not bound")
    for part in wrong:
        assert part in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        RetryPolicy(cold_start_interval_s=-1, max_attempts=0)
    for part in ("cold_start_interval_s is -1", "max_attempts is 0"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        ImportedModel(ARN, request_schema="n", stop="x")  # type: ignore[arg-type] - wrong on purpose
    for part in ("request_schema is 'n'", "stop is 'x'"):
        assert part in str(caught.value)


def test_without_boto3_the_error_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlquarry.extras.find_spec", lambda _: None)
    for make in (
        lambda: ImportedModel(ARN, formatter=FORMATTER),
        lambda: BedrockImporter("arn:aws:iam::123456789012:role/r"),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'sqlquarry\[aws\]'"):
            make()


def test_the_name_is_the_id_where_it_is_not_given() -> None:
    assert imported(FakeSession()).name == "abcdefghijkl"
    assert repr(imported(FakeSession(), name="sql")) == f"ImportedModel({ARN!r}, name='sql')"
