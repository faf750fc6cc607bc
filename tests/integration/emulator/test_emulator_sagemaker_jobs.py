"""Emulated training jobs with small scripts: their environment, their results and their outputs."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import tarfile
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from emulator_training import LOG_GROUP, Jobs
from sqlquarry.emulator import LocalAWS
from sqlquarry.emulator.faults import AccessDenied, InstanceQuota, TrainingFails
from sqlquarry.training.launch import LOOPBACK


@pytest.fixture(scope="module")
def jobs():
    with LocalAWS() as aws:
        yield Jobs(aws)


def error(call, **parameters):
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    found = caught.value.response["Error"]
    return found["Code"], found["Message"]


def test_a_job_sees_the_environment_of_a_container_and_nothing_of_the_host(jobs, monkeypatch):
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "HF_TOKEN", "HTTPS_PROXY", "PYTHONPATH"):
        monkeypatch.setenv(name, "of-the-host")
    jobs.put("data/train/a.jsonl", "{}\n")
    jobs.put("data/train/deep/b.jsonl", "{}\n")
    script = """
    import boto3
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())
    buckets = [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
    read = {path.stem: json.loads(path.read_text()) for path in (ROOT / "input/config").iterdir()}
    print(json.dumps([files, dict(os.environ), buckets, read, sys.argv[1:]]))
    """
    algorithm = jobs.request("contract")["AlgorithmSpecification"]
    done = jobs.run(
        "contract",
        script,
        channels=[jobs.channel("train", "data/train")],
        AlgorithmSpecification=algorithm | {"ContainerArguments": ["--model", "/opt/ml/model"]},
        HyperParameters={"epochs": "2"},
        Environment={"PLACE": "/opt/ml/output/data", "WORD": "x"},
    )
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    (line,) = jobs.lines("contract")
    files, environment, buckets, read, arguments = json.loads(line)
    assert files == [
        "input/config/hyperparameters.json",
        "input/config/inputdataconfig.json",
        "input/config/resourceconfig.json",
        "input/data/code/run.py",
        "input/data/train/a.jsonl",
        "input/data/train/deep/b.jsonl",
    ]
    root = environment["SQLQUARRY_ML_ROOT"]
    assert arguments == ["--model", f"{root}/model"]
    assert buckets == [jobs.aws.bucket]
    assert "of-the-host" not in environment.values()
    assert environment["AWS_ENDPOINT_URL"] == jobs.aws.endpoint_url
    assert environment["PLACE"] == f"{root}/output/data"
    assert environment["WORD"] == "x"
    assert environment["SM_CHANNEL_TRAIN"] == f"{root}/input/data/train"
    assert environment["SM_HP_EPOCHS"] == "2"
    assert (
        environment.items()
        >= {
            "SM_CHANNELS": '["code", "train"]',
            "SM_HPS": '{"epochs": "2"}',
            "SM_HOSTS": '["algo-1"]',
            "SM_CURRENT_HOST": "algo-1",
            "SM_NUM_GPUS": "0",
            "SM_NUM_CPUS": str(os.cpu_count()),
            "SM_NETWORK_INTERFACE_NAME": LOOPBACK,
            "SM_MASTER_ADDR": "127.0.0.1",
            "SM_MODEL_DIR": f"{root}/model",
            "SM_INPUT_DIR": f"{root}/input",
            "SM_INPUT_CONFIG_DIR": f"{root}/input/config",
            "SM_OUTPUT_DIR": f"{root}/output",
            "SM_OUTPUT_DATA_DIR": f"{root}/output/data",
        }.items()
    )
    assert int(environment["SM_MASTER_PORT"]) > 0
    assert environment["TRAINING_JOB_NAME"] == done["TrainingJobName"]
    assert environment["TRAINING_JOB_ARN"] == done["TrainingJobArn"]
    assert read["hyperparameters"] == {"epochs": "2"}
    assert read["resourceconfig"]["current_host"] == "algo-1"
    assert read["resourceconfig"]["current_instance_type"] == "ml.g5.12xlarge"
    assert set(read["inputdataconfig"]) == {"code", "train"}


def test_a_job_reads_its_secrets_by_their_arns(jobs):
    arn = jobs.aws.session().client("secretsmanager").create_secret(Name="wandb", SecretString='{"key": "abc"}')["ARN"]
    script = """
    from sqlquarry.sagemaker import container
    container._provide_secrets()
    print(os.environ["WANDB_PROJECT"], os.environ["WANDB_API_KEY"])
    """
    environment = {"WANDB_PROJECT": "wiki", "SQLQUARRY_SECRET_ARNS": json.dumps({"WANDB_API_KEY": arn})}
    done = jobs.run("secrets", script, Environment=environment)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert jobs.lines("secrets") == ["wiki abc"]


def test_a_finished_job_has_stages_times_outputs_and_a_log(jobs):
    script = """
    (MODEL / "adapter").mkdir()
    (MODEL / "adapter/manifest.json").write_text("{}")
    (ROOT / "output/data/scores.json").write_text("[1]")
    print("one")
    print("two", file=sys.stderr)
    print("no line end", end="")
    """
    before = jobs.start("finished", script)
    jobs.sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName="finished", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    done = jobs.describe("finished")
    assert done["TrainingJobArn"] == before
    assert jobs.stages("finished") == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    ends = [(stage["StartTime"], stage["EndTime"]) for stage in done["SecondaryStatusTransitions"]]
    assert all(start <= end for start, end in ends)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(ends))
    assert done["CreationTime"] <= done["TrainingStartTime"] < done["TrainingEndTime"]
    assert done["TrainingTimeInSeconds"] == done["BillableTimeInSeconds"] >= 1
    model = f"s3://{jobs.aws.bucket}/output/finished/output/model/"
    assert done["ModelArtifacts"] == {"S3ModelArtifacts": model}
    assert jobs.objects("output/finished/output/") == {
        "data/scores.json": "[1]",
        "model/adapter/manifest.json": "{}",
    }
    ((stream, lines),) = jobs.log("finished").items()
    assert stream.startswith("finished/algo-1-")
    assert lines == ["one", "two", "no line end"]


def test_compressed_outputs_are_archives(jobs):
    script = '(MODEL / "weights").write_text("w"); (ROOT / "output/data/note").write_text("n")'
    output = {"S3OutputPath": f"s3://{jobs.aws.bucket}/output"}  # GZIP is the default
    done = jobs.run("gzip", script, OutputDataConfig=output)
    uri = f"s3://{jobs.aws.bucket}/output/gzip/output/model.tar.gz"
    assert done["ModelArtifacts"] == {"S3ModelArtifacts": uri}
    for key, name, text in (("model", "weights", b"w"), ("output", "note", b"n")):
        body = jobs.s3.get_object(Bucket=jobs.aws.bucket, Key=f"output/gzip/output/{key}.tar.gz")["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            assert archive.getnames() == [name]
            assert archive.extractfile(name).read() == text


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('FAILURE.write_text("no memory"); sys.exit(3)', "AlgorithmError: no memory, exit code: 3"),
        ("sys.exit(1)", "AlgorithmError: , exit code: 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "AlgorithmError: , exit code: 137"),
        ('FAILURE.write_text("x" * 5000); sys.exit(1)', f"AlgorithmError: {'x' * 1008}"),
    ],
)
def test_a_failed_job_reports_its_reason_and_uploads_its_outputs(jobs, script, reason, request):
    name = f"failed-{abs(hash(request.node.callspec.id)) % 10**8}"
    done = jobs.run(name, f'(MODEL / "log").write_text("so far"); {script}')
    assert (done["TrainingJobStatus"], done["SecondaryStatus"]) == ("Failed", "Failed")
    assert done["FailureReason"] == reason
    assert jobs.stages(name)[-2:] == ["Uploading", "Failed"]
    assert jobs.objects(f"output/{name}/output/model/") == {"log": "so far"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TrainingJobName": "under_score"}, "TrainingJobName = 'under_score'"),
        ({"RoleArn": "arn:aws:iam::123456789012:role/missing"}, "Could not assume role"),
        ({"OutputDataConfig": {"S3OutputPath": "/local"}}, "OutputDataConfig.S3OutputPath"),
        ({"Tags": [{"Key": "a;b", "Value": "c"}]}, r"Tags\[0\].Key"),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 10}},
            "only supported with managed spot",
        ),
        ({"StoppingCondition": {}, "ResourceConfig": {"VolumeSizeInGB": 1}}, r"ResourceConfig\.InstanceType"),
        (
            {"AlgorithmSpecification": {"TrainingImage": "x", "TrainingInputMode": "File"}},
            r"\bContainerEntrypoint\b.*\bpython3\b.*\btrain$",
        ),
        (
            {
                "AlgorithmSpecification": {
                    "TrainingImage": "x",
                    "TrainingInputMode": "Pipe",
                    "ContainerEntrypoint": ["python"],
                }
            },
            "code is S3Prefix, Pipe, None",
        ),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "exactly one of TrainingImage and AlgorithmName"),
    ],
)
def test_invalid_and_unsupported_requests_are_refused(jobs, change, message):
    request = jobs.request("refused") | change
    code, text = error(jobs.sagemaker.create_training_job, **request)
    assert code == "ValidationException"
    assert re.search(message, text), text


def test_inputs_must_exist(jobs):
    missing = jobs.request("no-data", channels=[jobs.channel("train", "nothing/here")])
    code, message = error(jobs.sagemaker.create_training_job, **missing)
    assert code == "ValidationException"
    assert message.startswith(f'No S3 objects found under S3 URL "s3://{jobs.aws.bucket}/nothing/here"')
    bucket = jobs.request("no-bucket")
    bucket["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://no-such-bucket/code/"
    assert "No S3 objects found" in error(jobs.sagemaker.create_training_job, **bucket)[1]


def test_a_role_that_sagemaker_may_not_assume_is_refused(jobs):
    iam = jobs.aws.session().client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "bedrock.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    role = iam.create_role(RoleName="bedrock-only", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    request = jobs.request("untrusted", RoleArn=role)
    assert "allows principal 'sagemaker.amazonaws.com'" in error(jobs.sagemaker.create_training_job, **request)[1]


def test_the_name_of_a_job_is_unique_until_the_job_is_deleted(jobs):
    jobs.run("once", "")
    code, message = error(jobs.sagemaker.create_training_job, **jobs.request("once"))
    assert code == "ResourceInUse"
    assert re.search(r"already exists \(arn:aws:sagemaker:us-east-1:\d{12}:training-job/once\)$", message)
    jobs.sagemaker.delete_training_job(TrainingJobName="once")
    assert error(jobs.describe, name="once") == ("ValidationException", "Requested resource not found.")


def test_faults_emulate_missing_quota_and_capacity(jobs):
    jobs.aws.faults.add(InstanceQuota(), TrainingFails())
    code, message = error(jobs.sagemaker.create_training_job, **jobs.request("quota"))
    assert code == "ResourceLimitExceeded"
    assert "ml.g5.12xlarge for training job usage" in message
    done = jobs.run("quota", "")
    assert done["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute capacity")
    assert jobs.stages("quota") == ["Starting", "Failed"]
    assert "TrainingStartTime" not in done


@pytest.mark.parametrize(("right", "stage"), [("s3:GetObject", "Downloading"), ("s3:PutObject", "Uploading")])
def test_a_role_without_permission_makes_the_job_fail(jobs, right, stage):
    jobs.aws.faults.add(AccessDenied(operation=right))
    try:
        name = f"denied-{stage.lower()}"
        done = jobs.run(name, "")
    finally:
        jobs.aws.faults.clear()
    assert re.match(rf"ClientError: AccessDenied \(403\): .*{jobs.aws.role_arn} .*\b{right}$", done["FailureReason"])
    assert jobs.stages(name)[-2:] == [stage, "Failed"]


def test_jobs_are_listed_in_pages(jobs):
    for name in ("listed-b", "listed-a", "listed-c"):
        jobs.run(name, "sys.exit(1)" if name == "listed-c" else "")

    def names(**filters):
        return [job["TrainingJobName"] for job in jobs.sagemaker.list_training_jobs(**filters)["TrainingJobSummaries"]]

    assert names(NameContains="listed") == ["listed-b", "listed-a", "listed-c"]
    assert names(NameContains="listed", SortBy="Name") == ["listed-a", "listed-b", "listed-c"]
    assert names(NameContains="listed", StatusEquals="Failed") == ["listed-c"]
    assert names(NameContains="listed", SortOrder="Descending", MaxResults=1) == ["listed-c"]
    created = jobs.describe("listed-b")["CreationTime"]
    assert names(NameContains="listed", CreationTimeBefore=created) == []  # SDKs send whole seconds
    assert names(NameContains="listed", CreationTimeAfter=created + timedelta(minutes=1)) == []
    pages = jobs.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains="listed", PaginationConfig={"PageSize": 2}
    )
    assert [len(page["TrainingJobSummaries"]) for page in pages] == [2, 1]
    code, _ = error(jobs.sagemaker.list_training_jobs, NextToken="x")
    assert code == "ValidationException"


def test_tags_can_be_added_changed_and_deleted(jobs):
    arn = jobs.start("tagged", "", Tags=[{"Key": "team", "Value": "sql"}])
    jobs.finish("tagged")
    jobs.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "data"}, {"Key": "cost", "Value": "1"}])
    assert jobs.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [
        {"Key": "team", "Value": "data"},
        {"Key": "cost", "Value": "1"},
    ]
    jobs.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team"])
    assert jobs.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "cost", "Value": "1"}]
    assert error(jobs.sagemaker.list_tags, ResourceArn=arn + "x")[0] == "ValidationException"


def test_several_hosts_connect_on_loopback_and_share_the_data(jobs):
    for number in range(4):
        jobs.put(f"shards/{number}.jsonl", "{}")
    script = """
    import socket
    config = json.loads((ROOT / "input/config/resourceconfig.json").read_text())
    first, here = config["hosts"][0], config["current_host"]
    port = int(os.environ["SM_MASTER_PORT"])
    mine = sorted(path.name for path in (ROOT / "input/data/train").iterdir())
    (MODEL / f"{here}.json").write_text(json.dumps(mine))
    if here == first:
        server = socket.create_server((first, port))
        server.settimeout(20)
        print("heard", server.accept()[0].recv(99).decode())
    else:
        for _ in range(200):
            try:
                connection = socket.create_connection((first, port))
                break
            except OSError:
                time.sleep(0.05)
        connection.sendall(here.encode())
    """
    done = jobs.run(
        "two-hosts",
        script,
        channels=[jobs.channel("train", "shards/", S3DataDistributionType="ShardedByS3Key")],
        ResourceConfig={"InstanceType": "ml.g5.12xlarge", "InstanceCount": 2, "VolumeSizeInGB": 1},
    )
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert jobs.lines("two-hosts") == ["heard 127.0.0.2"]
    assert sorted(stream.rpartition("-")[0] for stream in jobs.log("two-hosts")) == [
        "two-hosts/algo-1",
        "two-hosts/algo-2",
    ]
    assert jobs.objects("output/two-hosts/output/model/") == {
        "127.0.0.1.json": '["0.jsonl", "2.jsonl"]',
        "127.0.0.2.json": '["1.jsonl", "3.jsonl"]',
    }


@pytest.mark.parametrize("reason", ["the second host is out of memory", ""])
def test_a_host_that_fails_ends_the_others_and_determines_the_reason(jobs, reason):
    script = f"""
    here = json.loads((ROOT / "input/config/resourceconfig.json").read_text())["current_host"]
    if here.endswith("2"):
        FAILURE.write_text({reason!r})
        sys.exit(9)
    time.sleep(60)
    """
    resources = {"InstanceType": "ml.g5.12xlarge", "InstanceCount": 2, "VolumeSizeInGB": 1}
    done = jobs.run(f"one-fails-{len(reason)}", script, ResourceConfig=resources)
    assert done["FailureReason"] == f"AlgorithmError: {reason}, exit code: 9"


def test_a_key_with_a_path_outside_its_channel_makes_the_job_fail(jobs):
    jobs.put("evil/../../../../escaped", "x")
    done = jobs.run("evil", "", channels=[jobs.channel("train", "evil/")])
    assert re.match("ClientError: Data download failed:.*'evil/../../../../escaped'", done["FailureReason"])
    assert jobs.stages("evil")[-2:] == ["Downloading", "Failed"]


def test_a_reset_deletes_jobs_tags_and_logs(jobs):
    jobs.run("forgotten", "print(1)")
    jobs.aws.reset()
    assert jobs.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    assert jobs.logs.describe_log_streams(logGroupName=LOG_GROUP)["logStreams"] == []
    assert jobs.run("forgotten", "")["TrainingJobStatus"] == "Completed"
