"""BedrockImporter with a scripted Bedrock, moto's S3 and simulated time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest

from bedrock_scripted import JOB, MODEL, Script, ScriptedSession, finish_merged, scripted_aws
from sqlquarry.artifacts import MergedModel
from sqlquarry.aws.polling import Polling
from sqlquarry.aws.transfer import REQUESTS_IN_FLIGHT
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.preflight import request as checks
from sqlquarry.errors import (
    BedrockError,
    ConfigError,
    CorruptArtifactError,
    ImportJobError,
    ImportTimeoutError,
    PreflightError,
    PromptMismatchError,
)
from sqlquarry.manifests import write_manifest
from sqlquarry.models import ImportedModel
from sqlquarry.prompt import PromptFormatter

ROLE = "arn:aws:iam::123456789012:role/import"
URI = "s3://models/runs/one/"
SLOT = ("ServiceQuotaExceededException", "request a quota increase for Concurrent model import jobs")
UNKNOWN_ROLE = ("ValidationException", "The provided role ARN is invalid")


@dataclass
class World:
    """An importer with AWS's scripted answers and a record of its sleeps."""

    aws: ScriptedSession
    script: Script
    merged: MergedModel
    sleeps: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.importer = BedrockImporter(
            ROLE,
            session=self.aws,
            polling=Polling(timeout_s=600, sleep=self.sleeps.append, clock=lambda: sum(self.sleeps)),
        )
        self.formatter = PromptFormatter.load(self.merged.path)
        self.fingerprint = self.formatter.fingerprint
        self.digest = ModelExport.of(self.merged).manifest.digest
        self.job_name = f"sql-{self.digest[:12]}"

    def run(self) -> ImportedModel:
        return self.importer.import_model(self.merged, "sql", s3_uri=URI)


