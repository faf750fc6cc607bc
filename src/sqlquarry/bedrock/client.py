"""The imported model: records in, SQL out, with the prompt it was trained with."""

from __future__ import annotations

import functools
import json
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from rich.progress import MofNCompleteColumn

from sqlquarry.artifacts import Generation, Record
from sqlquarry.bedrock._aws import aws_client
from sqlquarry.bedrock._parallel import parallel
from sqlquarry.bedrock._progress import progress
from sqlquarry.bedrock.failures import explained
from sqlquarry.bedrock.responses import parse_answer, parse_chunk
from sqlquarry.bedrock.waiting import Patience, Waiter
from sqlquarry.errors import ConfigError
from sqlquarry.prompt import PromptFormatter

_ARN = re.compile(r"arn:aws(?:-[^:]+)?:bedrock:([a-z0-9-]{1,20}):[0-9]{12}:imported-model/[a-z0-9]{12}")
_READ_TIMEOUT_S = 300  # botocore's 60 s end before a busy model has answered


class ImportedModel:
    """A model on Amazon Bedrock that answers records; a `TextGenerator`.

    Args:
        arn: ``arn:aws:bedrock:<region>:<account>:imported-model/<id>``; its region is used for all calls.
        formatter: the prompt that it was trained with, bound (`PromptFormatter.load` on the merged model's directory).
        name: the imported model's name, for people.
        session: a boto3 session; None uses the default credentials.
        endpoint_url: another address for all AWS calls.
        max_tokens: longest answer, in tokens.
        request_schema: the key that limits the answer, which also chooses the answer's shape for models imported since
            2025-11-11; all shapes are read.
        concurrency: requests in flight.
        not_ready_budget_s: seconds to wait for a cold model.
        not_ready_interval_s: seconds between two tries meanwhile.
        throttle_attempts: tries of one request that is throttled, with growing waits of up to 30 s between them.
        sleep, clock, seed: waiting, time and the jitter of waits; injected by tests.
        show_progress: draw a progress bar where stderr is a terminal.

    Raises:
        ConfigError: the ARN is none, the formatter is not bound, or an option is out of range.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(
        self,
        arn: str,
        formatter: PromptFormatter,
        *,
        name: str | None = None,
        session: Any = None,
        endpoint_url: str | None = None,
        max_tokens: int = 512,
        request_schema: Literal["max_tokens", "max_gen_len"] = "max_tokens",
        concurrency: int = 8,
        not_ready_budget_s: float = 900.0,
        not_ready_interval_s: float = 10.0,
        throttle_attempts: int = 10,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
        show_progress: bool = True,
    ) -> None:
        match = _ARN.fullmatch(arn)
        bad = [] if match else [f"arn {arn!r} is not that of an imported model"]
        if formatter.tokens is None:
            bad.append("formatter is not bound to a base model; use PromptFormatter.load(merged.path)")
        if request_schema not in ("max_tokens", "max_gen_len"):
            bad.append(f"request_schema is {request_schema!r}, but must be 'max_tokens' or 'max_gen_len'")
        counts = {"max_tokens": max_tokens, "concurrency": concurrency, "throttle_attempts": throttle_attempts}
        bad += [f"{option} is {value}, but must be at least 1" for option, value in counts.items() if value < 1]
        times = {"not_ready_budget_s": not_ready_budget_s, "not_ready_interval_s": not_ready_interval_s}
        bad += [f"{option} is {value}, but must not be negative" for option, value in times.items() if value < 0]
        if match is None or bad:
            raise ConfigError("ImportedModel: " + "; ".join(bad))
        self.arn, self.formatter, self.name = arn, formatter, name or arn.rsplit("/", 1)[-1]
        self._options: dict[str, Any] = {
            "name": name,
            "session": session,
            "endpoint_url": endpoint_url,
            "max_tokens": max_tokens,
            "request_schema": request_schema,
            "concurrency": concurrency,
            "not_ready_budget_s": not_ready_budget_s,
            "not_ready_interval_s": not_ready_interval_s,
            "throttle_attempts": throttle_attempts,
            "sleep": sleep,
            "clock": clock,
            "seed": seed,
            "show_progress": show_progress,
        }
        self._max_tokens, self._request_schema, self._concurrency = max_tokens, request_schema, concurrency
        self._patience = Patience(not_ready_budget_s, not_ready_interval_s, throttle_attempts)
        self._sleep, self._clock, self._show_progress = sleep, clock, show_progress
        self._jitter = random.Random(seed)  # noqa: S311 - spreads retries, protects nothing
        self._client = functools.partial(aws_client, session=session, endpoint_url=endpoint_url, region=match.group(1))
        self._runtime = self._client("bedrock-runtime", read_timeout=_READ_TIMEOUT_S, max_pool_connections=concurrency)

    def __repr__(self) -> str:
        return f"ImportedModel({self.arn!r}, name={self.name!r})"

    def with_options(self, **options: Any) -> ImportedModel:
        """The same model asked another way; `options` are those of the constructor, such as `max_tokens`.

        Raises:
            ConfigError: an option is out of range.
        """
        return ImportedModel(self.arn, self.formatter, **(self._options | options))

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        """Answer each input, in order; records are rendered with the formatter, strings are sent as they are.

        Waits for a cold model, and slows down where the service throttles. Answers that were cut at `max_tokens` have
        stop reason "length" and raise one warning.

        Raises:
            ConfigError: one record or prompt was given, not a list.
            ModelNotReadyError: the model stayed cold for the whole budget.
            GenerationError: an answer of unknown shape.
            BedrockError: AWS refused a request.
        """
        if isinstance(inputs, str | Record):  # a text is a sequence too, of letters
            raise ConfigError(f"generate takes a list of records or prompts, but got {inputs!r:.60}. Put it in a list.")
        bodies = [self._body(item) for item in inputs]
        answers: dict[int, Generation] = {}
        waiter = self._waiter()
        try:
            with progress(MofNCompleteColumn(), show=self._show_progress) as bar:
                task = bar.add_task(f"generate with {self.name}", total=len(bodies))
                answer = functools.partial(self._answer, waiter)
                for place, generation in parallel(answer, bodies, self._concurrency):
                    answers[place] = generation
                    bar.advance(task)
        finally:
            # After an error or Ctrl-C no thread goes on waiting for a cold model.
            waiter.stop()
        in_order = [answers[place] for place in range(len(bodies))]
        self._warn_of_truncation([generation.stop_reason for generation in in_order])
        return in_order

    def stream(self, prompt: Record | str, /) -> Iterator[str]:
        """The answer to one input, piece by piece as it is written.

        Raises:
            ModelNotReadyError, GenerationError, BedrockError: as `generate`.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        send = functools.partial(
            self._runtime.invoke_model_with_response_stream, modelId=self.arn, body=self._body(prompt)
        )
        stop_reason = None
        try:
            events = self._waiter().run(send)["body"]
            try:
                for event in events:
                    if "chunk" in event:
                        text, reason = parse_chunk(event["chunk"]["bytes"])
                        stop_reason = reason or stop_reason
                        if text:
                            yield text
            finally:
                events.close()
        # botocore passes on what breaks in the middle of a stream as it is.
        except (BotoCoreError, ClientError, HTTPError) as error:
            raise explained(error, f"invoking {self.arn}") from error
        self._warn_of_truncation([stop_reason])

    def delete(self) -> None:
        """Delete the imported model; its files on S3 stay.

        Raises:
            BedrockError: AWS refused.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client("bedrock").delete_imported_model(modelIdentifier=self.arn)
        except (BotoCoreError, ClientError) as error:
            raise explained(error, f"deleting {self.arn}") from error

    def _waiter(self) -> Waiter:
        return Waiter(self._patience, sleep=self._sleep, clock=self._clock, jitter=self._jitter)

    def _body(self, item: Record | str) -> str:
        prompt = self.formatter.prompt(item) if isinstance(item, Record) else item
        return json.dumps({"prompt": prompt, self._request_schema: self._max_tokens, "temperature": 0})

    def _answer(self, waiter: Waiter, body: str) -> Generation:
        from botocore.exceptions import BotoCoreError, ClientError

        def invoke() -> bytes:
            body_stream = self._runtime.invoke_model(modelId=self.arn, body=body)["body"]
            content: bytes = body_stream.read()
            return content

        started = self._clock()
        try:
            answer = waiter.run(invoke)
        except (BotoCoreError, ClientError) as error:
            raise explained(error, f"invoking {self.arn}") from error
        return parse_answer(answer, self._clock() - started)

    def _warn_of_truncation(self, stop_reasons: Sequence[str | None]) -> None:
        cut = sum(reason == "length" for reason in stop_reasons)
        if cut:
            warnings.warn(
                f"{cut} of {len(stop_reasons)} answers were cut at {self._max_tokens} tokens, which mostly breaks "
                "their SQL. Raise max_tokens, or check that the model learned to stop.",
                stacklevel=3,
            )
