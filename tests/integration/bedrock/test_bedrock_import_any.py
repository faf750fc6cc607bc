"""Import any directory or S3 prefix into Bedrock, and faults around the import job."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from bedrock_scripted import JOB, MODEL, Script, ScriptedSession, finish_merged, scripted_aws
from sqlquarry.artifacts import MergedModel
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.import_jobs import expected_minutes
from sqlquarry.bedrock.import_request import VpcConfig
from sqlquarry.bedrock.preflight.findings import error
from sqlquarry.bedrock.upload import upload
from sqlquarry.errors import (
    BedrockError,
    ConfigError,
    ImportTimeoutError,
    PreflightError,
    PromptMismatchError,
)
from sqlquarry.models import ImportedModel, PriceTable
from sqlquarry.prompt import PromptFormatter

ROLE = "arn:aws:iam::123456789012:role/import"
URI = "s3://models/foreign/"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class World:
    aws: ScriptedSession
    script: Script
    account: list[Any] = field(default_factory=list)  # findings of the account's checks
    sleeps: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.importer = BedrockImporter(
            ROLE,
            session=self.aws,
            polling=Polling(timeout_s=600, sleep=self.sleeps.append, clock=lambda: sum(self.sleeps)),
        )

    def stub(self, operation: str, answer: dict[str, Any], expected: dict[str, Any]) -> None:
        self.script.stub.add_response(operation, answer, expected)

    def until_done(self, digest: str, *, prompt: str | None, uri: str = URI, **expected: Any) -> None:
        """Script an account without the model, and a job with these tags that completes."""
        base = f"sql-{digest[:12]}"
        tags = [{"key": "sqlquarry:manifest", "value": digest}]
        tags += [{"key": "sqlquarry:prompt", "value": prompt}] if prompt else []
        self.script.until_create(base)
        source = {"s3DataSource": {"s3Uri": uri}}
        self.script.create(jobName=base, jobTags=tags, importedModelTags=tags, modelDataSource=source, **expected)
        self.finished(prompt)

    def finished(self, prompt: str | None) -> None:
        self.script.job("Completed", importedModelArn=MODEL)
        self.script.tags(MODEL, **({"prompt": prompt} if prompt else {}))
        self.stub("get_imported_model", {"modelArn": MODEL, "modelName": "sql"}, {"modelIdentifier": MODEL})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with scripted_aws() as aws:
        world = World(aws, Script(aws.bedrock))
        for module in ("importer", "preflight.run"):
            monkeypatch.setattr(f"sqlquarry.bedrock.{module}.check_account", lambda *_, **__: world.account)
        yield world


@pytest.fixture(scope="module")
def merged(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> MergedModel:
    return finish_merged(tiny_llama, tmp_path_factory.mktemp("merged") / "model")


@pytest.fixture(scope="module")
def formatter(tiny_llama: Path) -> PromptFormatter:
    from transformers import AutoTokenizer

    return PromptFormatter(template="chat").bind(AutoTokenizer.from_pretrained(tiny_llama))


def test_a_foreign_directory_is_exported_and_answers_texts(world: World, tiny_llama: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    (source / "optimizer.pt").write_bytes(b"x")
    world.until_done(ModelExport.of(source).manifest.digest, prompt=None)
    model = world.importer.import_model(source, "sql", s3_uri=URI)
    assert isinstance(model, ImportedModel)
    assert model.formatter is None
    uploaded = {key.removeprefix("foreign/") for key in world.aws.objects()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"} <= uploaded
    assert not uploaded & {"optimizer.pt", "prompt.json", "chat_template.jinja"}
    config = json.loads(world.aws.s3.get_object(Bucket="models", Key="foreign/config.json")["Body"].read())
    assert "rope_theta" in config
    assert "rope_parameters" not in config


def test_a_formatter_is_uploaded_with_the_model(world: World, tiny_llama: Path, formatter: PromptFormatter) -> None:
    world.until_done(ModelExport.of(tiny_llama, formatter).manifest.digest, prompt=formatter.fingerprint)
    model = world.importer.import_model(str(tiny_llama), "sql", s3_uri=URI, formatter=formatter)
    assert model.formatter == formatter
    assert "foreign/prompt.json" in world.aws.objects()


def test_other_weights_have_another_digest(tiny_llama: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    assert ModelExport.of(copy).manifest.digest == ModelExport.of(tiny_llama).manifest.digest
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert ModelExport.of(copy).manifest.digest != ModelExport.of(tiny_llama).manifest.digest


def test_the_path_of_a_merged_model_imports_that_model(world: World, merged: MergedModel) -> None:
    world.until_done(ModelExport.of(merged).manifest.digest, prompt=PromptFormatter.load(merged.path).fingerprint)
    assert world.importer.import_model(merged.path, "sql", s3_uri=Path(URI)).formatter == PromptFormatter.load(
        merged.path
    )


def test_a_prompt_that_differs_from_the_weights_prompt_is_refused(
    world: World, merged: MergedModel, formatter: PromptFormatter
) -> None:
    with pytest.raises(PromptMismatchError, match=formatter.fingerprint):
        world.importer.import_model(merged, "sql", s3_uri=URI, formatter=formatter)
    assert world.aws.objects() == []


def test_a_prefix_is_imported_unchanged_with_the_digest_of_its_upload(world: World, merged: MergedModel) -> None:
    export = ModelExport.of(merged)
    upload(export, URI, s3=world.aws.s3, show_progress=False)
    writes: list[str] = []
    world.aws.s3.meta.events.register("before-call.s3.PutObject", lambda **_: writes.append("put"))
    world.until_done(export.manifest.digest, prompt=PromptFormatter.load(merged.path).fingerprint)
    model = world.importer.import_model(URI, "sql")
    assert model.formatter == PromptFormatter.load(merged.path)
    assert writes == []


def test_a_prefix_from_another_tool_is_identified_by_its_etags(world: World, merged: MergedModel) -> None:
    for name, content in ModelExport.of(merged).files.items():
        body = content if isinstance(content, bytes) else content.read_bytes()
        if name != "prompt.json":
            world.aws.s3.put_object(Bucket="models", Key=f"foreign/{name}", Body=body)
    from sqlquarry.aws.prefix import S3Prefix
    from sqlquarry.bedrock.staging import prefix_manifest
    from sqlquarry.files.locations import S3Location

    prefix = S3Prefix(world.aws.s3, S3Location.parse(URI))
    digest = prefix_manifest(prefix).digest
    assert prefix_manifest(prefix).digest == digest
    world.until_done(digest, prompt=None)
    assert world.importer.import_model(URI, "sql").formatter is None
    world.aws.s3.put_object(Bucket="models", Key="foreign/config.json", Body=b"{} ")
    assert prefix_manifest(prefix).digest != digest


def test_account_errors_are_reported_before_the_upload(world: World, merged: MergedModel) -> None:
    world.account = [
        error("bucket-region", "models", "the bucket is in eu-west-1, but the import is in us-east-1", "", "Move")
    ]
    world.script.until_create(f"sql-{ModelExport.of(merged).manifest.digest[:12]}")
    with pytest.raises(PreflightError, match=r"\[bucket-region\] models.*eu-west-1.*us-east-1"):
        world.importer.import_model(merged, "sql", s3_uri=URI)
    assert world.aws.objects() == []


def test_a_bucket_of_another_region_is_refused_with_both_regions(world: World, merged: MergedModel) -> None:
    from sqlquarry.bedrock.preflight.account import check_bucket

    s3 = world.aws.s3
    s3.create_bucket(Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    world.account = [*check_bucket(s3, "far", "us-east-1")]
    world.script.until_create(f"sql-{ModelExport.of(merged).manifest.digest[:12]}")
    with pytest.raises(PreflightError, match=r"\[bucket-region\] far.*eu-west-1.*us-east-1"):
        world.importer.import_model(merged, "sql", s3_uri="s3://far/x/")


def test_a_prefix_with_a_space_is_refused_before_anything_is_sent(world: World, merged: MergedModel) -> None:
    with pytest.raises(PreflightError, match=r"\[s3-uri\].*'s3://models/my model/'"):
        world.importer.import_model(merged, "sql", s3_uri="s3://models/my model/")
    assert world.aws.objects() == []


def test_all_bad_options_are_reported_together(world: World, merged: MergedModel) -> None:
    with pytest.raises(ConfigError) as caught:
        world.importer.import_model(
            merged,
            "sql",
            formatter=PromptFormatter(),
            tags={"aws:x": "1", "a|b": "c"},
            kms_key_id="no key",
            vpc_config={"subnetIds": [], "groups": ["sg-1"]},
        )
    keys = "['groups', 'subnetIds']"
    for part in ("'aws:x'", "'a|b'='c'", "'no key'", keys, "'subnetIds' is []", "formatter.bind(", "bucket='…'"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match=f"s3_uri is '{URI}'"):
        world.importer.import_model(URI, "sql", s3_uri=URI)


def test_limits_are_those_of_the_service(world: World) -> None:
    from sqlquarry.bedrock import import_request as request

    members = world.aws.bedrock.meta.service_model.operation_model("CreateModelImportJob").input_shape.members
    assert request.KMS_KEY.pattern == members["importedModelKmsKeyId"].metadata["pattern"]
    assert members["jobTags"].metadata["max"] == request.MAX_TAGS
    # The pattern is private, and only comparing it shows that it equals the service's.
    assert request._TAG_TEXT.pattern == members["jobTags"].member.members["key"].metadata["pattern"]
    vpc = members["vpcConfig"].members
    assert {name: shape.metadata["max"] for name, shape in vpc.items()} == {"subnetIds": 16, "securityGroupIds": 5}
    network: VpcConfig = {"subnetIds": ["s-1"], "securityGroupIds": ["g-1"]}
    assert list(request.option_problems({"team": "data"}, "alias/models", network)) == []


def test_a_break_while_waiting_is_waited_out(world: World) -> None:
    closed = ConnectionClosedError(endpoint_url="https://bedrock")
    breaks = [closed, closed]

    def fail(**_: Any) -> None:
        if breaks:
            raise breaks.pop()

    world.aws.bedrock.meta.events.register_first("before-parameter-build.bedrock.GetModelImportJob", fail)
    world.finished(None)
    assert world.importer.attach(JOB).arn == MODEL
    assert world.sleeps == [30, 30]


def test_a_permanent_break_ends_with_the_call_to_resume(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise ConnectionClosedError(endpoint_url="https://bedrock")

    monkeypatch.setattr(world.aws.bedrock, "get_model_import_job", fail)
    with pytest.raises(ImportTimeoutError, match=rf"unknown.* 600 s.*attach\('{JOB}'"):
        world.importer.attach(JOB)


def test_credentials_that_expire_while_waiting_do_not_lose_the_job(world: World) -> None:
    world.script.job("InProgress")
    world.script.job_fails("ExpiredTokenException", "The security token included in the request is expired")
    with pytest.raises(BedrockError, match=rf"ExpiredTokenException.*attach\('{JOB}', formatter=…\)"):
        world.importer.attach(JOB)


def test_a_lost_answer_to_create_does_not_make_a_second_job(world: World, merged: MergedModel) -> None:
    tokens: list[str] = []

    def fail(params: dict[str, Any], **_: Any) -> None:
        tokens.append(params["clientRequestToken"])
        if len(tokens) == 1:
            raise ConnectionClosedError(endpoint_url="https://bedrock")

    world.aws.bedrock.meta.events.register_first("before-parameter-build.bedrock.CreateModelImportJob", fail)
    world.until_done(ModelExport.of(merged).manifest.digest, prompt=PromptFormatter.load(merged.path).fingerprint)
    world.importer.import_model(merged, "sql", s3_uri=URI)
    assert tokens[0] == tokens[1]


def test_a_deleted_model_is_explained(world: World) -> None:
    world.script.stub.add_client_error("list_tags_for_resource", "ResourceNotFoundException", "gone")
    with pytest.raises(BedrockError, match=rf"{MODEL}.*ResourceNotFoundException.*import_model"):
        world.importer.attach(MODEL)


def test_attach_by_name(world: World) -> None:
    world.stub("get_imported_model", {"modelArn": MODEL, "modelName": "sql"}, {"modelIdentifier": "sql"})
    world.script.tags(MODEL)
    world.stub("get_imported_model", {"modelArn": MODEL, "modelName": "sql"}, {"modelIdentifier": MODEL})
    assert world.importer.attach("sql").arn == MODEL


def test_lists_and_delete(world: World) -> None:
    summary = {"modelArn": MODEL, "modelName": "sql", "creationTime": NOW, "modelArchitecture": "llama"}
    world.stub("list_imported_models", {"modelSummaries": [summary]}, {})
    (model,) = world.importer.list_models()
    assert (model.arn, model.name, model.architecture, model.created) == (MODEL, "sql", "llama", NOW)
    job = {"jobArn": JOB, "jobName": "sql-1", "status": "Failed", "creationTime": NOW, "endTime": NOW}
    world.stub(
        "list_model_import_jobs",
        {"modelImportJobSummaries": [job]},
        {"nameContains": "sql", "statusEquals": "Failed"},
    )
    (listed,) = world.importer.list_jobs(name_contains="sql", status="Failed")
    assert (listed.arn, listed.name, listed.status, listed.model_arn, listed.ended) == (
        JOB,
        "sql-1",
        "Failed",
        None,
        NOW,
    )
    world.stub("delete_imported_model", {}, {"modelIdentifier": "sql"})
    world.importer.delete("sql")
    world.script.played()


def test_the_cost_of_keeping_a_model(world: World) -> None:
    units = {"customModelUnitsPerModelCopy": 2, "customModelUnitsVersion": "v1.0"}
    for _ in range(2):
        world.stub("get_imported_model", {"customModelUnits": units}, {"modelIdentifier": "sql"})
    assert world.importer.storage_usd_per_month("sql") == pytest.approx(2 * 1.95)
    prices = PriceTable(usd_per_cmu_month=3)
    assert world.importer.storage_usd_per_month("sql", prices=prices) == 6
    world.stub("get_imported_model", {}, {"modelIdentifier": "sql"})
    with pytest.raises(BedrockError, match=r"\bsql\b.*custom model units") as caught:
        world.importer.storage_usd_per_month("sql")
    assert caught.value.__cause__ is None  # AWS answered, but without the units


def test_an_unfinished_upload_is_discarded_by_the_importer(world: World) -> None:
    world.aws.s3.create_multipart_upload(Bucket="models", Key="foreign/model.safetensors")
    assert world.importer.discard_unfinished_upload(URI) == 1
    assert "Uploads" not in world.aws.s3.list_multipart_uploads(Bucket="models")


def test_expected_minutes_grow_with_the_weights() -> None:
    assert expected_minutes(16 * 10**9) == (10, 18)
    assert expected_minutes(140 * 10**9) == expected_minutes(None) == (15, 45)
