"""The imported model: records in, SQL out, with the prompt it was trained with."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from sqlquarry.artifacts import Generation, Record
from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import bedrock_error
from sqlquarry.errors import ConfigError, GenerationError
from sqlquarry.inputs import check_inputs, option_problems
from sqlquarry.models.batches import Batches, warn_of_truncation
from sqlquarry.models.imported.calls import Calls, pieces
from sqlquarry.models.imported.cost import Meter, PriceTable, Usage
from sqlquarry.models.imported.options import AskingOptions, refuse_unknown
from sqlquarry.models.imported.requests import RequestFormat, Schema
from sqlquarry.models.responses import Piece
from sqlquarry.models.retries import Patience, Waiter
from sqlquarry.options import check_options
from sqlquarry.prompt import PromptFormatter
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
_ARN = re.compile(r"arn:aws(?:-[^:]+)?:bedrock:([a-z0-9-]{1,20}):[0-9]{12}:imported-model/[a-z0-9]{12}")
_READ_TIMEOUT_S = 300  # botocore's 60 s end before a busy model has answered


@check_options()
class ImportedModel:
    """A model on Amazon Bedrock that answers records; a `TextGenerator`.

    Args:
        arn: ``arn:aws:bedrock:<region>:<account>:imported-model/<id>``; its region is used for all calls.
        formatter: the prompt that it was trained with, bound (`PromptFormatter.load` on the merged model's directory);
            None where only texts are asked.
        name: the imported model's name, for people.
        session: a boto3 session; None uses the default credentials.
        endpoint_url: another address for all AWS calls.
        max_tokens: longest answer, in tokens.
        request_schema: "max_tokens" or "max_gen_len" send the rendered prompt, "messages" lets the server render it;
            for models imported since 2025-11-11 it also chooses the answer's shape. All shapes are read. "converse"
            asks through Converse, and as "messages" where the model does not support that.
        stop: texts that end an answer.
        logprobs: ask for the log-probability of each written token (`Generation.logprobs`).
        structured: constrains the answer: ``{"json": schema}``, ``{"regex": …}``, ``{"choice": […]}`` or
            ``{"grammar": …}``.
        prices: what `usage` reckons with.
        concurrency: requests in flight at most; fewer while the service throttles.
        not_ready_budget_s: seconds to wait for a cold model.
        not_ready_interval_s: seconds between two tries meanwhile.
        throttle_attempts: tries of one request that is throttled, or whose connection breaks, with growing waits of up
            to 30 s between them.
        sleep, clock, seed: waiting, time and the jitter of waits; injected by tests.
        show_progress: show how far it is (see `sqlquarry.progress.bar`).

    Raises:
        ConfigError: the ARN is none, the formatter is not bound, or an option is out of range or not offered.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(
        self,
        arn: str,
        formatter: PromptFormatter | None,
        *,
        name: str | None = None,
        session: Any = None,
        endpoint_url: str | None = None,
        max_tokens: int = 512,
        request_schema: Schema = "max_tokens",
        stop: Sequence[str] = (),
        logprobs: bool = False,
        structured: Mapping[str, Any] | None = None,
        prices: PriceTable | None = None,
        concurrency: int = 8,
        not_ready_budget_s: float = 900.0,
        not_ready_interval_s: float = 10.0,
        throttle_attempts: int = 10,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
        show_progress: bool = True,
    ) -> None:
        # Before any other local name exists: the keywords that `with_options` can replace.
        options = {key: value for key, value in locals().items() if key not in ("self", "arn", "formatter")}
        match = _ARN.fullmatch(arn)
        self._format = RequestFormat(formatter, request_schema, max_tokens, stop, logprobs, structured)
        bad = [] if match else [f"arn {arn!r} is not that of an imported model"]
        bad += self._format.problems()
        bad += option_problems(
            {"concurrency": concurrency, "throttle_attempts": throttle_attempts},
            {"not_ready_budget_s": not_ready_budget_s, "not_ready_interval_s": not_ready_interval_s},
        )
        if match is None or bad:
            raise ConfigError("ImportedModel: " + "; ".join(bad))
        self.arn, self.formatter, self.name = arn, formatter, name or arn.rsplit("/", 1)[-1]
        self._options, self._region, self._prices = options, match.group(1), prices or PriceTable()
        self._batches = Batches(
            arn,
            self.name,
            Patience(not_ready_budget_s, not_ready_interval_s, throttle_attempts),
            concurrency=concurrency,
            sleep=sleep,
            clock=clock,
            seed=seed,
            show_progress=show_progress,
        )
        self._meter = Meter(clock)
        self._units: int | None = None
        self._client = functools.partial(aws_client, session=session, endpoint_url=endpoint_url, region=self._region)
        runtime = self._client("bedrock-runtime", read_timeout_s=_READ_TIMEOUT_S, max_pool_connections=concurrency)
        self._calls = Calls(arn, runtime, self._describe, converse=request_schema == "converse")

    def __repr__(self) -> str:
        return f"ImportedModel({self.arn!r}, name={self.name!r})"

    def with_options(self, **options: Unpack[AskingOptions]) -> ImportedModel:
        """The same model asked another way; `options` are those of the constructor, such as `max_tokens`.

        Both count into one `usage`.

        Raises:
            ConfigError: there is no such option, or one is out of range.
        """
        refuse_unknown(options, "ImportedModel")
        other = ImportedModel(self.arn, self.formatter, **{**self._options, **options})
        other._meter = self._meter
        return other

    def generate(
        self, inputs: Sequence[Record] | Sequence[str], /, *, resume: Sequence[Generation | None] = ()
    ) -> list[Generation]:
        """Answer each input, in order; records are rendered with the formatter, strings are sent as they are.

        Waits for a cold model, and slows down where the service throttles. Answers that were cut at `max_tokens` have
        stop reason "length" and raise one warning.

        Args:
            inputs: what to ask.
            resume: the attribute ``partial`` of the error that ended the same call before; what it holds is kept.

        Raises:
            ConfigError: one record or prompt was given, not a list; or records, and there is no formatter.
            ModelNotReadyError: the model stayed cold for the whole budget.
            GenerationError: an answer of unknown shape, or without text.
            BedrockError: AWS refused a request. All three have ``partial``: the answers so far, None where missing.
        """
        answers = self._generate(self._batches.waiter(), inputs, resume)
        warn_of_truncation([answer.stop_reason for answer in answers], self._format.max_tokens)
        return answers

    async def agenerate(
        self, inputs: Sequence[Record] | Sequence[str], /, *, resume: Sequence[Generation | None] = ()
    ) -> list[Generation]:
        """As `generate`, in a thread beside the event loop; once it is cancelled, no further request begins.

        Raises:
            SQLQuarryError: as `generate`.
        """
        waiter = self._batches.waiter()
        try:
            answers = await asyncio.to_thread(self._generate, waiter, inputs, resume)
        finally:
            waiter.stop()
        warn_of_truncation([answer.stop_reason for answer in answers], self._format.max_tokens)
        return answers

    def stream(self, prompt: Record | str, /) -> Iterator[str]:
        """The answer to one input, piece by piece as it is written.

        Raises:
            ModelNotReadyError, GenerationError, BedrockError: as `generate`.
        """
        seen = Piece()  # the last of everything that a piece said
        for piece in self._pieces(self._format.body(prompt)):
            seen = piece.over(seen)
            if piece.text:
                yield piece.text
        self._meter.count(seen.prompt_tokens, seen.completion_tokens)
        if seen.text is None:
            raise GenerationError(f"{self.arn} streamed an answer without any text. Ask again; else please report it.")
        if seen.stop_reason is None:
            warnings.warn("the stream ended without a stop reason; the answer may be incomplete", stacklevel=2)
        warn_of_truncation([seen.stop_reason], self._format.max_tokens)

    def warm_up(self) -> float:
        """Ask for one token until the model answers; returns the seconds that took.

        A batch keeps the model awake as long as it runs; it falls asleep after five idle minutes.

        Raises:
            ModelNotReadyError: the model stayed cold for the whole budget.
            BedrockError: AWS refused.
        """
        started = self._batches.clock()
        self._answer(self._batches.waiter(), self._format.wake_up_body())
        return self._batches.clock() - started

    @property
    def fingerprint(self) -> str:
        """A text that changes with the model and the options that an answer depends on."""
        asked = self._format
        prompt = self.formatter.fingerprint if self.formatter else None
        return json.dumps([self.arn, prompt, asked.schema, asked.max_tokens, list(asked.stop), asked.structured])

    @property
    def usage(self) -> Usage:
        """Requests, tokens, five-minute windows and an estimate of their price, for this model and its `with_options`.

        Asks AWS once for the model's custom model units; where that is refused, the price is None.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        if self._units is None:
            try:
                self._units = self._describe().get("customModelUnits", {}).get("customModelUnitsPerModelCopy")
            except (BotoCoreError, ClientError) as error:
                logger.warning("no price for %s: %s", self.arn, bedrock_error(error, "reading its custom model units"))
        return self._meter.usage(self._region, self._units, self._prices)

    def delete(self) -> None:
        """Delete the imported model; its files on S3 stay.

        Raises:
            BedrockError: AWS refused.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client("bedrock").delete_imported_model(modelIdentifier=self.arn)
        except (BotoCoreError, ClientError) as error:
            raise bedrock_error(error, f"deleting {self.arn}") from error

    def _describe(self) -> dict[str, Any]:
        return dict(self._client("bedrock").get_imported_model(modelIdentifier=self.arn))

    def _generate(
        self, waiter: Waiter, inputs: Sequence[Record] | Sequence[str], resume: Sequence[Generation | None]
    ) -> list[Generation]:
        check_inputs(inputs)
        bodies = [self._format.body(item) for item in inputs]
        return self._batches.run(waiter, functools.partial(self._answer, waiter), bodies, resume)

    def _answer(self, waiter: Waiter, body: str) -> Generation:
        started = self._batches.clock()
        content = self._batches.send(waiter, functools.partial(self._calls.send, body))
        answer = self._calls.read(content, self._batches.clock() - started)
        self._meter.count(answer.prompt_tokens, answer.completion_tokens)
        return answer

    def _pieces(self, body: str) -> Iterator[Piece]:
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        events = self._batches.send(self._batches.waiter(), functools.partial(self._calls.open_stream, body))
        try:
            yield from pieces(events)
        # botocore passes on what breaks in the middle of a stream as it is.
        except (BotoCoreError, ClientError, HTTPError) as error:
            raise bedrock_error(error, f"invoking {self.arn}") from error
        finally:
            events.close()
