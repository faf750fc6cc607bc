"""Adaptive concurrency and retries: the bounds of the limit, halving, growth, and a service of limited capacity."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError
from contextlib import ExitStack

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from bedrock_runtime_fakes import COLD, THROTTLED, FakeTime, refusal, retry_policy
from sqlquarry.errors import ConfigError, ModelNotReadyError
from sqlquarry.models.concurrency import AdaptiveConcurrency
from sqlquarry.models.retries import RequestRunner, RetryPolicy


@given(st.integers(1, 64), st.lists(st.sampled_from(["answer", "throttle", "late throttle"]), max_size=200))
def test_the_limit_stays_between_one_and_the_maximum(maximum: int, events: list[str]) -> None:
    flights, stale = AdaptiveConcurrency(maximum), -1
    for event in events:
        with flights.slot() as started:
            before = flights.limit
            if event == "answer":
                flights.answered()
                assert before <= flights.limit <= before + 1
            elif event == "throttle":
                flights.throttled(started)
                assert flights.limit == max(1, before / 2)
            else:
                flights.throttled(stale)  # This request started before the last halving, so it must not halve again.
                assert flights.limit == before
        assert 1 <= flights.limit <= maximum


@given(st.integers(1, 40), st.integers(1, 40))
def test_requests_that_were_in_flight_together_halve_the_limit_once(maximum: int, throttled: int) -> None:
    flights = AdaptiveConcurrency(maximum)
    with ExitStack() as together:
        begun = [together.enter_context(flights.slot()) for _ in range(min(maximum, throttled))]
        for started in begun:
            flights.throttled(started)
    assert flights.limit == max(1, maximum / 2)


@given(st.integers(1, 32))
def test_the_limit_grows_by_about_one_per_round(maximum: int) -> None:
    flights = AdaptiveConcurrency(maximum)
    for _ in range(6):
        with flights.slot() as started:
            flights.throttled(started)
    assert flights.limit == 1
    rounds = 0
    while flights.limit < maximum:
        before = flights.limit
        for _ in range(int(flights.limit)):
            flights.answered()
        assert flights.limit <= before + 1
        rounds += 1
    assert maximum - 1 <= rounds <= 2 * maximum


@given(st.integers(1, 30), st.integers(1, 30))
def test_the_limit_finds_the_capacity_of_a_service(capacity: int, maximum: int) -> None:
    """Simulate a service that answers `capacity` requests per round and throttles the others."""
    flights, answered, throttled, rounds = AdaptiveConcurrency(maximum), 0, 0, 100
    for _ in range(rounds):
        with ExitStack() as together:
            begun = [together.enter_context(flights.slot()) for _ in range(int(flights.limit))]
            for index, started in enumerate(begun):
                if index < capacity:
                    flights.answered()
                    answered += 1
                else:
                    flights.throttled(started)
                    throttled += 1
    # The limit is a sawtooth between half and all of the capacity, on average three quarters, less rounding.
    assert answered >= 0.6 * rounds * min(capacity, maximum)
    assert throttled <= answered + maximum


def test_no_more_requests_are_in_flight_than_the_limit() -> None:
    flights, lock, now, most = AdaptiveConcurrency(3), threading.Lock(), 0, 0
    gate = threading.Barrier(3)

    def fly() -> None:
        nonlocal now, most
        with flights.slot():
            with lock:
                now += 1
                most = max(most, now)
            gate.wait(5)
            with lock:
                now -= 1

    threads = [threading.Thread(target=fly, daemon=True) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert (most, now) == (3, 0)


def test_closing_lets_waiting_requests_start() -> None:
    flights, passed = AdaptiveConcurrency(1), threading.Event()

    def wait() -> None:
        with flights.slot():
            passed.set()

    with flights.slot():
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        assert not passed.wait(0.05)
        flights.close()
        assert passed.wait(5)
    thread.join(5)


def test_stopping_a_runner_keeps_the_error_that_ended_its_batch() -> None:
    def cold() -> str:
        raise COLD

    runner, stopped = (
        RequestRunner(retry_policy(cold_start_budget_s=60), concurrency=1, jitter=random.Random(0)) for _ in range(2)
    )
    with pytest.raises(ModelNotReadyError):
        runner.run(cold)
    runner.stop()
    with pytest.raises(ModelNotReadyError):
        runner.run(lambda: "answer")
    stopped.stop()
    with pytest.raises(CancelledError):
        stopped.run(lambda: "answer")


def test_another_error_ends_the_wait_for_a_cold_model() -> None:
    fake_time, script = FakeTime(), iter([COLD, COLD, refusal("AccessDeniedException")])

    def send() -> str:
        raise next(script)

    policy = retry_policy(fake_time, cold_start_interval_s=10)
    with pytest.raises(ClientError, match="AccessDeniedException"):
        RequestRunner(policy, concurrency=1, jitter=random.Random(0)).run(send)
    assert fake_time.sleeps == [10, 10]


def test_a_stopped_runner_does_not_wait_for_a_cold_model() -> None:
    fake_time = FakeTime()
    runner = RequestRunner(retry_policy(fake_time), concurrency=1, jitter=random.Random(0))

    def stop_and_be_cold() -> str:
        runner.stop()
        raise COLD

    with pytest.raises(CancelledError):
        runner.run(stop_and_be_cold)
    assert fake_time.sleeps == []


def test_the_default_policy() -> None:
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.backoff_base_s, policy.backoff_limit_s) == (10, 0.5, 30)
    assert (policy.cold_start_budget_s, policy.cold_start_interval_s, policy.seed) == (900, 10, None)
    assert (policy.sleep, policy.clock) == (time.sleep, time.monotonic)
    with pytest.raises(ConfigError):
        RetryPolicy(3)  # type: ignore[misc] - options are keywords


@pytest.mark.parametrize(
    ("error", "limit"), [(THROTTLED, 4.25), (refusal("ModelTimeoutException"), 8)], ids=["throttled", "timeout"]
)
def test_only_throttling_lowers_the_limit(error: Exception, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_time, script, concurrency = FakeTime(), iter([error, None]), AdaptiveConcurrency(8)
    monkeypatch.setattr("sqlquarry.models.retries.AdaptiveConcurrency", {8: concurrency}.__getitem__)

    def send() -> str:
        if (raised := next(script)) is not None:
            raise raised
        return "answer"

    policy = retry_policy(fake_time, cold_start_budget_s=60, cold_start_interval_s=10, max_attempts=3)
    runner = RequestRunner(policy, concurrency=8, jitter=random.Random(0))
    assert runner.run(send) == "answer"
    assert concurrency.limit == limit
    assert len(fake_time.sleeps) == 1
