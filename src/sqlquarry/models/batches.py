"""Many requests to one model: in order, so many at a time, patient, and no answer lost to another one's error."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlquarry.artifacts import Generation
from sqlquarry.aws.failures import bedrock_error
from sqlquarry.aws.parallel import parallel
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.models.retries import Patience, Waiter
from sqlquarry.progress.bar import ProgressBar

Answer = TypeVar("Answer")


class Batches:
    """How one model is asked: patience, concurrency, time and progress; a new `Waiter` for each batch.

    Args:
        model_id: what the service calls the model; for errors.
        label: what people call it; for the progress bar.
        patience: how long to wait for what.
        concurrency: requests in flight.
        sleep, clock, seed: waiting, time and the jitter of waits.
        show_progress: show how far it is (see `sqlquarry.progress.bar`).
    """

    def __init__(
        self,
        model_id: str,
        label: str,
        patience: Patience,
        *,
        concurrency: int = 8,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
        show_progress: bool = True,
    ) -> None:
        self.model_id, self.label, self.patience, self.concurrency = model_id, label, patience, concurrency
        self.sleep, self.clock, self.show_progress = sleep, clock, show_progress
        self._jitter = random.Random(seed)  # noqa: S311 - spreads retries, protects nothing

    def waiter(self) -> Waiter:
        """A new one, for one batch."""
        return Waiter(
            self.patience, concurrency=self.concurrency, sleep=self.sleep, clock=self.clock, jitter=self._jitter
        )

    def send(self, waiter: Waiter, call: Callable[[], Answer]) -> Answer:
        """The answer of one call to AWS.

        Raises:
            ModelNotReadyError: the model stayed cold for the whole budget.
            BedrockError: AWS refused.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return waiter.run(call)
        except (BotoCoreError, ClientError) as error:
            raise bedrock_error(error, f"invoking {self.model_id}") from error

    def run(
        self,
        waiter: Waiter,
        ask: Callable[[Any], Generation],
        requests: Sequence[Any],
        resume: Sequence[Generation | None] = (),
    ) -> list[Generation]:
        """The answers of `ask` to each request, in order; those that `resume` holds are not asked again.

        Raises:
            ConfigError: `resume` is of another batch.
            BedrockError: a request failed for good; its attribute ``partial`` holds the answers so far, None where
                there is none.
        """
        if resume and len(resume) != len(requests):
            raise ConfigError(
                f"resume holds {len(resume)} answers, but there are {len(requests)} inputs. Give the same."
            )
        answers = list(resume) or [None] * len(requests)
        places = [place for place, answer in enumerate(answers) if answer is None]
        try:
            name = f"generate with {self.label}"
            with ProgressBar(name, len(requests), show=self.show_progress, brief=True) as bar:
                bar.resume(len(requests) - len(places))
                for turn, answer in parallel(ask, [requests[place] for place in places], self.concurrency):
                    answers[places[turn]] = answer
                    bar.advance()
        except BedrockError as error:
            error.partial = tuple(answers)
            raise
        finally:
            # After an error or Ctrl-C no thread goes on waiting for a cold model.
            waiter.stop()
        return [answer for answer in answers if answer is not None]


def warn_of_truncation(stop_reasons: Sequence[str | None], max_tokens: int) -> None:
    """One warning for a batch in which answers were cut, on the line that asked."""
    cut = sum(reason == "length" for reason in stop_reasons)
    if cut:
        warnings.warn(
            f"{cut} of {len(stop_reasons)} answers were cut at {max_tokens} tokens, which mostly breaks "
            "their SQL. Raise max_tokens, or check that the model learned to stop.",
            stacklevel=3,
        )
