"""Any foundation model on Bedrock as a generator: a baseline to beat, or a judge."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlquarry.artifacts import Generation, Record
from sqlquarry.bedrock._aws import aws_client
from sqlquarry.bedrock.batch import Batches, check_inputs, option_problems, warn_of_truncation
from sqlquarry.bedrock.failures import says
from sqlquarry.bedrock.responses import stop_word
from sqlquarry.bedrock.waiting import Patience, Waiter
from sqlquarry.errors import BedrockError, ConfigError, GenerationError
from sqlquarry.prompt import PromptFormatter

logger = logging.getLogger(__name__)
_READ_TIMEOUT_S = 300  # long answers of large models take more than botocore's 60 s
_NEEDS_PROFILE = "on-demand throughput"


class FoundationModel:
    """A foundation model or inference profile on Amazon Bedrock, asked through Converse; a `TextGenerator`.

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
        concurrency: requests in flight at most; fewer while the service throttles.
        throttle_attempts: tries of one request that is throttled, with growing waits of up to 30 s between them.
        sleep, clock, seed: waiting, time and the jitter of waits; injected by tests.
        show_progress: draw a progress bar where stderr is a terminal.

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
        concurrency: int = 8,
        throttle_attempts: int = 10,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
        show_progress: bool = True,
    ) -> None:
        counts = {"max_tokens": max_tokens, "concurrency": concurrency, "throttle_attempts": throttle_attempts}
        bad = option_problems(counts, {"temperature": temperature or 0.0})
        if not model_id.strip():
            bad.append("model_id is empty")
        if isinstance(stop, str):
            bad.append(f"stop is {stop!r}, but must be a list of texts")
        if bad:
            raise ConfigError("FoundationModel: " + "; ".join(bad))
        self.model_id, self.formatter, self._system = model_id, formatter or PromptFormatter(), system
        self._max_tokens, self._temperature, self._stop = max_tokens, temperature, list(stop)
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
            endpoint_url,
            region,
            read_timeout=_READ_TIMEOUT_S,
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
        requests = [self._request(item) for item in inputs]
        waiter = self._batches.waiter()
        answers = self._batches.run(waiter, functools.partial(self._answer, waiter), requests, resume)
        warn_of_truncation([answer.stop_reason for answer in answers], self._max_tokens)
        return answers

    def _request(self, item: Record | str) -> dict[str, Any]:
        turns = [{"role": "user", "content": item}] if isinstance(item, str) else self._turns(item)
        system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system") or self._system
        request: dict[str, Any] = {
            "modelId": self.model_id,
            "messages": [
                {"role": turn["role"], "content": [{"text": turn["content"]}]}
                for turn in turns
                if turn["role"] != "system"
            ],
        }
        return request | ({"system": [{"text": system}]} if system else {})

    def _turns(self, record: Record) -> list[dict[str, str]]:
        # The gold SQL is never sent.
        return self.formatter.messages(dataclasses.replace(record, sql=None))

    def _answer(self, waiter: Waiter, request: dict[str, Any]) -> Generation:
        started = self._batches.clock()
        try:
            answer = self._batches.send(waiter, functools.partial(self._converse, request))
        except BedrockError as error:
            if error.__cause__ is not None and _NEEDS_PROFILE in str(error).lower():
                raise BedrockError(
                    f"{error} {self.model_id} is served through inference profiles only: try "
                    f"'global.{self.model_id}', or one of ListInferenceProfiles."
                ) from error.__cause__
            raise
        content = answer.get("output", {}).get("message", {}).get("content", [])
        texts = [block["text"] for block in content if "text" in block]
        if not texts:
            raise GenerationError(
                f"{self.model_id} answered without text (stop reason {answer.get('stopReason')!r}, content "
                f"{[sorted(block) for block in content]}). Raise max_tokens, or look at its guardrails."
            )
        usage = answer.get("usage", {})
        return Generation(
            text="".join(texts),
            stop_reason=stop_word(answer.get("stopReason") or "stop"),
            prompt_tokens=usage.get("inputTokens"),
            completion_tokens=usage.get("outputTokens"),
            latency_s=self._batches.clock() - started,
        )

    def _converse(self, request: dict[str, Any]) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        settings: dict[str, Any] = {"maxTokens": self._max_tokens}
        if self._stop:
            settings["stopSequences"] = self._stop
        temperature = self._temperature
        if temperature is None:
            return dict(self._runtime.converse(**request, inferenceConfig=settings))
        try:
            return dict(self._runtime.converse(**request, inferenceConfig=settings | {"temperature": temperature}))
        except ClientError as error:
            if not says(error, "ValidationException", "temperature"):
                raise
            logger.warning("%s refuses temperature=%s; asking without it", self.model_id, temperature)
        # Newer models have none: "temperature is deprecated for this model".
        self._temperature = None
        return self._converse(request)
