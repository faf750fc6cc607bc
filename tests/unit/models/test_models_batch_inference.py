"""BatchFoundationModel: jobs are found by content, answers by record id, and a job can end in several ways."""

from __future__ import annotations

import io
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.hooks import HierarchicalEmitter

from bedrock_runtime_fakes import FakeTime, refusal
from bedrock_shapes import check_request
from sqlquarry.answers import Generation
from sqlquarry.aws.polling import Polling
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.models.foundation.batch_inference import BatchFoundationModel
from sqlquarry.prompt import PromptFormatter

ROLE = "arn:aws:iam::123456789012:role/batch"
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
PROMPTS = [f"prompt {i}" for i in range(5)]


def shout(line: dict[str, Any]) -> dict[str, Any]:
    text = line["modelInput"]["messages"][-1]["content"][0]["text"].upper()
    return {
        "modelOutput": {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 9, "outputTokens": 2, "totalTokens": 11},
        }
    }


class FakeAWS:
    """Bedrock's batch jobs and their bucket. A job advances by one status each time it is described."""

    meta = SimpleNamespace(events=HierarchicalEmitter())

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]] = shout, *, end: str = "Completed") -> None:
        self.answer, self.end = answer, end
        self.objects: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        self.looks: list[Exception] = []

    def client(self, service: str, **_: Any) -> FakeAWS:
        assert service in ("bedrock", "s3")
        return self

    def put_object(self, **request: Any) -> None:
        check_request("s3", "PutObject", request)
        self.objects[f"{request['Bucket']}/{request['Key']}"] = request["Body"]

    def get_object(self, **request: Any) -> dict[str, Any]:
        check_request("s3", "GetObject", request)
        return {"Body": io.BytesIO(self.objects[f"{request['Bucket']}/{request['Key']}"])}

    def get_paginator(self, operation: str) -> FakeAWS:
        assert operation == "list_objects_v2"
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        check_request("s3", "ListObjectsV2", request)
        start = f"{request['Bucket']}/"
        keys = [key.removeprefix(start) for key in self.objects if key.startswith(start + request["Prefix"])]
        yield {}
        for key in keys:
            yield {"Contents": [{"Key": key}]}

    def create_model_invocation_job(self, **request: Any) -> dict[str, str]:
        check_request("bedrock", "CreateModelInvocationJob", request)
        assert request["jobName"] not in {job["jobName"] for job in self.jobs.values()}
        self.created.append(request)
        arn = f"arn:aws:bedrock:us-west-2:123456789012:model-invocation-job/{len(self.jobs):012d}"
        self.jobs[arn] = {**request, "jobArn": arn, "status": "Submitted"}
        return {"jobArn": arn}

    def list_model_invocation_jobs(self, **request: Any) -> dict[str, Any]:
        check_request("bedrock", "ListModelInvocationJobs", request)
        found = [job for job in reversed(self.jobs.values()) if request["nameContains"] in job["jobName"]]
        page = int(request.get("nextToken", "0"))
        more = {"nextToken": str(page + 1)} if page + 1 < len(found) else {}
        keys = ("jobArn", "jobName", "status", "modelId", "roleArn", "inputDataConfig", "outputDataConfig")
        summaries = [{key: job[key] for key in keys} | {"submitTime": 0} for job in found[page : page + 1]]
        return {"invocationJobSummaries": summaries, **more}

    def get_model_invocation_job(self, *, jobIdentifier: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        check_request("bedrock", "GetModelInvocationJob", {"jobIdentifier": jobIdentifier})
        if self.looks:
            raise self.looks.pop()
        job = self.jobs[jobIdentifier]
        after = {"Submitted": "Validating", "Validating": "InProgress", "InProgress": self.end}
        job["status"] = after.get(job["status"], job["status"])
        if job["status"] in ("Completed", "PartiallyCompleted"):
            self.finish(job)
        return job | ({"message": "not enough quota."} if job["status"] == "Failed" else {})

    def finish(self, job: dict[str, Any]) -> None:
        uri = job["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].removeprefix("s3://")
        lines = [json.loads(line) for line in self.objects[uri].splitlines()]
        outputs = [{**line, **self.answer(line)} for line in lines]
        random.Random(0).shuffle(outputs)
        folder = job["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].removeprefix("s3://")
        folder += job["jobArn"].rsplit("/", 1)[1]
        content = "".join(json.dumps(output) + "\n" for output in outputs if output.get("recordId") is not None)
        self.objects[f"{folder}/input.jsonl.out"] = content.encode()
        self.objects[f"{folder}/manifest.json.out"] = b'{"totalRecordCount": 5}'


def batch(aws: FakeAWS, time: FakeTime | None = None, **options: Any) -> BatchFoundationModel:
    time = time or FakeTime()
    polling = Polling(interval_s=60, timeout_s=24 * 3600, sleep=time.sleep, clock=time.clock)
    settings: dict[str, Any] = {"role_arn": ROLE, "s3_uri": "s3://bucket/judging/", "min_records": 3} | options
    return BatchFoundationModel("global.some.judge-v1:0", session=aws, **({"polling": polling} | settings))


def test_answers_are_joined_by_record_id_in_the_order_of_the_prompts() -> None:
    aws, time = FakeAWS(), FakeTime()
    answers = batch(aws, time, system="Be brief.").generate(PROMPTS)
    assert answers == [Generation(prompt.upper(), "stop", 9, 2) for prompt in PROMPTS]
    assert time.sleeps == [60, 60]
    (request,) = aws.created
    assert request["modelInvocationType"] == "Converse"
    lines = [
        json.loads(line)
        for key, text in aws.objects.items()
        if key.endswith("input.jsonl")
        for line in text.splitlines()
    ]
    assert [line["recordId"] for line in lines] == [f"R{i:010d}" for i in range(5)]
    for line in lines:
        check_request("bedrock-runtime", "Converse", {"modelId": "m", **line["modelInput"]})


def test_structured_output_goes_into_each_record() -> None:
    aws = FakeAWS()
    batch(aws).generate_json(PROMPTS, SCHEMA, system="Grade.")
    (content,) = [text for key, text in aws.objects.items() if key.endswith("input.jsonl")]
    for line in map(json.loads, content.splitlines()):
        check_request("bedrock-runtime", "Converse", {"modelId": "m", **line["modelInput"]})
        assert line["modelInput"]["outputConfig"]["textFormat"]["type"] == "json_schema"
        assert line["modelInput"]["system"][0] == {"text": "Grade."}


def test_claude_records_use_the_body_of_invoke_model() -> None:
    def claude(line: dict[str, Any]) -> dict[str, Any]:
        assert line["modelInput"]["output_config"]["format"]["schema"] == SCHEMA
        return {"modelOutput": {"content": [{"type": "text", "text": "{}"}], "stop_reason": "end_turn"}}

    aws = FakeAWS(claude)
    assert [answer.text for answer in batch(aws, api="claude").generate_json(PROMPTS, SCHEMA)] == ["{}"] * 5
    assert aws.created[0]["modelInvocationType"] == "InvokeModel"


def test_the_same_prompts_find_their_job_again_and_other_prompts_create_a_new_one() -> None:
    aws = FakeAWS()
    impatient = Polling(timeout_s=0.1, clock=itertools.count(0.0, 0.2).__next__)
    with pytest.raises(BedrockError, match=r"model-invocation-job/0+ .*Validating"):
        batch(aws, polling=impatient).generate(PROMPTS)
    assert batch(aws).generate(PROMPTS) == batch(aws).generate(PROMPTS)
    assert len(aws.created) == 1
    batch(aws).generate(PROMPTS[:4])
    batch(aws, max_tokens=9).generate(PROMPTS)
    assert len({request["clientRequestToken"] for request in aws.created}) == 3


@pytest.mark.parametrize("end", ["Failed", "Stopped", "Expired"])
def test_the_error_for_a_failed_job_has_the_reason_and_the_same_call_creates_another_job(end: str) -> None:
    aws = FakeAWS(end=end)
    with pytest.raises(BedrockError, match=rf"model-invocation-job/0+ .*{end}: (.+)\. ") as caught:
        batch(aws).generate(PROMPTS)
    assert ("not enough quota" in str(caught.value)) == (end == "Failed")
    assert "None" not in str(caught.value)
    aws.end = "Completed"
    assert len(batch(aws).generate(PROMPTS)) == 5
    assert [request["jobName"][-2:] for request in aws.created] == ["-1", "-2"]


def test_records_that_failed_leave_the_others_in_partial() -> None:
    def some_fail(line: dict[str, Any]) -> dict[str, Any]:
        index = int(line["recordId"][1:])
        if index == 1:
            return {"error": {"errorCode": 400, "errorMessage": "secret text"}}
        return {"recordId": None} if index == 3 else shout(line)

    with pytest.raises(BedrockError, match=r"\b2 of 5\b.*1 × 400, 1 × missing.*`partial`") as caught:
        batch(FakeAWS(some_fail, end="PartiallyCompleted")).generate(PROMPTS)
    texts = [answer and answer.text for answer in caught.value.partial]
    assert texts == ["PROMPT 0", None, "PROMPT 2", None, "PROMPT 4"]
    assert "secret" not in str(caught.value)


def test_transient_errors_do_not_end_the_wait_but_a_refusal_does() -> None:
    aws = FakeAWS()
    aws.looks = [refusal("ThrottlingException"), refusal("InternalServerException")]
    assert len(batch(aws).generate(PROMPTS)) == 5
    aws = FakeAWS()
    aws.looks = [refusal("AccessDeniedException")]
    with pytest.raises(BedrockError, match="AccessDenied"):
        batch(aws).generate(PROMPTS)


def test_missing_answers_of_a_finished_job_are_an_error_with_their_location() -> None:
    aws = FakeAWS()
    batch(aws).generate(PROMPTS)
    aws.finish = lambda _: None  # type: ignore[method-assign] - no answers are written again
    aws.objects = {key: text for key, text in aws.objects.items() if not key.endswith(".out")}
    with pytest.raises(BedrockError, match=r"model-invocation-job/0+ .*s3://bucket/judging/\w+/output") as caught:
        batch(aws).generate(PROMPTS)
    assert "s3_uri" in str(caught.value)


def test_a_damaged_line_of_answers_is_an_error_with_its_file() -> None:
    aws = FakeAWS()
    batch(aws).generate(PROMPTS)
    (key,) = (key for key in aws.objects if key.endswith(".jsonl.out"))
    intact = aws.objects[key]
    aws.objects[key] = intact + b"\n  \n"
    aws.finish = lambda _: None  # type: ignore[method-assign] - the answers are not written again
    assert len(batch(aws).generate(PROMPTS)) == 5
    aws.objects[key] = intact + b"{\n"
    with pytest.raises(BedrockError, match=re.escape(f"s3://{key}") + ".* s3_uri"):
        batch(aws).generate(PROMPTS)


def test_another_s3_uri_replaces_deleted_answers() -> None:
    aws = FakeAWS()
    answers = batch(aws).generate(PROMPTS)
    aws.objects.clear()
    assert batch(aws, s3_uri="s3://bucket/again").generate(PROMPTS) == answers
    assert batch(aws, s3_uri="s3://bucket/again/").generate(PROMPTS) == answers
    assert len(aws.created) == 2
    assert all(key.startswith("bucket/again/") for key in aws.objects)


def test_the_fingerprint_depends_on_the_model_and_its_options() -> None:
    model = batch(FakeAWS())
    options = {
        "system": "s",
        "max_tokens": 9,
        "temperature": 0.5,
        "formatter": PromptFormatter(user="{schema}{question}"),
        "api": "claude",
        "structure": "tool",
    }
    changed = [batch(FakeAWS(), **{name: value}).fingerprint for name, value in options.items()]
    assert len({model.fingerprint, *changed}) == 7
    assert batch(FakeAWS()).fingerprint == model.fingerprint
    assert repr(model) == "BatchFoundationModel('global.some.judge-v1:0')"


def test_too_few_prompts_are_refused_before_anything_is_sent() -> None:
    aws = FakeAWS()
    with pytest.raises(ConfigError, match=r"\b2\b.*global\.some\.judge-v1:0.*\b3\b.*min_records"):
        batch(aws).generate(PROMPTS[:2])
    assert not aws.objects
    assert batch(aws).min_records == 3
    with pytest.raises(ConfigError, match="'one'"):
        batch(aws).generate("one")


def test_all_bad_options_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        batch(FakeAWS(), s3_uri="/tmp/x", timeout_hours=1, min_records=0)
    for option in (r"s3_uri\b.*'/tmp/x'", r"timeout_hours\b\D*\b1\b", r"min_records\b\D*\b0\b"):
        assert re.search(option, str(caught.value))
    with pytest.raises(ConfigError, match="model_id"):
        BatchFoundationModel(" ", role_arn=ROLE, s3_uri="s3://bucket/judging/", session=FakeAWS())
    with pytest.raises(ConfigError) as caught:
        batch(FakeAWS(), structure="xml", api="soap")
    for option in (r"structure\b.*'xml'", r"api\b.*'soap'"):
        assert re.search(option, str(caught.value))


@pytest.mark.parametrize("show", [True, False])
def test_the_progress_bar_shows_the_status_of_the_job(show: bool, capsys: pytest.CaptureFixture[str]) -> None:
    batch(FakeAWS(), show_progress=show).generate(PROMPTS)
    lines = [line.partition(",") for line in capsys.readouterr().err.splitlines()]
    assert [name for name, *_ in lines] == [f"batch job of global.some.judge-v1:0: {done}/5" for done in (0, 5)] * show
    assert not show or lines[-1][2].startswith(" Completed")
