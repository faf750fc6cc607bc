"""A cold model: other errors end the wait, stop() releases waiting threads, and one wake-up is enough for all."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest
from botocore.exceptions import ClientError

from bedrock_runtime_fakes import FakeTime, refusal, retry_policy
from sqlquarry.models.retries import RequestRunner

COLD = refusal("ModelNotReadyException")


def runner(time: FakeTime, *, concurrency: int) -> RequestRunner:
    policy = retry_policy(time, cold_start_budget_s=60, cold_start_interval_s=10, max_attempts=3)
    return RequestRunner(policy, concurrency=concurrency, jitter=random.Random(0))


def in_thread(requests: RequestRunner, send: Callable[[], str], results: list[object]) -> threading.Thread:
    """Start a thread that appends its answer or its error to `results`."""

    def run() -> None:
        try:
            results.append(requests.run(send))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_another_error_during_a_cold_wait_is_raised() -> None:
    time, script = FakeTime(), iter([COLD, COLD, refusal("ModelErrorException")])

    def send() -> str:
        raise next(script)

    with pytest.raises(ClientError) as caught:
        runner(time, concurrency=1).run(send)
    assert caught.value.response["Error"]["Code"] == "ModelErrorException"
    assert time.sleeps == [10, 10]


def test_stop_releases_threads_that_wait_for_a_slot() -> None:
    requests, results = runner(FakeTime(), concurrency=1), list[object]()
    sending, release = threading.Event(), threading.Event()

    def send_slowly() -> str:
        sending.set()
        assert release.wait(10)
        return "answer"

    def must_not_send() -> str:
        raise AssertionError

    first = in_thread(requests, send_slowly, results)
    assert sending.wait(10)
    second = in_thread(requests, must_not_send, results)
    second.join(0.05)
    assert second.is_alive()
    requests.stop()
    second.join(10)
    assert [type(result) for result in results] == [CancelledError]
    release.set()
    first.join(10)
    assert results[1:] == ["answer"]


def test_threads_that_saw_the_cold_model_do_not_sleep_again_after_its_wake_up() -> None:
    time, results = FakeTime(), list[object]()
    requests, together, sent = runner(time, concurrency=2), threading.Barrier(2), list[int]()

    def send() -> str:
        sent.append(1)
        if len(sent) <= 2:
            together.wait(10)  # both requests are sent before either gets its answer
            raise COLD
        return "awake"

    for thread in [in_thread(requests, send, results) for _ in range(2)]:
        thread.join(10)
    assert results == ["awake", "awake"]
    assert time.sleeps == [10]
    assert len(sent) == 4
