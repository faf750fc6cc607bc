"""Retry requests: one thread waits for a cold model on behalf of all, and throttled requests back off.

Models scale to zero after five idle minutes. Waking one takes from half a minute to several minutes, but botocore stops
retrying ModelNotReadyException after a few seconds.
Source: "Invoke your imported model", docs.aws.amazon.com/bedrock/latest/userguide/invoke-imported-model.html
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TypeVar

from sqlquarry.aws.failures import error_code
from sqlquarry.errors import ConfigError, ModelNotReadyError
from sqlquarry.inputs import option_problems
from sqlquarry.models.concurrency import AdaptiveConcurrency
from sqlquarry.options import check_options
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
Answer = TypeVar("Answer")

_THROTTLED = ("ThrottlingException", "ServiceUnavailableException")
# ModelTimeoutException (408) and InternalServerException usually do not recur. botocore never retries a
# ModelTimeoutException, nor an answer whose connection breaks in the middle (ResponseStreamingError).
_TRANSIENT = (
    *(*_THROTTLED, "ModelTimeoutException", "InternalServerException"),
    *("ConnectionClosedError", "ResponseStreamingError"),
)


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Options that determine how often and for how long a request is sent again.

    Args:
        max_attempts: maximum number of times that one request is sent if it is throttled, the model times out, the
            service has an internal error, or the connection breaks.
        backoff_base_s: mean wait after the first attempt, in seconds. It doubles after each further attempt.
        backoff_limit_s: longest of these waits, in seconds.
        cold_start_budget_s: how long to wait for a cold model, in seconds.
        cold_start_interval_s: time between two attempts while the model is cold, in seconds.
        seed: seed of the random part of the waits.
        sleep: function that waits for a number of seconds. Tests replace it.
        clock: monotonic clock in seconds. Tests replace it.

    Raises:
        ConfigError: an option has the wrong type or is out of range.
    """

    max_attempts: int = 10
    backoff_base_s: float = 0.5
    backoff_limit_s: float = 30.0
    cold_start_budget_s: float = 900.0
    cold_start_interval_s: float = 10.0
    seed: int | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        durations = ("backoff_base_s", "backoff_limit_s", "cold_start_budget_s", "cold_start_interval_s")
        bad = option_problems({"max_attempts": self.max_attempts}, {name: getattr(self, name) for name in durations})
        if bad:
            raise ConfigError("RetryPolicy: " + "; ".join(bad))


DEFAULT_RETRY = RetryPolicy()


class RequestRunner:
    """Retries for the requests of one batch, which may come from any number of threads.

    While the model is cold, the thread that noticed it first tries again every `cold_start_interval_s`, and the other
    threads wait for that thread. While the service throttles, fewer requests are in flight (see `AdaptiveConcurrency`).

    Args:
        policy: how often and for how long requests are sent again.
        concurrency: maximum number of requests in flight.
        jitter: random generator for the waits.
    """

    def __init__(self, policy: RetryPolicy, *, concurrency: int, jitter: random.Random) -> None:
        self._policy, self._jitter = policy, jitter
        self._concurrency = AdaptiveConcurrency(concurrency)
        self._cold_lock = threading.Lock()  # The thread that waits for a cold model holds it.
        self._wake_ups = 0
        self._cold_since: float | None = None
        self._over: BaseException | None = None

    def stop(self) -> None:
        """Stop new requests from starting."""
        self._over = self._over or CancelledError()
        self._concurrency.close()

    def run(self, send: Callable[[], Answer]) -> Answer:
        """Call `send`, retry as the policy allows, and return the answer.

        Raises:
            ModelNotReadyError: the model was still cold when the cold start budget ran out.
            botocore.exceptions.BotoCoreError, ClientError: the request failed for another reason, or was still
                throttled at the last attempt.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        attempt = 0
        while True:
            try:
                with self._concurrency.slot() as started:
                    answer = self._run_warm(send)
            except (BotoCoreError, ClientError) as error:
                attempt += 1
                if error_code(error) in _THROTTLED:
                    self._concurrency.throttled(started)
                if error_code(error) not in _TRANSIENT or attempt >= self._policy.max_attempts:
                    raise
            else:
                self._concurrency.answered()
                return answer
            ceiling = min(self._policy.backoff_limit_s, 2 * self._policy.backoff_base_s * 2 ** (attempt - 1))
            # "Full jitter": AWS Architecture Blog, "Exponential Backoff And Jitter", 2015.
            self._policy.sleep(self._jitter.uniform(0, ceiling))

    def _run_warm(self, send: Callable[[], Answer]) -> Answer:
        from botocore.exceptions import ClientError

        while True:
            with self._cold_lock:
                self._raise_if_over()
                wake_ups = self._wake_ups
            try:
                answer = send()
            except ClientError as error:
                if error_code(error) != "ModelNotReadyException":
                    raise
            else:
                self._cold_since = None
                return answer
            with self._cold_lock:
                self._raise_if_over()
                # Another thread may have woken the model while this one waited for the lock.
                if self._wake_ups == wake_ups:
                    return self._wait_until_ready(send)

    def _wait_until_ready(self, send: Callable[[], Answer]) -> Answer:
        from botocore.exceptions import ClientError

        # If another thread had to give up waiting, this wait continues with the rest of its budget.
        since = self._cold_since if self._cold_since is not None else self._policy.clock()
        if self._cold_since is None:
            self._cold_since = since
            logger.info("the model is cold, waiting up to %.0f s for it", self._policy.cold_start_budget_s)
        while True:
            waited = self._policy.clock() - since
            if waited >= self._policy.cold_start_budget_s:
                self._over = ModelNotReadyError(
                    f"the model is still not ready after {waited:.0f} s. Large models can take longer, so raise "
                    "cold_start_budget_s in the RetryPolicy, or check the model in the Bedrock console."
                )
                raise self._over
            self._policy.sleep(self._policy.cold_start_interval_s)
            self._raise_if_over()
            try:
                answer = send()
            except ClientError as error:
                if error_code(error) != "ModelNotReadyException":
                    raise
            else:
                logger.info("the model is ready after %.0f s", self._policy.clock() - since)
                self._cold_since = None
                self._wake_ups += 1
                return answer

    def _raise_if_over(self) -> None:
        if self._over is not None:
            raise self._over
