"""The control plane through boto3: jobs, models, names, quotas, tags and lists."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from emulator_account import IMPORT_SECONDS, clocked, sketch


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return sketch(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def running():
    with clocked() as account:
        yield account


@pytest.fixture
def account(running):
    """Reset the account and return it."""
    running.aws.reset()
    return running


def test_a_job_changes_from_in_progress_to_completed(account, exported):
    account.upload(exported)
    job = account.create("m1")
    first = account.bedrock.get_model_import_job(jobIdentifier=job)
    assert first["status"] == "InProgress"
    assert "endTime" not in first
    assert "importedModelArn" not in first
    assert account.bedrock.list_imported_models()["modelSummaries"] == []
    by_name = account.bedrock.get_model_import_job(jobIdentifier="job-m1")
    assert (by_name["jobArn"], by_name["status"]) == (job, "InProgress")
    account.clock.advance(IMPORT_SECONDS)
    last = account.bedrock.get_model_import_job(jobIdentifier=job)
    assert last["status"] == "Completed"
    assert last["creationTime"] <= last["endTime"] == last["lastModifiedTime"]
    model = account.bedrock.get_imported_model(modelIdentifier=last["importedModelArn"])
    assert model["modelArn"] == last["importedModelArn"]
    assert (model["modelName"], model["jobArn"], model["modelArchitecture"]) == ("m1", job, "llama")
    assert model["customModelUnits"] == {"customModelUnitsPerModelCopy": 1, "customModelUnitsVersion": "v1.0"}
    assert account.bedrock.get_imported_model(modelIdentifier="m1")["modelArn"] == last["importedModelArn"]


def test_a_problem_in_the_files_is_reported_only_when_the_job_ends(account, exported):
    account.upload(exported)
    account.s3.delete_object(Bucket=account.aws.bucket, Key="model/config.json")
    job = account.create("m1")
    assert account.bedrock.get_model_import_job(jobIdentifier=job)["status"] == "InProgress"
    ended = account.finish(job)
    assert ended["status"] == "Failed"
    assert ended["failureMessage"] == (
        f"could not find the expected file config.json (in s3://{account.aws.bucket}/model)"
    )
    assert "importedModelArn" not in ended
    assert account.error(account.create, name="m1")[0] == "ConflictException"  # the name of a failed job stays in use
    account.upload(exported)
    assert account.imported("m1", jobName="second")  # the name of its model does not


def put_json(account, name, **changes):
    body = json.loads(account.s3.get_object(Bucket=account.aws.bucket, Key=f"model/{name}")["Body"].read())
    account.s3.put_object(Bucket=account.aws.bucket, Key=f"model/{name}", Body=json.dumps(body | changes).encode())


@pytest.mark.parametrize(
    ("damage", "value"),
    [
        (lambda a: a.s3.delete_object(Bucket=a.aws.bucket, Key="model/model.safetensors"), "model.safetensors"),
        (lambda a: put_json(a, "config.json", architectures=["MambaForCausalLM"]), "architecture MambaForCausalLM"),
        (lambda a: put_json(a, "config.json", quantization_config={}), "quantization_config"),
        (lambda a: put_json(a, "tokenizer_config.json", tokenizer_class="TokenizersBackend"), "TokenizersBackend"),
        (
            lambda a: a.s3.put_object(Bucket=a.aws.bucket, Key="model/adapter_config.json", Body=b"{}"),
            "adapter_config.json",
        ),
        (
            lambda a: a.s3.put_object(Bucket=a.aws.bucket, Key="model/model.safetensors", Body=b"\x09"),
            "model.safetensors",
        ),
    ],
)
def test_an_invalid_model_makes_the_job_fail(account, exported, damage, value):
    account.upload(exported)
    damage(account)
    assert value in account.finish(account.create("m1"))["failureMessage"]


def test_a_missing_bucket_or_prefix_makes_the_job_fail(account):
    source = {"s3DataSource": {"s3Uri": "s3://no-such-bucket/model"}}
    missing = account.finish(account.create("m1", modelDataSource=source))
    assert re.search(r"\bno-such-bucket \(in s3://no-such-bucket/model\)$", missing["failureMessage"])
    assert "config.json" in account.finish(account.create("m2", prefix="nothing/here"))["failureMessage"]


def test_only_files_directly_below_the_prefix_are_used(account, exported):
    account.upload(exported, prefix="deep/model")
    assert "config.json" in account.finish(account.create("m1", prefix="deep"))["failureMessage"]
    assert "config.json" in account.finish(account.create("m2", prefix="deep/mod"))["failureMessage"]
    assert account.imported("m3", prefix="deep/model/")


def test_a_role_must_exist_and_trust_bedrock(account, exported):
    account.upload(exported)
    iam = account.aws.session().client("iam")

    def roles(*statements):
        for statement in statements:
            content = json.dumps({"Version": "2012-10-17", "Statement": statement})
            name = f"role-{uuid.uuid4()}"
            yield iam.create_role(RoleName=name, AssumeRolePolicyDocument=content)["Role"]["Arn"]

    service = "bedrock.amazonaws.com"
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    other = trust | {"Principal": {"Service": "ec2.amazonaws.com"}}
    deny = trust | {"Effect": "Deny"}
    refused = roles(
        other,
        deny,
        [trust, deny],
        other | {"Condition": {"StringEquals": {"aws:PrincipalServiceName": service}}},
        trust | {"Action": "sts:TagSession"},
        trust | {"Principal": {"Service": f"not.{service}"}},
        trust | {"Principal": {"AWS": f"arn:aws:iam::123456789012:role/{service}"}},
    )
    for role in (account.aws.role_arn + "-not", *refused):
        code, message, status = account.error(account.create, name="m1", roleArn=role)
        assert (code, message, status) == ("ValidationException", "The provided role ARN is invalid", 400)
    both = {"Principal": {"Service": ["ec2.amazonaws.com", service]}, "Action": ["sts:TagSession", "sts:AssumeRole"]}
    for number, role in enumerate((account.aws.role_arn, *roles(trust | {"Action": "sts:*"}, [other, trust | both]))):
        assert account.imported(f"m{number}", roleArn=role)


def test_only_one_import_job_runs_at_a_time(account, exported):
    account.upload(exported)
    job = account.create("m1")
    code, message, _ = account.error(account.create, name="m2")
    assert code == "ServiceQuotaExceededException"
    assert "Concurrent model import jobs" in message
    account.finish(job)
    account.create("m2")


def test_an_account_has_at_most_three_models(account, exported):
    account.upload(exported)
    for name in ("m1", "m2", "m3"):
        account.imported(name)
    code, message, _ = account.error(account.create, name="m4")
    assert code == "ServiceQuotaExceededException"
    assert "Imported models per account" in message
    account.bedrock.delete_imported_model(modelIdentifier="m2")
    assert account.imported("m4")


def test_names_are_unique_until_the_model_is_deleted(account, exported):
    account.upload(exported)
    account.imported("m1")
    assert account.error(account.create, name="m1")[0] == "ConflictException"
    code, message, _ = account.error(account.create, name="m1", jobName="other")
    assert code == "ConflictException"
    assert "m1" in message
    account.bedrock.delete_imported_model(modelIdentifier="m1")
    assert account.imported("m1", jobName="other")


def test_a_request_token_makes_creation_idempotent(account, exported):
    account.upload(exported)
    job = account.create("m1", clientRequestToken="token-1")
    assert account.create("m1", clientRequestToken="token-1") == job
    assert len(account.bedrock.list_model_import_jobs()["modelImportJobSummaries"]) == 1
    assert account.error(account.create, name="m2", clientRequestToken="token-1")[0] == "ConflictException"


BAD_MEMBERS = [
    ({"jobName": "no spaces"}, "jobName"),
    ({"jobName": "a" * 64}, "jobName"),
    ({"jobName": "a" + "-" * 61 + "!"}, "jobName"),  # must not take exponential time
    ({"importedModelName": "no.dots"}, "importedModelName"),
    ({"importedModelName": "no--doubles"}, "importedModelName"),
    ({"roleArn": "role"}, "roleArn"),
    ({"modelDataSource": {"s3DataSource": {"s3Uri": "s3://bucket/step=3"}}}, "modelDataSource.s3DataSource.s3Uri"),
    ({"jobTags": [{"key": "a#", "value": "b"}]}, "jobTags[0].key"),
    ({"clientRequestToken": "no_underscores"}, "clientRequestToken"),
]


def test_names_and_uris_must_match_the_service_model(account):
    for options, member in BAD_MEMBERS:
        code, message, _ = account.error(account.create, name="m1", **options)
        assert code == "ValidationException"
        assert re.findall(r"(\S+) = ", message) == [member]


def test_tags_of_jobs_and_models(account, exported):
    account.upload(exported)
    job_tags, model_tags = [{"key": "team", "value": "a"}], [{"key": "data", "value": "b"}, {"key": "x", "value": ""}]
    model = account.imported("m1", jobTags=job_tags, importedModelTags=model_tags)
    job = account.bedrock.get_imported_model(modelIdentifier=model)["jobArn"]

    def tags(arn):
        return account.bedrock.list_tags_for_resource(resourceARN=arn)["tags"]

    assert (tags(job), tags(model)) == (job_tags, model_tags)
    account.bedrock.tag_resource(resourceARN=model, tags=[{"key": "data", "value": "c"}, {"key": "y", "value": "1"}])
    account.bedrock.untag_resource(resourceARN=model, tagKeys=["x", "absent"])
    assert tags(model) == [{"key": "data", "value": "c"}, {"key": "y", "value": "1"}]
    many = [{"key": f"k{i}", "value": ""} for i in range(49)]
    assert account.error(account.bedrock.tag_resource, resourceARN=model, tags=many)[0] == "TooManyTagsException"
    account.bedrock.delete_imported_model(modelIdentifier=model)
    gone = account.error(account.bedrock.list_tags_for_resource, resourceARN=model)
    assert (gone[0], gone[2]) == ("ResourceNotFoundException", 404)


def test_lists_are_filtered_sorted_and_paged(account, exported):
    account.upload(exported)
    account.finish(account.create("broken", prefix="nothing"))
    for name in ("sql-a", "sql-b", "chat"):
        account.imported(name)

    def jobs(**filters):
        pages = account.bedrock.get_paginator("list_model_import_jobs").paginate(**filters)
        return [job["jobName"] for page in pages for job in page["modelImportJobSummaries"]]

    def models(**filters):
        pages = account.bedrock.get_paginator("list_imported_models").paginate(**filters)
        return [model["modelName"] for page in pages for model in page["modelSummaries"]]

    everything = ["job-broken", "job-sql-a", "job-sql-b", "job-chat"]
    assert jobs() == everything
    assert jobs(sortBy="CreationTime", sortOrder="Descending") == everything[::-1]
    assert jobs(statusEquals="Failed") == ["job-broken"]
    assert jobs(statusEquals="Completed", nameContains="sql") == ["job-sql-a", "job-sql-b"]
    assert jobs(PaginationConfig={"PageSize": 1}) == everything
    assert models(nameContains="sql", PaginationConfig={"PageSize": 1}) == ["sql-a", "sql-b"]
    assert models(sortOrder="Descending", sortBy="CreationTime") == ["chat", "sql-b", "sql-a"]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert models(creationTimeAfter=tomorrow) == []
    assert models(creationTimeBefore=tomorrow) == ["sql-a", "sql-b", "chat"]
    page = account.bedrock.list_imported_models(maxResults=2)
    assert len(page["modelSummaries"]) == 2
    assert page["nextToken"]
    bad = account.error(account.bedrock.list_imported_models, nextToken="made-up")
    assert bad[0] == "ValidationException"


def test_unknown_names_are_not_found(account):
    for call, key in (
        (account.bedrock.get_model_import_job, "jobIdentifier"),
        (account.bedrock.get_imported_model, "modelIdentifier"),
        (account.bedrock.delete_imported_model, "modelIdentifier"),
    ):
        code, _, status = account.error(call, **{key: "nope"})
        assert (code, status) == ("ResourceNotFoundException", 404)


def test_objects_are_copied_without_loading_them_into_memory(account, exported, monkeypatch):
    from moto.s3.models import FakeKey

    account.upload(exported)

    def refuse(_):
        raise AssertionError("the complete object was read")

    monkeypatch.setattr(FakeKey, "value", property(refuse))
    assert account.imported("m1")
