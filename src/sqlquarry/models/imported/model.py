"""A model imported into Bedrock that answers records with SQL, using the prompt that it was trained with."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from sqlquarry.answers import Generation
from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import aws_errors, bedrock_error
from sqlquarry.errors import BedrockError, ConfigError, GenerationError
from sqlquarry.inputs import check_inputs, option_problems
from sqlquarry.models.batches import BatchSender, warn_of_truncation
from sqlquarry.models.imported.answers import AnswerChunk
from sqlquarry.models.imported.client import ImportedModelClient
from sqlquarry.models.imported.cost import DEFAULT_PRICES, PriceTable, Usage, UsageMeter
from sqlquarry.models.imported.requests import RequestFormat, RequestSchema
from sqlquarry.models.retries import DEFAULT_RETRY, RequestRunner, RetryPolicy
from sqlquarry.options import check_options
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock.type_defs import GetImportedModelResponseTypeDef

logger = visible_logger(__name__)
_ARN = re.compile(r"arn:aws(?:-[^:]+)?:bedrock:([a-z0-9-]{1,20}):[0-9]{12}:imported-model/[a-z0-9]{12}")
_READ_TIMEOUT_S = 300  # A busy model can take longer than botocore's 60 s.


class ImportedModelOptions(TypedDict, total=False):
    """Options of `ImportedModel`. They are documented there."""

    formatter: PromptFormatter | None
    name: str | None
    session: boto3.Session | None
    max_tokens: int
    request_schema: RequestSchema
    stop: Sequence[str]
    logprobs: bool
    structured: Mapping[str, object] | None
    prices: PriceTable
    concurrency: int
    retry: RetryPolicy
    show_progress: bool


@check_options()
class ImportedModel:
    """A model imported into Amazon Bedrock. It is a `TextGenerator`.

    Args:
        arn: ``arn:aws:bedrock:<region>:<account>:imported-model/<id>``. All calls go to its region.
        formatter: the prompt that the model was trained with, bound to its tokenizer (call `PromptFormatter.load` on
            the merged model's directory). It can be None if all inputs are texts.
        name: a readable name of the model. The default is the id in its ARN.
        session: the boto3 session. None uses the default credentials.
        max_tokens: longest answer, in tokens.
        request_schema: "max_tokens" and "max_gen_len" send the rendered prompt. "messages" lets the server render it.
            "converse" uses Converse, or "messages" if the model does not support Converse. For models imported since
            2025-11-11 the schema also determines the shape of the answer. All shapes are understood.
        stop: texts that end an answer.
        logprobs: request the log-probability of each written token (`Generation.logprobs`).
        structured: a constraint on the answer: ``{"json": schema}``, ``{"regex": …}``, ``{"choice": […]}`` or
            ``{"grammar": …}``.
        prices: prices for `usage`.
        concurrency: maximum number of requests in flight. It is lower while the service throttles.
        retry: how long to wait for a cold model, and how often to send a throttled request again.
        show_progress: show a progress bar (see `sqlquarry.progress.bar`).

    Raises:
        ConfigError: the ARN does not belong to an imported model, the formatter is not bound, or an option is out of
            range or not supported.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(
        self,
        arn: str,
        *,
        formatter: PromptFormatter | None = None,
        name: str | None = None,
        session: boto3.Session | None = None,
        max_tokens: int = 512,
        request_schema: RequestSchema = "max_tokens",
        stop: Sequence[str] = (),
        logprobs: bool = False,
        structured: Mapping[str, object] | None = None,
        prices: PriceTable = DEFAULT_PRICES,
        concurrency: int = 8,
        retry: RetryPolicy = DEFAULT_RETRY,
        show_progress: bool = True,
    ) -> None:
        match = _ARN.fullmatch(arn)
        self._format = RequestFormat(formatter, request_schema, max_tokens, stop, logprobs, structured)
        bad = [] if match else [f"arn {arn!r} is not the ARN of an imported model"]
        bad += [*self._format.problems(), *option_problems({"concurrency": concurrency}, {})]
        if match is None or bad:
            raise ConfigError("ImportedModel: " + "; ".join(bad))
        self._options: ImportedModelOptions = {
            "formatter": formatter,
            "name": name,
            "session": session,
            "max_tokens": max_tokens,
            "request_schema": request_schema,
            "stop": stop,
            "logprobs": logprobs,
            "structured": structured,
            "prices": prices,
            "concurrency": concurrency,
            "retry": retry,
            "show_progress": show_progress,
        }
        self.arn, self.formatter, self.name = arn, formatter, name or arn.rsplit("/", 1)[-1]
        self._region = match.group(1)
        self._sender = BatchSender(arn, self.name, retry, concurrency=concurrency, show_progress=show_progress)
        self._meter = UsageMeter(retry.clock)
        self._custom_model_units: int | None = None
        runtime = aws_client(
            "bedrock-runtime",
            session,
            region=self._region,
            read_timeout_s=_READ_TIMEOUT_S,
            max_pool_connections=concurrency,
        )
        self._client = ImportedModelClient(arn, runtime, self._describe, converse=request_schema == "converse")

    def __repr__(self) -> str:
        return f"ImportedModel({self.arn!r}, name={self.name!r})"

    def with_options(self, **options: Unpack[ImportedModelOptions]) -> ImportedModel:
        """Return the same model with some options changed. `options` are those of the constructor.

        Both objects share one `usage`.

        Raises:
            ConfigError: an option does not exist or is out of range.
        """
        changed: ImportedModelOptions = {**self._options, **options}
        other = ImportedModel(self.arn, **changed)
        other._meter = self._meter
        return other

    def generate(
        self, inputs: Sequence[Record] | Sequence[str], /, *, resume: Sequence[Generation | None] = ()
    ) -> list[Generation]:
        """Answer each input, in order. Records are rendered with the formatter and texts are sent unchanged.

        The call waits for a cold model and slows down while the service throttles. Answers that were cut at
        `max_tokens` have the stop reason "length" and cause one warning per call.

        Args:
            inputs: records or texts.
            resume: the attribute ``partial`` of the error that the same call raised before. Its answers are kept, and
                only the missing ones are requested.

        Raises:
            ConfigError: `inputs` is a single record or text instead of a list, or contains records although there is no
                formatter.
            ModelNotReadyError: the model was still cold when the cold start budget ran out.
            GenerationError: an answer has an unknown shape or no text.
            BedrockError: AWS refused a request. All three errors have the attribute ``partial``, which contains the
                answers so far, with None for each missing one.
        """
        answers = self._generate(self._sender.runner(), inputs, resume)
        warn_of_truncation([answer.stop_reason for answer in answers], self._format.max_tokens)
        return answers

    async def agenerate(
        self, inputs: Sequence[Record] | Sequence[str], /, *, resume: Sequence[Generation | None] = ()
    ) -> list[Generation]:
        """Run `generate` in a separate thread. After a cancellation no further request starts.

        Raises:
            SQLQuarryError: as for `generate`.
        """
        runner = self._sender.runner()
        try:
            answers = await asyncio.to_thread(self._generate, runner, inputs, resume)
        finally:
            runner.stop()
        warn_of_truncation([answer.stop_reason for answer in answers], self._format.max_tokens)
        return answers

    def stream(self, prompt: Record | str, /) -> Iterator[str]:
        """Yield the answer to one input piece by piece, while the model writes it.

        Raises:
            ModelNotReadyError, GenerationError, BedrockError: as for `generate`.
        """
        seen = AnswerChunk()  # the latest value of each field
        for chunk in self._chunks(self._format.body(prompt)):
            seen = chunk.over(seen)
            if chunk.text:
                yield chunk.text
        self._meter.count(seen.prompt_tokens, seen.completion_tokens)
        if seen.text is None:
            raise GenerationError(
                f"{self.arn} streamed an answer without any text. Try again, and report the problem if it persists."
            )
        if seen.stop_reason is None:
            warnings.warn(
                "the stream ended without a stop reason. Ask again if the answer is incomplete.", stacklevel=2
            )
        warn_of_truncation([seen.stop_reason], self._format.max_tokens)

    def warm_up(self) -> float:
        """Request one token, wait until the model answers, and return the number of seconds that it took.

        The model stays awake while a batch runs and goes to sleep after five idle minutes.

        Raises:
            ModelNotReadyError: the model was still cold when the cold start budget ran out.
            BedrockError: AWS refused the request.
        """
        started = self._sender.retry.clock()
        self._answer(self._sender.runner(), self._format.wake_up_body())
        return self._sender.retry.clock() - started

    @property
    def fingerprint(self) -> str:
        """A text that changes if the model or an option that affects the answers changes."""
        asked = self._format
        prompt = self.formatter.fingerprint if self.formatter else None
        options = (asked.max_tokens, list(asked.stop), asked.logprobs, asked.structured)
        return json.dumps([self.arn, prompt, asked.schema, *options])

    @property
    def usage(self) -> Usage:
        """Requests, tokens, five-minute windows and their estimated price, including copies made by `with_options`.

        The first access asks AWS for the model's custom model units. If AWS refuses, the price is None.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        if self._custom_model_units is None:
            try:
                self._custom_model_units = (
                    self._describe().get("customModelUnits", {}).get("customModelUnitsPerModelCopy")
                )
            except (BotoCoreError, ClientError) as error:
                logger.warning(
                    "the price of %s is not known: %s", self.arn, bedrock_error(error, "reading its custom model units")
                )
        return self._meter.usage(self._region, self._custom_model_units, self._options["prices"])

    def delete(self) -> None:
        """Delete the imported model. Its files on S3 stay.

        Raises:
            BedrockError: AWS refused the request.
        """
        with aws_errors(BedrockError, f"deleting {self.arn}", service="bedrock"):
            self._control_plane().delete_imported_model(modelIdentifier=self.arn)

    def _control_plane(self) -> BedrockClient:
        return aws_client("bedrock", self._options["session"], region=self._region)

    def _describe(self) -> GetImportedModelResponseTypeDef:
        return self._control_plane().get_imported_model(modelIdentifier=self.arn)

    def _generate(
        self, runner: RequestRunner, inputs: Sequence[Record] | Sequence[str], resume: Sequence[Generation | None]
    ) -> list[Generation]:
        check_inputs(inputs)
        bodies = [self._format.body(item) for item in inputs]
        return self._sender.run(runner, functools.partial(self._answer, runner), bodies, resume)

    def _answer(self, runner: RequestRunner, body: str) -> Generation:
        started = self._sender.retry.clock()
        content = self._sender.send(runner, functools.partial(self._client.send, body))
        answer = self._client.read(content, self._sender.retry.clock() - started)
        self._meter.count(answer.prompt_tokens, answer.completion_tokens)
        return answer

    def _chunks(self, body: str) -> Iterator[AnswerChunk]:
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        stream = self._sender.send(self._sender.runner(), functools.partial(self._client.open_stream, body))
        try:
            yield from stream.chunks
        # botocore does not wrap errors that occur in the middle of a stream.
        except (BotoCoreError, ClientError, HTTPError) as error:
            raise bedrock_error(error, f"invoking {self.arn}") from error
        finally:
            stream.close()