@pytest.fixture(scope="module")
def merged(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> MergedModel:
    return finish_merged(tiny_llama, tmp_path_factory.mktemp("merged") / "model")


@pytest.fixture
def world(merged: MergedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The account's checks have their own tests. Here they would load six more clients per test.
    monkeypatch.setattr("sqlquarry.bedrock.importer.check_account", lambda *_, **__: [])
    with scripted_aws() as aws:
        yield World(aws, Script(aws.bedrock), merged)


def test_upload_job_and_model(world: World) -> None:
    tags = [
        {"key": "team", "value": "data"},
        {"key": "sqlquarry:manifest", "value": world.digest},
        {"key": "sqlquarry:prompt", "value": world.fingerprint},
    ]
    vpc = {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]}
    key = "arn:aws:kms:us-east-1:123456789012:alias/models"
    world.script.until_create(world.job_name)
    world.script.create(
        jobName=world.job_name,
        importedModelName="sql",
        roleArn=ROLE,
        modelDataSource={"s3DataSource": {"s3Uri": URI}},
        jobTags=tags,
        importedModelTags=tags,
        vpcConfig=vpc,
        importedModelKmsKeyId=key,
    )
    world.script.job("InProgress")
    world.script.job("InProgress")
    world.script.completes(world.fingerprint)

    model = world.importer.import_model(
        world.merged, "sql", s3_uri=URI, tags={"team": "data"}, vpc_config=vpc, kms_key_id=key
    )

    world.script.played()
    assert isinstance(model, ImportedModel)
    assert (model.arn, model.name, model.formatter) == (MODEL, "sql", world.formatter)
    assert world.sleeps == [30, 30]
    assert "runs/one/manifest.json" in world.aws.objects()
    # The library itself retries both, with its own waits.
    attempts = {service: config.retries["total_max_attempts"] for service, config in world.aws.configs.items()}
    assert attempts == {"bedrock": 2, "s3": 3, "sts": 2, "bedrock-runtime": 2}
    assert world.aws.configs["s3"].max_pool_connections >= REQUESTS_IN_FLIGHT


def test_the_same_content_and_names_have_the_same_token(world: World) -> None:
    tokens: list[str] = []
    world.aws.bedrock.meta.events.register_first(
        "before-parameter-build.bedrock.CreateModelImportJob",
        lambda params, **_: tokens.append(params["clientRequestToken"]),
    )
    for taken in ([], [], [world.job_name]):
        world.script.models()
        world.script.running()
        world.script.taken(world.job_name, *taken)
        world.script.create()
        world.script.completes(world.fingerprint)
        world.run()
    first, again, retried = tokens
    assert first == again
    assert retried != first


def test_the_importers_bucket_gives_a_prefix_by_content(world: World) -> None:
    prefix = f"sqlquarry/sql/{world.digest[:12]}/"
    world.script.until_create(world.job_name)
    world.script.create(modelDataSource={"s3DataSource": {"s3Uri": f"s3://models/{prefix}"}})
    world.script.job("Complete", importedModelArn=MODEL)  # the spelling on some of the service's pages
    world.script.model(world.fingerprint)
    BedrockImporter(ROLE, session=world.aws, bucket="models").import_model(world.merged, "sql")
    assert all(key.startswith(prefix) for key in world.aws.objects())


def test_an_imported_model_with_the_same_content_is_returned_immediately(world: World) -> None:
    world.script.models("sql-older", "sql")
    world.script.tags(MODEL, manifest=world.digest)
    world.script.model(world.fingerprint)
    assert world.run().arn == MODEL
    world.script.played()
    assert world.aws.objects() == []


@pytest.mark.parametrize("tags", [{"manifest": "0" * 64}, {}])
def test_a_name_taken_by_other_content_is_an_error(world: World, tags: dict[str, str]) -> None:
    world.script.models("sql")
    world.script.tags(MODEL, **tags)
    with pytest.raises(BedrockError, match=rf"'sql' \({MODEL}\).*'{world.digest}'.*importer\.delete\('sql'\)"):
        world.run()


def test_a_running_job_of_the_same_content_is_attached_to(world: World) -> None:
    world.script.models()
    world.script.running("another-model", "sql")
    world.script.tags(JOB, manifest=world.digest)
    world.script.completes(world.fingerprint)
    assert world.run().arn == MODEL
    world.script.played()
    assert world.aws.objects() == []


def test_a_running_job_of_other_content_under_the_same_name_is_an_error(world: World) -> None:
    world.script.models()
    world.script.running("sql")
    world.script.tags(JOB, manifest="0" * 64)
    with pytest.raises(BedrockError, match=f"{JOB}.*'sql'"):
        world.run()


def test_a_retry_after_a_failed_job_takes_the_next_job_name(world: World) -> None:
    world.script.models()
    world.script.running()
    world.script.taken(world.job_name, world.job_name, f"{world.job_name}-2")
    world.script.create(jobName=f"{world.job_name}-3")
    world.script.completes(world.fingerprint)
    world.run()
    world.script.played()


def test_a_given_job_name_must_be_unused(world: World) -> None:
    world.script.models()
    world.script.running()
    world.script.taken("mine", "mine")
    with pytest.raises(BedrockError, match=r"'mine'.* job_name"):
        world.importer.import_model(world.merged, "sql", s3_uri=URI, job_name="mine")
    assert world.aws.objects() == []


def test_the_one_import_slot_is_waited_for(world: World) -> None:
    world.script.until_create(world.job_name)
    world.script.create_fails(*SLOT, times=3)
    world.script.create()
    world.script.completes(world.fingerprint)
    world.run()
    world.script.played()
    assert world.sleeps == [30, 30, 30]


def test_the_wait_for_the_slot_ends(world: World) -> None:
    world.script.until_create(world.job_name)
    world.script.create_fails(*SLOT, times=21)
    with pytest.raises(ImportTimeoutError, match=r"'sql'.* 600 s"):
        world.run()
    world.script.played()
    assert sum(world.sleeps) == 600


def test_a_role_that_is_too_new_is_tried_again(world: World) -> None:
    world.script.until_create(world.job_name)
    world.script.create_fails(*UNKNOWN_ROLE, times=2)
    world.script.create()
    world.script.completes(world.fingerprint)
    world.run()
    assert world.sleeps == [10, 10]


def test_a_role_that_stays_unknown_is_explained(world: World) -> None:
    world.script.until_create(world.job_name)
    world.script.create_fails(*UNKNOWN_ROLE, times=13)
    with pytest.raises(BedrockError, match=r"aws:SourceArn.*aws:SourceAccount"):
        world.run()
    world.script.played()
    assert sum(world.sleeps) == 120


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        ("ServiceQuotaExceededException", "Imported models per account", "L-45B04988"),
        ("ConflictException", "name in use", "ConflictException"),
        ("AccessDeniedException", "not authorized", "iam:PassRole"),
        ("ValidationException", "something else", "something else"),
    ],
)
def test_other_refusals_are_explained_without_a_retry(world: World, code: str, message: str, advice: str) -> None:
    world.script.until_create(world.job_name)
    world.script.create_fails(code, message)
    with pytest.raises(BedrockError, match=advice) as caught:
        world.run()
    assert caught.value.__cause__ is not None
    assert world.sleeps == []


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("could not find the expected file config.json", "uncompressed prefix"),
        ("Unsupported model architecture: GemmaForCausalLM", "base model"),
        ("size mismatch for lm_head", "16-bit"),
        ("config.json holds quantization_config: quantized weights cannot be imported", "16-bit"),
        ("could not find the expected file model.safetensors.index.json", "Cause: .*model.safetensors.index.json"),
        ("Access denied to bucket", "s3:GetObject"),
        ("the moon is full", "the moon is full"),
    ],
)
def test_a_failed_jobs_error_has_its_reason_and_a_fix(world: World, reason: str, advice: str) -> None:
    world.script.job("InProgress")
    world.script.job("Failed", failureMessage=reason)
    with pytest.raises(ImportJobError, match=advice) as caught:
        world.importer.attach(JOB, formatter=world.formatter)
    assert reason in str(caught.value)
    assert JOB in str(caught.value)


