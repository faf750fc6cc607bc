"""A foundation model on Bedrock as a text generator, for example as a baseline or a judge."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlquarry.answers import Generation
from sqlquarry.aws import aws_client
from sqlquarry.errors import BedrockError, ConfigError, GenerationError, MetadataError
from sqlquarry.files.metadata import parse_object
from sqlquarry.inputs import check_inputs, option_problems, stop_problems
from sqlquarry.models.batches import BatchSender, warn_of_truncation
from sqlquarry.models.foundation.answers import read_answer, require_complete
from sqlquarry.models.foundation.requests import (
    API,
    NEEDS_PROFILE,
    PromptRequest,
    RequestStyle,
    claude_request,
    converse_request,
)
from sqlquarry.models.retries import DEFAULT_RETRY, RequestRunner, RetryPolicy
from sqlquarry.options import check_options
from sqlquarry.prompt import DEFAULT_FORMATTER, PromptFormatter
from sqlquarry.records import Record
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    import boto3

logger = visible_logger(__name__)
_READ_TIMEOUT_S = 300  # Long answers of large models take longer than botocore's 60 s.


@check_options()
class FoundationModel:
    """A foundation model or inference profile on Amazon Bedrock. It is a `TextGenerator`.

    Args:
        model_id: a model id, an inference profile id (``global.anthropic.claude-sonnet-5``) or an ARN.
        session: the boto3 session. None uses the default credentials.
        system: system prompt for texts, "" for none. Records use the formatter's system prompt.
        formatter: turns records into messages. It does not have to be bound, because the service renders the messages.
        max_tokens: longest answer, in tokens.
        temperature: None leaves the temperature out, which newer models require. If a model refuses the temperature,
            later requests leave it out. The same is true of top_p and top_k.
        top_p: sample from the likeliest tokens whose probabilities add up to this value, above 0 and at most 1. None
            leaves it out.
        top_k: sample from this number of the likeliest tokens, for Claude's models. None leaves it out.
        stop: texts that end an answer.
        api: "converse" (any model) or "claude" (InvokeModel with Claude's own messages).
        concurrency: maximum number of requests in flight. It is lower while the service throttles.
        retry: how often a request is sent again (see `RetryPolicy`). The cold start options have no effect, because
            foundation models are never cold.
        show_progress: show a progress bar (see `sqlquarry.progress.bar`).

    Raises:
        ConfigError: an option is out of range, or no region is known.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(
        self,
        model_id: str,
        *,
        session: boto3.Session | None = None,
        system: str = "",
        formatter: PromptFormatter = DEFAULT_FORMATTER,
        max_tokens: int = 1024,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        stop: Sequence[str] = (),
        api: API = "converse",
        concurrency: int = 8,
        retry: RetryPolicy = DEFAULT_RETRY,
        show_progress: bool = True,
    ) -> None:
        counts = {"max_tokens": max_tokens, "concurrency": concurrency, "top_k": 1 if top_k is None else top_k}
        bad = option_problems(counts, {"temperature": temperature or 0.0})
        if top_p is not None and not 0 < top_p <= 1:
            bad.append(f"top_p is {top_p!r}, but must be above 0 and at most 1")
        bad += stop_problems(stop)
        if not model_id.strip():
            bad.append("model_id is empty")
        if bad:
            raise ConfigError("FoundationModel: " + "; ".join(bad))
        self.model_id, self.formatter, self._system, self._api = model_id, formatter, system, api
        self._style = self._first_style = RequestStyle(max_tokens, temperature, tuple(stop), top_p, top_k)
        # Only imported models are cold at times, so ModelNotReadyException is an ordinary error here.
        retry = dataclasses.replace(retry, cold_start_budget_s=0.0)
        self._sender = BatchSender(model_id, model_id, retry, concurrency=concurrency, show_progress=show_progress)
        self._runtime = aws_client(
            "bedrock-runtime", session, read_timeout_s=_READ_TIMEOUT_S, max_pool_connections=concurrency
        )

    def __repr__(self) -> str:
        return f"FoundationModel({self.model_id!r})"

    def generate(
        self, inputs: Sequence[Record] | Sequence[str], /, *, resume: Sequence[Generation | None] = ()
    ) -> list[Generation]:
        """Answer each input, in order. A record is sent as the formatter's messages and a text as one user message.

        Args:
            inputs: records or texts.
            resume: the attribute ``partial`` of the error that the same call raised before. Its answers are kept, and
                only the missing ones are requested.

        Raises:
            ConfigError: `inputs` is a single record or text instead of a list.
            GenerationError: an answer has no text.
            BedrockError: AWS refused a request. Both errors have the attribute ``partial``, which contains the answers
                so far, with None for each missing one.
        """
        check_inputs(inputs)
        answers = self._ask([PromptRequest.of(item, self.formatter, self._system) for item in inputs], resume)
        warn_of_truncation([answer.stop_reason for answer in answers], self._style.max_tokens)
        return answers

    def generate_json(
        self,
        prompts: Sequence[str],
        schema: Mapping[str, object],
        /,
        *,
        system: str = "",
        resume: Sequence[Generation | None] = (),
    ) -> list[Generation]:
        """Answer each prompt, in order, with a JSON object that follows `schema`.

        The service enforces the schema. If the model does not support that, the request forces a tool call, and if the
        model refuses the tool too, the prompt asks for JSON between tags. Only the first way guarantees valid JSON, so
        check the answers. The end of the system prompt is marked as a cache point. Only long system prompts are cached
        (at least 512 to 4,096 tokens, depending on the model).

        Args:
            prompts: the texts to send.
            schema: JSON schema with ``additionalProperties: false`` in each object, without minimum and maximum.
            system: text that is appended to the system prompt of this object.
            resume: as for `generate`.

        Raises:
            ConfigError, GenerationError, BedrockError: as for `generate`.
        """
        check_inputs(prompts, method="generate_json", records=False)
        both = "\n\n".join(filter(None, (self._system, system)))
        answers = self._ask([PromptRequest((("user", prompt),), both, schema) for prompt in prompts], resume)
        warn_of_truncation([answer.stop_reason for answer in answers], self._style.max_tokens)
        return answers

    @property
    def fingerprint(self) -> str:
        """A text that changes if the model id or an option that affects the answers changes."""
        options = self._first_style
        parts = (self.model_id, self._api, self._system, self.formatter.fingerprint)
        return json.dumps([*parts, options.max_tokens, options.temperature, options.stop, options.top_p, options.top_k])

    def _ask(self, requests: Sequence[PromptRequest], resume: Sequence[Generation | None]) -> list[Generation]:
        runner = self._sender.runner()
        return self._sender.run(runner, functools.partial(self._answer, runner), requests, resume)

    def _answer(self, runner: RequestRunner, request: PromptRequest) -> Generation:
        clock = self._sender.retry.clock
        started = clock()
        try:
            answer, style = self._sender.send(runner, functools.partial(self._send, request))
        except BedrockError as error:
            if error.__cause__ is not None and NEEDS_PROFILE in str(error).lower():
                raise BedrockError(
                    f"{error} {self.model_id} is available only through an inference profile. Try "
                    f"'global.{self.model_id}', or choose one from ListInferenceProfiles."
                ) from error.__cause__
            raise
        return read_answer(answer, request, style, self.model_id, clock() - started)

    def _send(self, request: PromptRequest) -> tuple[Mapping[str, object], RequestStyle]:
        """Return the answer and the style that the model accepted. Keep that style for the next request."""
        from botocore.exceptions import ClientError

        style = self._style
        while True:
            try:
                answer = self._sent(request, style)
            except MetadataError as error:
                raise GenerationError(f"{error}. Try again, and report the problem if it persists.") from error
            except ClientError as error:
                fewer = style.without_refused(error, request)
                if fewer is None:
                    raise
                style = fewer
                continue
            if style != self._style:
                logger.warning("%s refuses %s", self.model_id, _refused(self._style, style))
                self._style = style
            return answer, style

    def _sent(self, request: PromptRequest, style: RequestStyle) -> Mapping[str, object]:
        if self._api == "converse":
            return require_complete(self._runtime.converse(modelId=self.model_id, **converse_request(request, style)))
        body = json.dumps(claude_request(request, style))
        raw = self._runtime.invoke_model(modelId=self.model_id, body=body)["body"].read()
        return parse_object(raw, f"the answer of {self.model_id}", lenient=True)


def _refused(before: RequestStyle, after: RequestStyle) -> str:
    old, new = dataclasses.asdict(before), dataclasses.asdict(after)
    return ", ".join(f"{name}={old[name]!r} (now {new[name]!r})" for name in old if old[name] != new[name])
