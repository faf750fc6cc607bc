"""Faults on the way from checkpoint to answer raise a typed error with the next step, and a repeated call succeeds.

Each test repeats the call when the fault is over. Nothing is uploaded twice, there is no second job, and no log record
or exception contains a secret.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bedrock_flows import QUESTIONS, Flow, flow, without_secrets
from bedrock_scripted import finish_merged
from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.emulator.faults import (
    AccessDenied,
    AnswerReset,
    ExpiredToken,
    Fault,
    JobFails,
    JobHangs,
    ModelDeleted,
    NoText,
    NotReady,
    QuotaExceeded,
    RateLimit,
    Refused,
    RoleUnknown,
    StreamBroken,
    Throttled,
    UploadReset,
)
from sqlquarry.errors import (
    BedrockError,
    GenerationError,
    ImportJobError,
    ImportTimeoutError,
    ModelNotReadyError,
    PreflightError,
)
from sqlquarry.models import ImportedModel
from sqlquarry.prompt import PromptFormatter

from conftest import save_tiny_llama

MIB = 1 << 20
ALWAYS = math.inf


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> MergedModel:
    """Return a model with 19 MB in one shard, so that it is uploaded in several parts."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048}
    directory = tmp_path_factory.mktemp("flow")
    return finish_merged(save_tiny_llama(directory / "base", **sizes), directory / "merged")


@pytest.fixture(scope="module")
def running(merged: MergedModel) -> Iterator[Flow]:
    with flow(merged) as one:
        yield one


@pytest.fixture
def way(running: Flow, caplog: pytest.LogCaptureFixture) -> Flow:
    """Return a flow with an empty account."""
    running.aws.reset()
    running.stored.clear()
    return listening(running, caplog)


@pytest.fixture
def served(running: Flow, caplog: pytest.LogCaptureFixture) -> Flow:
    """Return a flow whose account may already have the model."""
    running.aws.faults.clear()
    return listening(running, caplog)


def listening(way: Flow, caplog: pytest.LogCaptureFixture) -> Flow:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="sqlquarry")
    return way


def generate(model: ImportedModel) -> list[str]:
    return [answer.text for answer in model.generate(QUESTIONS)]


def stream(model: ImportedModel) -> list[str]:
    return ["".join(model.stream(QUESTIONS[0]))]


def succeeds(way: Flow) -> None:
    """Repeat the call without faults: it makes one model with one completed job, and stores each part once."""
    way.aws.faults.clear()
    model = way.run()
    assert generate(model) == QUESTIONS
    assert set(way.stored.values()) == {1}
    assert way.jobs().count("Completed") == 1
    assert len(way.importer.list_models()) == 1


SIGNED = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key.\n"
    "\nThe Canonical String for this request should have been\n'POST\n/\n\nx-amz-security-token:IQoJb3JpZ2luX2Vj"
    "EXAMPLETOKEN\n'"
)
IMPORTING: dict[str, tuple[Fault, type[BedrockError], str]] = {
    "connection-reset-in-mid-upload": (
        UploadReset(after_bytes=4 * MIB, times=ALWAYS),
        BedrockError,
        r"model\.safetensors.*\b6\b",
    ),
    "credentials-expire-in-mid-upload": (
        ExpiredToken(operation="UploadPart"),
        BedrockError,
        r"model\.safetensors.*expired.*aws sso login",
    ),
    "credentials-expire-while-waiting": (
        ExpiredToken(operation="GetModelImportJob"),
        BedrockError,
        r"expired.*aws sso login.*attach\('arn:",
    ),
    "signature-refused": (
        Refused(operation="CreateModelImportJob", code="InvalidSignatureException", message=SIGNED, times=ALWAYS),
        BedrockError,
        r"InvalidSignatureException.*does not match.*clock",
    ),
    "access-denied-on-one-key": (
        AccessDenied(operation="PutObject", key="*/tokenizer.json"),
        BedrockError,
        r"tokenizer\.json.*AccessDenied.*s3:PutObject",
    ),
    "access-denied-to-create": (
        AccessDenied(operation="CreateModelImportJob"),
        BedrockError,
        r"bedrock:CreateModelImportJob.*iam:PassRole.*bedrock\.amazonaws\.com",
    ),
    "role-unknown": (
        RoleUnknown(times=ALWAYS),
        BedrockError,
        r"role ARN is invalid.*aws:SourceArn.*aws:SourceAccount",
    ),
    "slot-taken": (QuotaExceeded(times=ALWAYS), ImportTimeoutError, r"'flow'.* 3600 s"),
    "quota-exceeded": (
        QuotaExceeded(message="request a quota increase for Imported models per account"),
        BedrockError,
        r"Imported models per account.*3 imported models.*L-45B04988",
    ),
    "name-conflict": (
        Refused(operation="CreateModelImportJob", code="ConflictException", message="name is in use"),
        BedrockError,
        r"ConflictException.*name is in use",
    ),
    "service-in-trouble": (
        Refused(operation="CreateModelImportJob", times=ALWAYS),
        BedrockError,
        r"InternalServerException",
    ),
    "job-fails": (
        JobFails(message="could not find the expected file config.json"),
        ImportJobError,
        r"expected file config\.json.*Cause: .*archive.*Fix: .*uncompressed prefix",
    ),
    "job-never-ends": (JobHangs(), ImportTimeoutError, r"InProgress.* 3600 s.*attach\('arn:"),
}