def test_a_slow_job_times_out_with_its_arn(world: World) -> None:
    for _ in range(21):
        world.script.job("InProgress")
    with pytest.raises(ImportTimeoutError, match=f"{JOB}.*InProgress.* 600 s"):
        world.importer.attach(JOB, formatter=world.formatter)
    world.script.played()
    assert sum(world.sleeps) == 600


def test_an_interrupted_wait_says_how_to_resume(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    world.script.job("InProgress")
    with pytest.raises(KeyboardInterrupt):
        BedrockImporter(ROLE, session=world.aws, polling=Polling(sleep=interrupt)).attach(
            JOB, formatter=world.formatter
        )
    assert f"attach('{JOB}', formatter=…)" in caplog.text


def test_attach_to_a_model(world: World) -> None:
    world.script.model(world.fingerprint)
    assert world.importer.attach(MODEL, formatter=world.formatter).name == "sql"


def test_attach_refuses_another_prompt(world: World) -> None:
    world.script.model("0" * 16)
    with pytest.raises(PromptMismatchError, match="0000000000000000"):
        world.importer.attach(MODEL, formatter=world.formatter)


def test_attach_to_nothing_is_explained(world: World) -> None:
    world.script.job_fails("ResourceNotFoundException", "no such job")
    with pytest.raises(BedrockError, match=rf"{JOB}.*ResourceNotFoundException.*no such job"):
        world.importer.attach(JOB, formatter=world.formatter)


def test_nothing_happens_when_preflight_fails(world: World) -> None:
    # The script is empty, so any call would raise an error.
    with pytest.raises(PreflightError, match=r"\[model-name\]"):
        world.importer.import_model(world.merged, "no.dots", s3_uri=URI)


def test_a_destination_for_the_upload_is_required(world: World) -> None:
    with pytest.raises(ConfigError, match="s3_uri='s3://bucket/prefix/'"):
        world.importer.import_model(world.merged, "sql")


def test_changed_weights_are_not_uploaded(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.merged.path, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    world.script.until_create(world.job_name)
    with pytest.raises(CorruptArtifactError, match=r"model\.safetensors"):
        world.importer.import_model(MergedModel.load(tmp_path / "model"), "sql", s3_uri=URI)
    assert world.aws.objects() == []


def test_weights_written_after_the_model_was_loaded_are_not_uploaded(world: World, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(world.merged.path, tmp_path / "model"))
    loaded = MergedModel.load(copy)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    write_manifest(copy, MergedModel.kind, loaded.manifest.provenance)
    world.script.until_create(world.job_name)
    with pytest.raises(CorruptArtifactError, match=r"MergedModel\.load\(\)"):
        world.importer.import_model(loaded, "sql", s3_uri=URI)
    assert world.aws.objects() == []


def test_all_bad_options_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        BedrockImporter("admin", role_propagation_s=-1)
    assert "role_arn 'admin'" in str(caught.value)
    assert "role_propagation_s is -1" in str(caught.value)
    with pytest.raises(ConfigError, match="interval_s is -1"):
        Polling(interval_s=-1)


@pytest.mark.usefixtures("world")
def test_a_region_is_required() -> None:
    with pytest.raises(ConfigError, match="region_name='us-east-1'"):
        BedrockImporter(ROLE, session=boto3.session.Session())
    assert BedrockImporter(ROLE, session=boto3.session.Session(region_name="us-west-2"))


def test_patterns_are_those_of_the_service(world: World) -> None:
    members = world.aws.bedrock.meta.service_model.operation_model("CreateModelImportJob").input_shape.members
    # The patterns are private, and only comparing them shows that they equal the service's.
    assert members["importedModelName"].metadata["pattern"] == checks._MODEL_NAME.pattern
    pattern = re.compile(members["jobName"].metadata["pattern"])
    for name in ("a", "a-", "a--b", "a.b+c-", "1", "-a", "a_b", ".a", "+"):
        assert bool(checks._JOB_NAME.fullmatch(name)) == bool(pattern.fullmatch(name)), name
