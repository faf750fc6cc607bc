"""A foundation model that answers through batch inference jobs: one JSON Lines file on S3 and one job per call.

Source: "Process multiple prompts with batch inference",
docs.aws.amazon.com/bedrock/latest/userguide/batch-inference.html
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from sqlquarry.answers import Generation
from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import aws_errors, error_code, is_transient
from sqlquarry.aws.polling import Polling
from sqlquarry.errors import BedrockError, ConfigError, GenerationError, MetadataError
from sqlquarry.files.locations import S3Location, is_s3
from sqlquarry.files.metadata import parse_object
from sqlquarry.inputs import check_inputs, option_problems
from sqlquarry.models.foundation.answers import read_answer
from sqlquarry.models.foundation.requests import (
    API,
    PromptRequest,
    RequestStyle,
    Structure,
    request_body,
)
from sqlquarry.options import check_options
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.prompt import DEFAULT_FORMATTER, PromptFormatter
from sqlquarry.records import Record
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_bedrock.type_defs import ListModelInvocationJobsRequestTypeDef, ModelInvocationJobSummaryTypeDef

logger = visible_logger(__name__)
_INVOCATION_TYPE: dict[str, Literal["Converse", "InvokeModel"]] = {"converse": "Converse", "claude": "InvokeModel"}
_MINUTELY = Polling(interval_s=60)
_DAY_S = 24 * 3600.0
_DONE = ("Completed", "PartiallyCompleted")
_OVER = ("Failed", "Stopped", "Expired")


@check_options()
class BatchFoundationModel:
    """A foundation model that answers through batch inference jobs, for many prompts that are not urgent.

    It is a `TextGenerator`. If a call is interrupted, repeat it: the same prompts with the same `s3_uri` find the job
    that was created for them, wait for it if it is still running, and read its answers.

    Args:
        model_id: a model id, an inference profile id or an ARN.
        role_arn: the role with which Bedrock reads and writes `s3_uri`.
        s3_uri: ``s3://bucket/prefix`` for prompts and answers.
        session: the boto3 session. None uses the default credentials.
        system: system prompt for texts, "" for none. Records use the formatter's system prompt.
        formatter: turns records into messages.
        max_tokens: longest answer, in tokens.
        temperature: None leaves the temperature out, which newer models require.
        api: "converse" (any model) or "claude" (InvokeModel with Claude's own messages).
        structure: how an answer is made to follow a schema: by the service ("format"), by a forced tool call ("tool")
            or by tags in the text ("tags"). A job cannot fall back from one to the next. If you do not know what the
            model supports, call a `FoundationModel` once.
        min_records: minimum number of prompts per job, usually 100. Service Quotas lists the quota of each model.
        timeout_hours: hours after which the service stops the job, 24 to 168.
        polling: how often to check the job and how long to wait for it, by default a day. The job continues after that.
        show_progress: show a progress bar (see `sqlquarry.progress.bar`).

    Raises:
        ConfigError: an option is out of range, or no region is known.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(
        self,
        model_id: str,
        *,
        role_arn: str,
        s3_uri: str,
        session: boto3.Session | None = None,
        system: str = "",
        formatter: PromptFormatter = DEFAULT_FORMATTER,
        max_tokens: int = 1024,
        temperature: float | None = None,
        api: API = "converse",
        structure: Structure = "format",
        min_records: int = 100,
        timeout_hours: int = 24,
        polling: Polling = _MINUTELY,
        show_progress: bool = True,
    ) -> None:
        counts = {"max_tokens": max_tokens, "min_records": min_records}
        bad = option_problems(counts, {"temperature": temperature or 0.0})
        if not model_id.strip():
            bad.append("model_id is empty")
        if not is_s3(s3_uri):
            bad.append(f"s3_uri is {s3_uri!r}, but must be s3://bucket/prefix")
        if not 24 <= timeout_hours <= 168:
            bad.append(f"timeout_hours is {timeout_hours}, but must be from 24 to 168")
        if bad:
            raise ConfigError("BatchFoundationModel: " + "; ".join(bad))
        self.model_id, self.formatter, self._system = model_id, formatter, system
        self.min_records = min_records
        self._role_arn, self._timeout_hours = role_arn, timeout_hours
        self._location = S3Location.parse(s3_uri)
        self._api, self._style = api, RequestStyle(max_tokens, temperature, structure=structure)
        self._polling, self._show_progress = polling.with_timeout(_DAY_S), show_progress
        self._bedrock, self._s3 = aws_client("bedrock", session), aws_client("s3", session)

    def __repr__(self) -> str:
        return f"BatchFoundationModel({self.model_id!r})"

    @property
    def fingerprint(self) -> str:
        """A text that changes if the model id or an option that affects the answers changes."""
        options = self._style
        parts = (self.model_id, self._api, self._system, self.formatter.fingerprint)
        return json.dumps([*parts, options.max_tokens, options.temperature, options.structure])

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        """Answer all inputs with one job and return the answers in order.

        Raises:
            ConfigError: there are fewer inputs than `min_records`.
            BedrockError: the job failed, AWS refused a request, or the wait was too long. If only some records failed,
                the attribute ``partial`` contains the answers to the others. Then request the rest with
                ``FoundationModel(…).generate(inputs, resume=error.partial)``.
        """
        check_inputs(inputs)
        return self._ask([PromptRequest.of(item, self.formatter, self._system) for item in inputs])

    def generate_json(
        self, prompts: Sequence[str], schema: Mapping[str, object], /, *, system: str = ""
    ) -> list[Generation]:
        """Answer all prompts with JSON objects that follow `schema`, with one job. See `FoundationModel.generate_json`.

        Raises:
            ConfigError, BedrockError: as for `generate`.
        """
        check_inputs(prompts, method="generate_json", records=False)
        both = "\n\n".join(filter(None, (self._system, system)))
        return self._ask([PromptRequest((("user", prompt),), both, schema) for prompt in prompts])

    def _ask(self, requests: Sequence[PromptRequest]) -> list[Generation]:
        if len(requests) < self.min_records:
            raise ConfigError(
                f"{len(requests)} prompts are too few for a batch job of {self.model_id}, which needs at least "
                f"{self.min_records}. Pass more prompts, use FoundationModel, or set min_records to your quota."
            )
        lines = [
            json.dumps({"recordId": _record_id(index), "modelInput": request_body(self._api, request, self._style)})
            for index, request in enumerate(requests)
        ]
        content = "".join(f"{line}\n" for line in lines).encode()
        with aws_errors(BedrockError, f"batch inference with {self.model_id}", service="bedrock"):
            arn = self._job(content)
            with ProgressBar(f"batch job of {self.model_id}", len(requests), show=self._show_progress) as bar:
                self._wait(arn, bar)
            outputs = self._outputs(arn)
        return self._joined(outputs, requests)

    def _job(self, content: bytes) -> str:
        """Return the ARN of the job for this content and location. Create the job unless a usable one exists."""
        described = f"{self.model_id}\0{self._api}\0{self._location}\0".encode() + content
        digest = hashlib.sha256(described).hexdigest()[:40]
        name = f"sqlquarry-{digest}"
        found = self._jobs_named(name)
        for job in found:
            if job["status"] not in (*_OVER, "Stopping"):
                logger.info("batch job %s exists already (%s)", job["jobArn"], job["status"])
                return str(job["jobArn"])
        folder = f"{self._location.prefix}{digest}/"
        self._s3.put_object(Bucket=self._location.bucket, Key=f"{folder}input.jsonl", Body=content)
        # A job name and its request token cannot be used again, even if the job failed.
        attempt = len(found) + 1
        arn = self._bedrock.create_model_invocation_job(
            jobName=f"{name}-{attempt}",
            roleArn=self._role_arn,
            modelId=self.model_id,
            clientRequestToken=f"{digest}-{attempt}",
            modelInvocationType=_INVOCATION_TYPE[self._api],
            inputDataConfig={
                "s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": self._uri(f"{folder}input.jsonl")}
            },
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": self._uri(f"{folder}output/")}},
            timeoutDurationInHours=self._timeout_hours,
        )["jobArn"]
        logger.info("batch job %s started", arn)
        return str(arn)

    def _jobs_named(self, name: str) -> list[ModelInvocationJobSummaryTypeDef]:
        """Return the account's jobs whose names contain `name`, newest first."""
        found: list[ModelInvocationJobSummaryTypeDef] = []
        query: ListModelInvocationJobsRequestTypeDef = {
            "nameContains": name,
            "sortBy": "CreationTime",
            "sortOrder": "Descending",
        }
        while True:
            page = self._bedrock.list_model_invocation_jobs(**query)
            found += page.get("invocationJobSummaries", [])
            if not page.get("nextToken"):
                return found
            query["nextToken"] = page["nextToken"]

    def _wait(self, arn: str, bar: ProgressBar) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        started = self._polling.clock()
        while True:
            status = "unknown"
            try:
                job = self._bedrock.get_model_invocation_job(jobIdentifier=arn)
            except (BotoCoreError, ClientError) as error:
                if not is_transient(error):
                    raise
                logger.warning("the status of batch job %s is unknown (%s), trying again", arn, error_code(error))
            else:
                status = job["status"]
                done = bar.total if status in _DONE else job.get("processedRecordCount")
                bar.update(done or 0, note=status)
                if status in _DONE:
                    return
                if status in _OVER:
                    reason = str(job.get("message", "the service gave no reason")).rstrip(".")
                    raise BedrockError(
                        f"batch job {arn} ended with status {status}: {reason}. Fix the cause, then repeat the call, "
                        "which creates a new job."
                    )
            waited = self._polling.clock() - started
            if self._polling.is_over(waited):
                raise BedrockError(
                    f"batch job {arn} is still {status} after {waited:.0f} s. It continues to run. Repeat the call to "
                    "wait for it again."
                )
            logger.info("batch job %s: %s, %.0f s", arn, status, waited)
            self._polling.sleep(self._polling.interval_s)

    def _outputs(self, arn: str) -> dict[str, Mapping[str, object]]:
        """Return the job's output lines by record id, because AWS does not guarantee their order."""
        job = self._bedrock.get_model_invocation_job(jobIdentifier=arn)
        location = S3Location.parse(job["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"])
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=location.bucket, Prefix=f"{location.prefix}{arn.rsplit('/', 1)[-1]}/"
        )
        keys = [
            item["Key"] for page in pages for item in page.get("Contents", ()) if item["Key"].endswith(".jsonl.out")
        ]
        if not keys:
            raise BedrockError(
                f"batch job {arn} is done, but its answers are not in {location}. Check that the role may write there. "
                "If the answers were deleted, use another s3_uri, for which the same prompts start a new job."
            )
        outputs: dict[str, Mapping[str, object]] = {}
        for key in keys:
            for line in self._s3.get_object(Bucket=location.bucket, Key=key)["Body"].read().splitlines():
                if line.strip():
                    try:
                        output = parse_object(line, f"a line of s3://{location.bucket}/{key}", lenient=True)
                    except MetadataError as error:
                        raise BedrockError(
                            f"{error}. Use another s3_uri, for which the same prompts start a new job."
                        ) from error
                    outputs[str(output.get("recordId"))] = output
        return outputs

    def _joined(
        self, outputs: Mapping[str, Mapping[str, object]], requests: Sequence[PromptRequest]
    ) -> list[Generation]:
        answers: list[Generation | None] = []
        problems: Counter[str] = Counter()
        for index, request in enumerate(requests):
            output = outputs.get(_record_id(index), {})
            try:
                answer = read_answer(output.get("modelOutput") or {}, request, self._style, self.model_id)
            except GenerationError:
                answer = None
                fault = output.get("error")
                default = "no text" if output else "missing"
                problems[str(fault.get("errorCode", default) if isinstance(fault, dict) else default)] += 1
            answers.append(answer)
        known = [answer for answer in answers if answer is not None]
        if problems:
            shown = ", ".join(f"{count} × {code}" for code, count in problems.most_common(5))
            error = BedrockError(
                f"{sum(problems.values())} of {len(answers)} records of the batch job have no answer ({shown}). The "
                "other answers are in `partial` of this error. To request the rest, pass it as resume= to the same "
                "method of a FoundationModel."
            )
            error.partial = tuple(answers)
            raise error
        return known

    def _uri(self, key: str) -> str:
        return f"s3://{self._location.bucket}/{key}"


def _record_id(index: int) -> str:
    # 11 letters and digits, like the guide's examples. Prompts may be equal, so the id cannot depend on the content.
    return f"R{index:010d}"
