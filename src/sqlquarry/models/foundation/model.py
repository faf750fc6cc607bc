"""Any foundation model on Bedrock as a generator: a baseline to beat, or a judge."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from sqlquarry.artifacts import Generation, Record
from sqlquarry.aws import aws_client
from sqlquarry.errors import BedrockError, ConfigError, GenerationError, MetadataError
from sqlquarry.files.metadata import parse_object
from sqlquarry.inputs import check_inputs, option_problems, stop_problems
from sqlquarry.models.batches import Batches, warn_of_truncation
from sqlquarry.models.foundation.conversation import API, NEEDS_PROFILE, Inquiry, Manner, body, read, whole
from sqlquarry.models.retries import Patience, Waiter
from sqlquarry.options import check_options
from sqlquarry.prompt import PromptFormatter
from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
_READ_TIMEOUT_S = 300  # long answers of large models take more than botocore's 60 s


@check_options()
class FoundationModel:
    """A foundation model or inference profile on Amazon Bedrock, and a `TextGenerator`.

    Args:
        model_id: a model id, an inference profile id (``global.anthropic.claude-sonnet-5``) or an ARN.
        session: a boto3 session; None uses the default credentials.
        region: where to ask; None takes the session's own.
        endpoint_url: another address for all AWS calls.
        system: system prompt for texts; records bring the formatter's.
        formatter: wording of records; it needs no binding, as the service renders the messages.
        max_tokens: longest answer, in tokens.
        temperature: None leaves it out, as newer models demand; where a model refuses it, it is left out from then on.
        stop: texts that end an answer.
        api: "converse" (any model) or "claude" (InvokeModel with Claude's own messages).
        concurrency: requests in flight at most; fewer while the service throttles.
        throttle_attempts: tries of one request that is throttled, with growing waits of up to 30 s between them.
        sleep, clock, seed: waiting, time and the jitter of waits; injected by tests.
        show_progress: show how far it is (see `sqlquarry.progress.bar`).

    Raises:
        ConfigError: an option is out of range, or no region is known.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(
        self,
        model_id: str,
        *,
        session: Any = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        system: str | None = None,
        formatter: PromptFormatter | None = None,
        max_tokens: int = 1024,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        api: API = "converse",
        concurrency: int = 8,
        throttle_attempts: int = 10,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
        show_progress: bool = True,
    ) -> None:
        counts = {"max_tokens": max_tokens, "concurrency": concurrency, "throttle_attempts": throttle_attempts}
        bad = option_problems(counts, {"temperature": temperature or 0.0}) + stop_problems(stop)
        if not model_id.strip():
            bad.append("model_id is empty")
        if api not in get_args(API):
            bad.append(f"api is {api!r}, but must be one of {', '.join(get_args(API))}")
        if bad:
            raise ConfigError("FoundationModel: " + "; ".join(bad))
        self.model_id, self.formatter, self._system = model_id, formatter or PromptFormatter(), system or ""
        self._api = api
        self._manner = self._first_manner = Manner(max_tokens, temperature, tuple(stop))
        self._batches = Batches(
            model_id,
            model_id,
            # ModelNotReadyException belongs to imported models; here it would be an error like any other.
            Patience(0, 0, throttle_attempts),
            concurrency=concurrency,
            sleep=sleep,
            clock=clock,
            seed=seed,
            show_progress=show_progress,
        )
        self._runtime = aws_client(
            "bedrock-runtime",
            session,
            endpoint_url=endpoint_url,
            region=region,
            read_timeout_s=_READ_TIMEOUT_S,
            max_pool_connections=concurrency,
        )

    def __repr__(self) -> str:
        return f"FoundationModel({self.model_id!r})"

    def generate(
        self, inputs: Sequence[Record] | Sequence[str], /, *, resume: Sequence[Generation | None] = ()
    ) -> list[Generation]:
        """Answer each input, in order: a record as the formatter's messages, a text as one user message.

        Args:
            inputs: what to ask.
            resume: the attribute ``partial`` of the error that ended the same call before; what it holds is kept.

        Raises:
            ConfigError: one record or prompt was given, not a list.
            GenerationError: an answer without text.
            BedrockError: AWS refused a request; both have ``partial``, the answers so far.
        """
        check_inputs(inputs)
        answers = self._ask([Inquiry.of(item, self.formatter, self._system) for item in inputs], resume)
        warn_of_truncation([answer.stop_reason for answer in answers], self._manner.max_tokens)
        return answers

    def generate_json(
        self,
        prompts: Sequence[str],
        schema: Mapping[str, Any],
        /,
        *,
        system: str = "",
        resume: Sequence[Generation | None] = (),
    ) -> list[Generation]:
        """Answer each prompt, in order, with a JSON object of `schema`.

        Held to the schema by the service, where the model refuses that by a forced tool, else by tags in the text;
        only the first is a guarantee, so check what comes. The end of the system prompt is a cache point, which only
        long ones use (from 512 to 4,096 tokens, by the model).

        Args:
            prompts: what to ask.
            schema: JSON schema with ``additionalProperties: false`` in each object, without minimum and maximum.
            system: goes after the system prompt of this object.
            resume: as `generate`.

        Raises:
            ConfigError, GenerationError, BedrockError: as `generate`.
        """
        check_inputs(prompts, method="generate_json", records=False)
        both = "\n\n".join(filter(None, (self._system, system)))
        answers = self._ask([Inquiry((("user", prompt),), both, schema) for prompt in prompts], resume)
        warn_of_truncation([answer.stop_reason for answer in answers], self._manner.max_tokens)
        return answers

    @property
    def fingerprint(self) -> str:
        """A text that changes with the model id and the options that an answer depends on."""
        options = self._first_manner
        parts = (self.model_id, self._system, self.formatter.fingerprint)
        return json.dumps([*parts, options.max_tokens, options.temperature, options.stop])

    def _ask(self, inquiries: Sequence[Inquiry], resume: Sequence[Generation | None]) -> list[Generation]:
        waiter = self._batches.waiter()
        return self._batches.run(waiter, functools.partial(self._answer, waiter), inquiries, resume)

    def _answer(self, waiter: Waiter, inquiry: Inquiry) -> Generation:
        started = self._batches.clock()
        try:
            answer, manner = self._batches.send(waiter, functools.partial(self._send, inquiry))
        except BedrockError as error:
            if error.__cause__ is not None and NEEDS_PROFILE in str(error).lower():
                raise BedrockError(
                    f"{error} {self.model_id} is served through inference profiles only: try "
                    f"'global.{self.model_id}', or one of ListInferenceProfiles."
                ) from error.__cause__
            raise
        return read(answer, inquiry, manner, self.model_id, self._batches.clock() - started)

    def _send(self, inquiry: Inquiry) -> tuple[dict[str, Any], Manner]:
        """The answer, and the manner that the model accepted; it is kept for the next request."""
        from botocore.exceptions import ClientError

        manner = self._manner
        while True:
            request = body(self._api, inquiry, manner)
            try:
                if self._api == "converse":
                    answer = whole(self._runtime.converse(modelId=self.model_id, **request))
                else:
                    raw = self._runtime.invoke_model(modelId=self.model_id, body=json.dumps(request))["body"].read()
                    answer = parse_object(raw, f"the answer of {self.model_id}", lenient=True)
            except MetadataError as error:
                raise GenerationError(f"{error}. Ask again; if it happens often, please report it.") from error
            except ClientError as error:
                fewer = manner.without_refused(error, inquiry)
                if fewer is None:
                    raise
                manner = fewer
                continue
            if manner != self._manner:
                logger.warning("%s refuses %s", self.model_id, _refused(self._manner, manner))
                self._manner = manner
            return answer, manner


def _refused(before: Manner, after: Manner) -> str:
    old, new = dataclasses.asdict(before), dataclasses.asdict(after)
    return ", ".join(f"{name}={old[name]!r}; asking with {new[name]!r}" for name in old if old[name] != new[name])
