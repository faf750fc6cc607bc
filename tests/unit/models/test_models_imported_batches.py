"""ImportedModel: interrupted batches, async calls, warm-up, usage, account errors, and streams in every schema."""

from __future__ import annotations

import asyncio
import threading
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from sqlquarry.answers import Generation
from sqlquarry.errors import BedrockError, ConfigError, GenerationError, ModelNotReadyError
from sqlquarry.models import PriceTable


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 6))
def test_answers_keep_their_order_whatever_fails_in_between(failures: list[int], concurrency: int) -> None:
    """Before it is answered, prompt i is throttled or cold `failures[i]` times."""
    left, lock = dict(enumerate(failures)), threading.Lock()

    def unsteady(body: dict[str, Any]) -> dict[str, Any]:
        index = int(body["prompt"])
        with lock:
            left[index] -= 1
            again = left[index] >= 0
        if again:
            raise COLD if index % 2 else THROTTLED
        return echo(body)

    answers = imported(FakeSession(unsteady), concurrency=concurrency).generate([str(i) for i in range(len(failures))])
    assert [answer.text for answer in answers] == [str(i) for i in range(len(failures))]


def test_an_error_contains_the_answers_so_far_and_the_next_run_asks_only_the_rest() -> None:
    broken = True

    def breaks_at_the_third(body: dict[str, Any]) -> dict[str, Any]:
        return {"strange": 1} if broken and body["prompt"] == "c" else echo(body)

    session = FakeSession(breaks_at_the_third)
    model = imported(session, concurrency=1)
    with pytest.raises(GenerationError) as caught:
        model.generate(["a", "b", "c", "d"])
    partial = caught.value.partial  # type: ignore[attr-defined] - set by `generate`
    assert [answer and answer.text for answer in partial] == ["A", "B", None, None]
    broken, before = False, len(session.bodies)
    answers = model.generate(["a", "b", "c", "d"], resume=partial)
    assert [answer.text for answer in answers] == ["A", "B", "C", "D"]
    assert [body["prompt"] for body in session.bodies[before:]] == ["c", "d"]


def test_a_second_error_keeps_the_answers_of_both_runs() -> None:
    session = FakeSession(lambda body: {} if body["prompt"] == "c" else echo(body))
    first = (Generation("kept"), None, None)
    with pytest.raises(GenerationError) as caught:
        imported(session, concurrency=1).generate(["a", "b", "c"], resume=first)
    partial = caught.value.partial  # type: ignore[attr-defined] - set by `generate`
    assert [answer and answer.text for answer in partial] == ["kept", "B", None]


def test_resuming_a_different_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"resume\b.*\b1\b.*\b2\b"):
        imported(FakeSession()).generate(["a", "b"], resume=[None])


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (refusal("ResourceNotFoundException", "Could not find the model"), "ARN"),
        (refusal("ExpiredTokenException", "The security token included in the request is expired"), "credentials"),
    ],
)
def test_the_model_is_deleted_or_credentials_expire_during_a_batch(error: Exception, advice: str) -> None:
    def ends(body: dict[str, Any]) -> dict[str, Any]:
        if body["prompt"] == "b":
            raise error
        return echo(body)

    with pytest.raises(BedrockError, match=advice) as caught:
        imported(FakeSession(ends), concurrency=1).generate(["a", "b", "c"])
    assert ARN in str(caught.value)
    assert caught.value.partial[0].text == "A"  # type: ignore[attr-defined] - set by `generate`


def test_async_calls_run_concurrently() -> None:
    together = threading.Barrier(3, timeout=5)  # It breaks unless all three requests are in flight at once.

    def meet(body: dict[str, Any]) -> dict[str, Any]:
        together.wait()
        return echo(body)

    async def main() -> tuple[list[Generation], list[Generation]]:
        model = imported(FakeSession(meet))
        return await asyncio.gather(model.agenerate(["a", "b"]), model.agenerate([RECORD]))

    texts, records = asyncio.run(main())
    assert [answer.text for answer in texts] == ["A", "B"]
    assert len(records) == 1


