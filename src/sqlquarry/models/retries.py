"""Two waits for a model: minutes while it wakes up (once for all threads), seconds and fewer requests when throttled.

Models scale to zero after five idle minutes; waking takes from half a minute to several, while botocore's own retries
of ModelNotReadyException end after seconds.
Source: "Invoke your imported model", docs.aws.amazon.com/bedrock/latest/userguide/invoke-imported-model.html
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TypeVar

from sqlquarry.aws.failures import error_code
from sqlquarry.errors import ModelNotReadyError
from sqlquarry.models.concurrency import InFlight
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
Answer = TypeVar("Answer")

_THROTTLED = ("ThrottlingException", "ServiceUnavailableException")
# ModelTimeoutException (408) and InternalServerException are gone on the next try; botocore never retries the first.
# Nor does it retry what breaks in the middle of an answer (ResponseStreamingError).
_TRANSIENT = (
    *(*_THROTTLED, "ModelTimeoutException", "InternalServerException"),
    *("ConnectionClosedError", "ResponseStreamingError"),
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what.

    Args:
        not_ready_budget_s: seconds for a cold model to wake up.
        not_ready_interval_s: seconds between two tries meanwhile.
        throttle_attempts: tries of one request that is throttled, or whose connection breaks.
        throttle_base_s: mean wait after the first try, doubled after each.
        throttle_limit_s: longest such wait.
    """

    not_ready_budget_s: float
    not_ready_interval_s: float
    throttle_attempts: int
    throttle_base_s: float = 0.5
    throttle_limit_s: float = 30.0


class Waiter:
    """Runs the requests of one batch, from any number of threads, and waits where the service asks to.

    While the model is cold, the thread that saw it first tries again every `not_ready_interval_s`; the others stand
    still. While the service throttles, fewer requests fly (see `InFlight`).
    """

    def __init__(
        self,
        patience: Patience,
        *,
        concurrency: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
        jitter: random.Random,
    ) -> None:
        self._patience, self._sleep, self._clock, self._jitter = patience, sleep, clock, jitter
        self._in_flight = InFlight(concurrency)
        self._waiting = threading.Lock()  # held by the thread that waits for a cold model
        self._wake_ups = 0
        self._cold_since: float | None = None
        self._over: BaseException | None = None

    def stop(self) -> None:
        """Let no further request start."""
        self._over = self._over or CancelledError()
        self._in_flight.close()

    def run(self, send: Callable[[], Answer]) -> Answer:
        """The answer of `send`, after as many tries as it takes.

        Raises:
            ModelNotReadyError: the model stayed cold for the whole budget.
            botocore.exceptions.BotoCoreError, ClientError: anything else that fails, or throttling without end.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        attempt = 0
        while True:
            try:
                with self._in_flight.slot() as started:
                    answer = self._run_warm(send)
            except (BotoCoreError, ClientError) as error:
                attempt += 1
                if error_code(error) in _THROTTLED:
                    self._in_flight.throttled(started)
                if error_code(error) not in _TRANSIENT or attempt >= self._patience.throttle_attempts:
                    raise
            else:
                self._in_flight.answered()
                return answer
            ceiling = min(self._patience.throttle_limit_s, 2 * self._patience.throttle_base_s * 2 ** (attempt - 1))
            # "Full jitter": AWS Architecture Blog, "Exponential Backoff And Jitter", 2015.
            self._sleep(self._jitter.uniform(0, ceiling))

    def _run_warm(self, send: Callable[[], Answer]) -> Answer:
        from botocore.exceptions import ClientError

        while True:
            with self._waiting:
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
            with self._waiting:
                self._raise_if_over()
                # Another thread may have waited for the model while this one stood at the lock.
                if self._wake_ups == wake_ups:
                    return self._wait_until_ready(send)

    def _wait_until_ready(self, send: Callable[[], Answer]) -> Answer:
        from botocore.exceptions import ClientError

        # A wait that another thread had to give up goes on with its budget.
        since = self._cold_since if self._cold_since is not None else self._clock()
        if self._cold_since is None:
            self._cold_since = since
            logger.info("the model is cold; waiting up to %.0f s for it", self._patience.not_ready_budget_s)
        while True:
            waited = self._clock() - since
            if waited >= self._patience.not_ready_budget_s:
                self._over = ModelNotReadyError(
                    f"the model is still not ready after {waited:.0f} s. Large models can take longer: raise "
                    "not_ready_budget_s, or look at the model in the Bedrock console."
                )
                raise self._over
            self._sleep(self._patience.not_ready_interval_s)
            self._raise_if_over()
            try:
                answer = send()
            except ClientError as error:
                if error_code(error) != "ModelNotReadyException":
                    raise
            else:
                logger.info("the model is ready after %.0f s", self._clock() - since)
                self._cold_since = None
                self._wake_ups += 1
                return answer

    def _raise_if_over(self) -> None:
        if self._over is not None:
            raise self._over
