"""The imported model: records in, SQL out, with the prompt it was trained with."""

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
_READ_TIMEOUT_S = 300  # botocore's 60 s end before a busy model has answered


class ImportedModelOptions(TypedDict, total=False):
    """Holds the options of `ImportedModel`, which documents them."""

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
    """A model on Amazon Bedrock that answers records; a `TextGenerator`.

    Args:
        arn: ``arn:aws:bedrock:<region>:<account>:imported-model/<id>``; its region is used for all calls.
        formatter: the prompt that it was trained with, bound (`PromptFormatter.load` on the merged model's directory);
            None if only texts are asked.
        name: the imported model's name, for people; the id of its ARN if not given.
        session: the boto3 session; None uses the default credentials.
        max_tokens: longest answer, in tokens.
        request_schema: "max_tokens" or "max_gen_len" send the rendered prompt, "messages" lets the server render it;
            for models imported since 2025-11-11 it also chooses the answer's shape. All shapes are read. "converse"
            asks through Converse, and as "messages" if the model does not support that.
        stop: texts that end an answer.
        logprobs: ask for the log-probability of each written token (`Generation.logprobs`).
        structured: constrains the answer: ``{"json": schema}``, ``{"regex": …}``, ``{"choice": […]}`` or
            ``{"grammar": …}``.
        prices: what `usage` calculates with.
        concurrency: requests in flight at most; fewer while the service throttles.
        retry: how long to wait for a cold model, and how often to send a request again that is throttled.
        show_progress: show how far it is (see `sqlquarry.progress.bar`).

    Raises:
        ConfigError: the ARN is not that of an imported model, the formatter is not bound, or an option is out of range
            or not offered.
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
        bad = [] if match else [f"arn {arn!r} is not that of an imported model"]
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
        """Return the same model asked another way; `options` are those of the constructor, such as `max_tokens`.

        Both count into one `usage`.

        Raises:
            ConfigError: there is no such option, or one is out of range.
        """
        changed: ImportedModelOptions = {**self._options, **options}
        other = ImportedModel(self.arn, **changed)
        other._meter = self._meter
        return other

    def generate(
        self, inputs: Sequence[Record] | Sequence[str], /, *, resume: Sequence[Generation | None] = ()
    ) -> list[Generation]:
        """Answer each input, in order; records are rendered with the formatter, strings are sent as they are.

        Waits for a cold model, and slows down while the service throttles. Answers that were cut at `max_tokens` have
        stop reason "length" and raise one warning.

        Args:
            inputs: what to ask.
            resume: the attribute ``partial`` of the error that ended the same call before; what it holds is kept.

        Raises:
            ConfigError: one record or prompt was given, not a list; or records, and there is no formatter.
            ModelNotReadyError: the model stayed cold for the whole budget.
            GenerationError: an answer of unknown shape, or without text.
            BedrockError: AWS refused a request. All three have ``partial``: the answers so far, None if missing.
        """
        answers = self._generate(self._sender.runner(), inputs, resume)
        warn_of_truncation([answer.stop_reason for answer in answers], self._format.max_tokens)
        return answers

    async def agenerate(
        self, inputs: Sequence[Record] | Sequence[str], /, *, resume: Sequence[Generation | None] = ()
    ) -> list[Generation]:
        """Do as `generate` in a thread of its own; once it is cancelled, no further request begins.

        Raises:
            SQLQuarryError: as `generate`.
        """
        runner = self._sender.runner()
        try:
            answers = await asyncio.to_thread(self._generate, runner, inputs, resume)
        finally:
            runner.stop()
        warn_of_truncation([answer.stop_reason for answer in answers], self._format.max_tokens)
        return answers

    def stream(self, prompt: Record | str, /) -> Iterator[str]:
        """Yield the answer to one input, piece by piece as it is written.

        Raises:
            ModelNotReadyError, GenerationError, BedrockError: as `generate`.
        """
        seen = AnswerChunk()  # the last of everything that a chunk holds
        for chunk in self._chunks(self._format.body(prompt)):
            seen = chunk.over(seen)
            if chunk.text:
                yield chunk.text
        self._meter.count(seen.prompt_tokens, seen.completion_tokens)
        if seen.text is None:
            raise GenerationError(f"{self.arn} streamed an answer without any text. Ask again; else please report it.")
        if seen.stop_reason is None:
            warnings.warn("the stream ended without a stop reason; the answer may be incomplete", stacklevel=2)
        warn_of_truncation([seen.stop_reason], self._format.max_tokens)

    def warm_up(self) -> float:
        """Ask for one token until the model answers, and return the seconds that it took.

        A batch keeps the model awake as long as it runs; it falls asleep after five idle minutes.

        Raises:
            ModelNotReadyError: the model stayed cold for the whole budget.
            BedrockError: AWS refused.
        """
        started = self._sender.retry.clock()
        self._answer(self._sender.runner(), self._format.wake_up_body())
        return self._sender.retry.clock() - started

    @property
    def fingerprint(self) -> str:
        """Return a text that changes with the model and the options that an answer depends on."""
        asked = self._format
        prompt = self.formatter.fingerprint if self.formatter else None
        return json.dumps([self.arn, prompt, asked.schema, asked.max_tokens, list(asked.stop), asked.structured])

    @property
    def usage(self) -> Usage:
        """Return requests, tokens, five-minute windows and their estimated price, `with_options` included.

        Asks AWS once for the model's custom model units; if that is refused, the price is None.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        if self._custom_model_units is None:
            try:
                self._custom_model_units = (
                    self._describe().get("customModelUnits", {}).get("customModelUnitsPerModelCopy")
                )
            except (BotoCoreError, ClientError) as error:
                logger.warning("no price for %s: %s", self.arn, bedrock_error(error, "reading its custom model units"))
        return self._meter.usage(self._region, self._custom_model_units, self._options["prices"])

    def delete(self) -> None:
        """Delete the imported model; its files on S3 stay.

        Raises:
            BedrockError: AWS refused.
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
        # botocore passes on what breaks in the middle of a stream as it is.
        except (BotoCoreError, ClientError, HTTPError) as error:
            raise bedrock_error(error, f"invoking {self.arn}") from error
        finally:
            stream.close()