def test_a_cancelled_batch_sends_no_further_request() -> None:
    first, release = threading.Event(), threading.Event()

    def hang(body: dict[str, Any]) -> dict[str, Any]:
        first.set()
        release.wait(5)
        return echo(body)

    session = FakeSession(hang)

    async def main() -> None:
        task = asyncio.create_task(imported(session, concurrency=2).agenerate(["x"] * 100))
        await asyncio.to_thread(first.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    asyncio.run(main())
    assert 1 <= len(session.bodies) <= 2


def test_async_calls_warn_about_cut_answers_too() -> None:
    session = FakeSession(lambda _: {"generation": "S", "stop_reason": "length"})
    with pytest.warns(UserWarning, match=r"\b1 of 1\b.*max_tokens"):
        asyncio.run(imported(session).agenerate(["x"]))


def test_warm_up_waits_for_the_first_answer() -> None:
    fake_time = FakeTime()

    def cold(body: dict[str, Any]) -> dict[str, Any]:
        if fake_time.now < 60:
            raise COLD
        return echo(body)

    session = FakeSession(cold)
    assert imported(session, fake_time).warm_up() == 60
    assert session.bodies[-1]["max_tokens"] == 1


def test_warm_up_gives_up_after_the_budget() -> None:
    def cold(_: dict[str, Any]) -> dict[str, Any]:
        raise COLD

    with pytest.raises(ModelNotReadyError):
        imported(FakeSession(cold), retry=retry_policy(cold_start_budget_s=30)).warm_up()


def test_usage_counts_requests_tokens_windows_and_prices_them() -> None:
    fake_time, session = FakeTime(), FakeSession()
    model = imported(session, fake_time)
    assert model.usage.cost_usd == 0
    model.generate(["a", "b"])
    fake_time.sleep(3600)
    # A copy with other options is billed as the same model.
    model.with_options(max_tokens=9).generate(["c"])
    usage = model.usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens, usage.windows) == (3, 30, 9, 2)
    assert usage.custom_model_units == 2
    assert usage.cost_usd == pytest.approx(2 * 5 * 2 * 0.05718)
    assert usage.storage_usd_per_month == pytest.approx(3.90)
    assert imported(session, prices=PriceTable(usd_per_cmu_minute={})).usage.cost_usd is None
    control = [service for service, _ in session.asked_for if service == "bedrock"]
    assert len(control) == 2


def test_without_the_units_from_aws_the_price_is_unknown_and_the_reason_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = FakeSession()
    session.units = refusal("AccessDeniedException")
    model = imported(session)
    model.generate(["a"])
    assert (model.usage.requests, model.usage.cost_usd) == (1, None)
    assert "AccessDenied" in caplog.text


STREAMS = {
    "max_tokens": [
        chunk(choices=[{"text": "SELECT"}]),
        chunk(choices=[{"text": " 1", "finish_reason": "stop"}]),
        chunk(choices=[], usage={"prompt_tokens": 10, "completion_tokens": 3}),
    ],
    "messages": [
        chunk(choices=[{"delta": {"role": "assistant"}}]),
        chunk(choices=[{"delta": {"content": "SELECT"}}]),
        chunk(choices=[{"delta": {"content": " 1"}}]),
        chunk(choices=[{"delta": {}, "finish_reason": "stop"}], usage={"prompt_tokens": 10, "completion_tokens": 3}),
    ],
    "max_gen_len": [
        chunk(generation="SELECT", prompt_token_count=10, generation_token_count=None, stop_reason=None),
        chunk(generation=" 1", prompt_token_count=None, generation_token_count=3, stop_reason="stop"),
    ],
}


@pytest.mark.parametrize("schema", STREAMS)
def test_streams_in_every_schema(schema: str) -> None:
    session = FakeSession(lambda _: None)
    session.events = STREAMS[schema]
    model = imported(session, request_schema=schema)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(model.stream(RECORD)) == ["SELECT", " 1"]
    usage = model.usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, 10, 3)


def test_a_stream_without_any_text_is_an_error() -> None:
    session = FakeSession(lambda _: None)
    session.events = [chunk(choices=[{"delta": {}, "finish_reason": "stop"}])]
    with pytest.raises(GenerationError, match=ARN):
        list(imported(session, request_schema="messages").stream("x"))


def test_an_empty_text_is_an_answer() -> None:
    session = FakeSession(lambda _: {"choices": [{"text": "", "finish_reason": "stop"}]})
    session.events = [chunk(generation="", stop_reason="stop")]
    assert imported(session).generate(["x"])[0].text == ""
    assert list(imported(session).stream("x")) == []


def test_a_stream_that_ends_without_a_stop_reason_causes_a_warning() -> None:
    session = FakeSession(lambda _: None)
    session.events = [chunk(generation="SEL", stop_reason=None)]
    with pytest.warns(UserWarning, match="stop reason"):
        assert list(imported(session).stream("x")) == ["SEL"]
