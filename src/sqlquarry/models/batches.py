"""Send a batch of requests to one model, several at a time, and keep the answers if one request fails."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlquarry.answers import Generation
from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.parallel import parallel
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.models.retries import RequestRunner, RetryPolicy
from sqlquarry.progress.bar import ProgressBar

Answer = TypeVar("Answer")
Request = TypeVar("Request")


class BatchSender:
    """A sender of request batches to one model. Each batch has its own `RequestRunner`.

    Args:
        model_id: the service's name of the model, for error messages.
        label: a readable name of the model, for the progress bar.
        retry: how often and for how long requests are sent again.
        concurrency: maximum number of requests in flight.
        show_progress: show a progress bar (see `sqlquarry.progress.bar`).
    """

    def __init__(
        self, model_id: str, label: str, retry: RetryPolicy, *, concurrency: int = 8, show_progress: bool = True
    ) -> None:
        self.model_id, self.label, self.retry = model_id, label, retry
        self.concurrency, self.show_progress = concurrency, show_progress
        self._jitter = random.Random(retry.seed)  # noqa: S311 - spreads retries, protects nothing

    def runner(self) -> RequestRunner:
        """Return a runner for one batch."""
        return RequestRunner(self.retry, concurrency=self.concurrency, jitter=self._jitter)

    def send(self, runner: RequestRunner, call: Callable[[], Answer]) -> Answer:
        """Make one call to AWS and return the answer.

        Raises:
            ModelNotReadyError: the model was still cold when the cold start budget ran out.
            BedrockError: AWS refused the request.
        """
        with aws_errors(BedrockError, f"invoking {self.model_id}", service="bedrock"):
            return runner.run(call)

    def run(
        self,
        runner: RequestRunner,
        ask: Callable[[Request], Generation],
        requests: Sequence[Request],
        resume: Sequence[Generation | None] = (),
    ) -> list[Generation]:
        """Call `ask` for each request and return the answers in order. Skip requests that `resume` already answers.

        Raises:
            ConfigError: `resume` and `requests` differ in length.
            BedrockError: a request failed after all retries. The attribute ``partial`` contains the answers so far,
                with None for each missing one.
        """
        if resume and len(resume) != len(requests):
            raise ConfigError(
                f"resume has {len(resume)} answers, but there are {len(requests)} inputs. Repeat the failed call "
                "with the same inputs."
            )
        answers = list(resume) or [None] * len(requests)
        missing = [index for index, answer in enumerate(answers) if answer is None]
        try:
            name = f"generate with {self.label}"
            with ProgressBar(name, len(requests), show=self.show_progress, brief=True) as bar:
                bar.resume(len(requests) - len(missing))
                for turn, answer in parallel(ask, [requests[index] for index in missing], self.concurrency):
                    answers[missing[turn]] = answer
                    bar.advance()
        except BedrockError as error:
            error.partial = tuple(answers)
            raise
        finally:
            # Otherwise threads would keep waiting for a cold model after an error or Ctrl-C.
            runner.stop()
        return [answer for answer in answers if answer is not None]


def warn_of_truncation(stop_reasons: Sequence[str | None], max_tokens: int) -> None:
    """Warn once per batch if answers were cut off at `max_tokens`. The warning points at the caller's line."""
    cut = sum(reason == "length" for reason in stop_reasons)
    if cut:
        warnings.warn(
            f"{cut} of {len(stop_reasons)} answers were cut at {max_tokens} tokens, so their SQL is probably "
            "incomplete. Raise max_tokens, or check that the model has learned to stop.",
            stacklevel=3,
        )