@pytest.mark.parametrize("name", IMPORTING)
def test_a_broken_import_says_what_to_do_and_the_next_run_finishes_it(
    name: str, way: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    fault, kind, says = IMPORTING[name]
    way.aws.faults.add(fault)
    with pytest.raises(kind, match=f"(?s){says}") as caught:
        way.run()
    assert type(caught.value) is kind
    assert without_secrets(caught.value, caplog.records)
    succeeds(way)


def test_a_short_break_is_not_an_error(way: Flow) -> None:
    way.aws.faults.add(
        UploadReset(after_bytes=4 * MIB),
        AnswerReset(operation="CreateModelImportJob"),
        AnswerReset(operation="GetModelImportJob", times=3),
        AnswerReset(operation="InvokeModel", after_bytes=9, times=2),
        RoleUnknown(times=3),
        QuotaExceeded(times=3),
        Throttled(times=2),
    )
    model = way.run()
    assert generate(model) == QUESTIONS
    assert way.aws.faults.pending() == []
    assert set(way.stored.values()) == {1}
    assert way.jobs() == ["Completed"]


def test_a_job_that_outlasts_the_timeout_is_attached_to(way: Flow) -> None:
    way.aws.faults.add(JobHangs(duration_s=2 * 3600))
    with pytest.raises(ImportTimeoutError) as caught:
        way.run()
    job = str(caught.value).split("attach('")[1].split("'")[0]
    assert way.importer.attach(job, formatter=PromptFormatter.load(way.merged.path)).name == "flow"
    assert way.jobs() == ["Completed"]


def truncated(_: Flow, model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def without_a_shard(_: Flow, model: Path) -> None:
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def no_change(*_: object) -> None:
    pass


def far_bucket(way: Flow, _: Path) -> None:
    way.s3.create_bucket(Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def untrusting(way: Flow, _: Path) -> None:
    iam = way.session.client("iam")
    iam.create_role(RoleName="untrusting", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17"}))


def three_models(way: Flow, _: Path) -> None:
    way.run()
    for name in ("second", "third"):
        way.importer.import_model(way.uri, name)


REFUSED: dict[str, tuple[Callable[[Flow, Path], None], dict[str, str], str]] = {
    "shard-truncated": (truncated, {}, r"\[weights\] model\.safetensors"),
    "index-names-missing-shard": (without_a_shard, {}, r"\[shard-missing\].*model-00002-of-00002\.safetensors"),
    "prefix-with-a-space": (no_change, {"s3_uri": "s3://models/my model/"}, r"\[s3-uri\].*'s3://models/my model/'"),
    "name-with-a-dot": (no_change, {"name": "no.dots"}, r"\[model-name\].*'no\.dots'"),
    "bucket-in-another-region": (far_bucket, {"s3_uri": "s3://far/flow/"}, r"\[bucket-region\].*eu-west-1.*us-east-1"),
    "no-such-bucket": (no_change, {"s3_uri": "s3://nowhere/flow/"}, r"\[bucket\] nowhere"),
    "no-such-role": (no_change, {"role": "nobody"}, r"\[role\] .*nobody"),
    "role-without-trust": (untrusting, {"role": "untrusting"}, r"\[role-trust\].*untrusting"),
    "three-models": (three_models, {"name": "fourth"}, r"\[model-quota\].*3 of 3.*L-45B04988"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_late_failure_is_refused_before_anything_is_sent(
    name: str, way: Flow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare, options, says = REFUSED[name]
    copy = Path(shutil.copytree(way.merged.path, tmp_path / "copy", copy_function=shutil.copy))
    prepare(way, copy)
    there = dict(way.stored)
    importer = way.importer
    if "role" in options:
        role = f"{way.aws.role_arn.rpartition('/')[0]}/{options['role']}"
        importer = BedrockImporter(role, session=way.session, show_progress=False)
    asked = {"name": "flow", "s3_uri": way.uri} | {key: value for key, value in options.items() if key != "role"}
    with pytest.raises(PreflightError, match=says) as caught:
        importer.import_model(copy, **asked)
    assert without_secrets(caught.value, caplog.records)
    assert way.stored == there
    if not there:
        assert way.jobs() == []
        succeeds(way)


ASKING: dict[str, tuple[Fault, type[BedrockError], str]] = {
    "model-deleted-meanwhile": (ModelDeleted(), BedrockError, r"ResourceNotFoundException.*import_model"),
    "answer-without-text": (NoText(times=ALWAYS), GenerationError, r"'choices', 'created', 'id'.*choices\[0\]\.text"),
    "throttled-without-end": (Throttled(times=ALWAYS), BedrockError, r"Too many requests.*`concurrency`"),
    "cold-beyond-the-budget": (NotReady(times=ALWAYS), ModelNotReadyError, r" 900 s.*cold_start_budget_s"),
    "credentials-expire": (ExpiredToken(), BedrockError, r"expired.*aws sso login"),
    "access-denied-to-invoke": (
        AccessDenied(operation="InvokeModel*"),
        BedrockError,
        r"InvokeModel on imported-model/\*",
    ),
    "connection-breaks": (
        AnswerReset(after_bytes=9, times=ALWAYS),
        BedrockError,
        r"arn:.*Connection",
    ),
    "stream-broken": (StreamBroken(), BedrockError, r"modelStreamErrorException"),
    "model-error": (
        Refused(operation="InvokeModel*", code="ModelErrorException", message="CUDA error", times=ALWAYS),
        BedrockError,
        r"CUDA error.*probe_parity",
    ),
}


@pytest.mark.parametrize("name", ASKING)
def test_a_broken_answer_says_what_to_do_and_the_next_call_gets_it(
    name: str, served: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    fault, kind, says = ASKING[name]
    model = served.run()
    ask, expected = (stream, QUESTIONS[:1]) if name == "stream-broken" else (generate, QUESTIONS)
    served.aws.faults.add(fault)
    with pytest.raises(kind, match=f"(?s){says}") as caught:
        ask(model)
    assert type(caught.value) is kind
    assert without_secrets(caught.value, caplog.records)
    served.aws.faults.clear()
    again = served.run()  # the same model, unless it was deleted
    assert (again.arn == model.arn) == (name != "model-deleted-meanwhile")
    assert ask(again) == expected
    assert set(served.stored.values()) == {1}


def test_a_low_rate_is_adapted_to(served: Flow) -> None:
    model = served.run().with_options(retry=served.retry(max_attempts=10))
    served.aws.faults.add(RateLimit(per_second=1))
    before = served.clock()
    assert len(model.generate([f"SELECT {n}" for n in range(8)])) == 8
    assert served.clock() - before >= 7


def test_a_cold_start_of_minutes_is_waited_out(served: Flow) -> None:
    model = served.run()
    served.aws.faults.add(NotReady(duration_s=240))
    assert model.warm_up() == pytest.approx(240, abs=10)
    assert generate(model) == QUESTIONS
