"""Send many requests to one model: in order, several at a time, and no answer is lost to another request's error."""

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
    """Sends batches of requests to one model, each through a new `RequestRunner`.

    Args:
        model_id: what the service calls the model; for errors.
        label: what people call it; for the progress bar.
        retry: how often and for how long requests are sent again.
        concurrency: requests in flight at most.
        show_progress: show how far it is (see `sqlquarry.progress.bar`).
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
        """Return the answer of one call to AWS.

        Raises:
            ModelNotReadyError: the model stayed cold for the whole budget.
            BedrockError: AWS refused.
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
        """Return the answers of `ask` to each request, in order; requests that `resume` answers are not sent again.

        Raises:
            ConfigError: `resume` is of another batch.
            BedrockError: a request failed for good; its attribute ``partial`` holds the answers so far, None for each
                missing one.
        """
        if resume and len(resume) != len(requests):
            raise ConfigError(
                f"resume holds {len(resume)} answers, but there are {len(requests)} inputs. Give the same."
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
            # After an error or Ctrl-C no thread keeps waiting for a cold model.
            runner.stop()
        return [answer for answer in answers if answer is not None]


def warn_of_truncation(stop_reasons: Sequence[str | None], max_tokens: int) -> None:
    """Warn once for a batch in which answers were cut, on the line that asked."""
    cut = sum(reason == "length" for reason in stop_reasons)
    if cut:
        warnings.warn(
            f"{cut} of {len(stop_reasons)} answers were cut at {max_tokens} tokens, which mostly breaks "
            "their SQL. Raise max_tokens, or check that the model learned to stop.",
            stacklevel=3,
        )
