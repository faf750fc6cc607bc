"""The parts of emulated training jobs without a server: files, records, instances and checks of requests."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

from processes import is_running
from sqlquarry.emulator.requests.errors import ApiError
from sqlquarry.emulator.requests.parameters import validate
from sqlquarry.emulator.requests.signature import AccessKey
from sqlquarry.emulator.sagemaker.checkpoint_sync import CheckpointSync
from sqlquarry.emulator.sagemaker.container import Cluster, Container
from sqlquarry.emulator.sagemaker.job_record import TrainingJobRecord
from sqlquarry.emulator.sagemaker.job_run import reserved_port
from sqlquarry.emulator.sagemaker.request_checks import check_request
from sqlquarry.emulator.sagemaker.s3_files import S3Files
from sqlquarry.emulator.session import environment, loopback_session

START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = AccessKey("AKIAEXAMPLE", "a-secret")
AWS = environment("http://127.0.0.1:1", "us-east-1", KEY)


class FakeS3:
    """An S3 client that stores objects in a dict with keys (bucket, key)."""

    def __init__(self, **objects):
        self.objects = {("b", key): text.encode() for key, text in objects.items()}
        self.uploads = []

    def get_paginator(self, _):
        return self

    def paginate(self, *, Bucket, Prefix):  # noqa: N803 - boto3's own names
        keys = sorted(key for bucket, key in self.objects if bucket == Bucket and key.startswith(Prefix))
        yield from ({"Contents": [{"Key": key}]} for key in keys)
        yield {}

    def download_file(self, bucket, key, path):
        Path(path).write_bytes(self.objects[bucket, key])

    def upload_file(self, path, bucket, key):
        self.objects[bucket, key] = Path(path).read_bytes()
        self.uploads.append(key)


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("s3://b/data/train", ["a.jsonl", "deep/b.jsonl"]),
        ("s3://b/data/train/", ["a.jsonl", "deep/b.jsonl"]),
        ("s3://b/data/train/a.jsonl", ["a.jsonl"]),
        ("s3://b/data/tra", ["train/a.jsonl", "train/deep/b.jsonl"]),
        ("s3://b", ["data/train/a.jsonl", "data/train/deep/b.jsonl"]),
        ("s3://b/none", []),
    ],
)
def test_names_below_a_prefix(uri, names):
    s3 = FakeS3(**{"data/train/a.jsonl": "", "data/train/deep/b.jsonl": "", "data/train/empty/": ""})
    assert list(S3Files(s3).names(uri).values()) == names


def test_each_host_gets_its_share_of_the_objects(tmp_path):
    files = S3Files(FakeS3(**{f"d/{number}": str(number) for number in range(5)}))
    for host in range(2):
        files.download("s3://b/d", tmp_path / str(host), host=host, hosts=2)
    found = [sorted(path.name for path in (tmp_path / str(host)).iterdir()) for host in range(2)]
    assert found == [["0", "2", "4"], ["1", "3"]]


def test_only_changed_files_are_copied(tmp_path):
    s3 = FakeS3(**{"run/old": "1"})
    sync = CheckpointSync(S3Files(s3), tmp_path, "s3://b/run/")
    sync.restore()
    sync.push()
    assert s3.uploads == []
    (tmp_path / "new").write_text("2")
    sync.push()
    sync.push()
    assert s3.uploads == ["run/new"]
    (tmp_path / "old").write_text("changed")
    (tmp_path / "new").unlink()
    sync.push()
    assert s3.uploads == ["run/new", "run/old"]
    assert s3.objects["b", "run/new"] == b"2"


def test_a_file_that_disappears_while_it_is_copied_is_skipped(tmp_path):
    class Pruning(FakeS3):
        def upload_file(self, path, bucket, key):
            (tmp_path / "deep/pruned").unlink(missing_ok=True)
            super().upload_file(path, bucket, key)

    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/pruned").write_text("x")
    (tmp_path / "kept").write_text("y")
    s3 = Pruning()
    sync = CheckpointSync(S3Files(s3), tmp_path, "s3://b/run")
    sync.push()
    assert s3.objects == {("b", "run/kept"): b"y"}
    (tmp_path / "deep/new").write_text("z")
    sync.push()
    assert s3.uploads == ["run/kept", "run/deep/new"]


def test_an_upload_error_for_a_file_that_exists_is_raised(tmp_path):
    class Failing(FakeS3):
        def upload_file(self, path, bucket, key):  # noqa: ARG002 - the interface of boto3
            raise OSError(errno.EIO, path)

    (tmp_path / "kept").write_text("y")
    with pytest.raises(OSError, match=str(tmp_path / "kept")):
        CheckpointSync(S3Files(Failing()), tmp_path, "s3://b/run").push()


def test_a_file_that_disappears_after_boto3_has_its_size_is_skipped(tmp_path):
    # boto3 opens a file when it sends the file, and reports a missing file as a stream that cannot be rewound.
    nowhere = "http://127.0.0.1:1"
    client = loopback_session(nowhere, "us-east-1", KEY).client("s3", config=Config(retries={"total_max_attempts": 2}))
    sync = CheckpointSync(S3Files(client), tmp_path, "s3://b/run")
    (tmp_path / "moved").write_text("x")
    client.meta.events.register("before-send.s3.PutObject", lambda **_: (tmp_path / "moved").unlink(missing_ok=True))
    sync.push()
    (tmp_path / "there").write_text("x")
    with pytest.raises(EndpointConnectionError, match=nowhere):
        sync.push()


def test_a_folder_that_disappears_while_it_is_listed_is_skipped(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "whole").write_text("x")
    real = os.scandir

    def scandir(path):
        if Path(path) == tmp_path / "tmp":
            Path(path).rmdir()
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    s3 = FakeS3()
    CheckpointSync(S3Files(s3), tmp_path, "s3://b/run").push()
    assert s3.uploads == ["run/whole"]


def test_a_reserved_port_can_be_used_by_its_number_only():
    with reserved_port() as port:
        with socket.socket() as other, pytest.raises(OSError) as caught:
            other.bind(("127.0.0.1", port))
        assert caught.value.errno == errno.EADDRINUSE
        with socket.socket() as host:  # binds like torch's store
            host.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            host.bind(("127.0.0.1", port))
            host.listen()
            socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_push_if_due_waits_for_the_interval(tmp_path):
    s3 = FakeS3()
    sync = CheckpointSync(S3Files(s3), tmp_path, "s3://b/run", interval_s=3600)
    sync.push_if_due()
    (tmp_path / "a").write_text("")
    sync.push_if_due()
    assert s3.uploads == []


def parameters(**changes):
    return {
        "TrainingJobName": "job",
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/usr/bin/python3.12", "-c"],
            "ContainerArguments": ["pass"],
        },
        "RoleArn": "arn:aws:iam::123456789012:role/training",
        "OutputDataConfig": {"S3OutputPath": "s3://b/out/"},
        "ResourceConfig": {"InstanceType": "ml.g5.12xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "Tags": [{"Key": "a", "Value": "b"}],
    } | changes


def test_a_job_record_shows_its_stages():
    job = TrainingJobRecord("arn", parameters(EnableManagedSpotTraining=True), START)
    job.enter("Starting", START)
    shown = job.details()
    assert (shown["TrainingJobStatus"], shown["SecondaryStatus"]) == ("InProgress", "Starting")
    assert not {"Tags", "TrainingStartTime", "TrainingEndTime", "ModelArtifacts", "EndTime"} & shown.keys()
    for minute, stage in enumerate(("Downloading", "Training", "Uploading"), start=1):
        job.enter(stage, START + timedelta(minutes=minute))
    job.trained_s = 100.0
    job.enter("Failed", START + timedelta(minutes=9), failure="x" * 2000)
    shown = job.details()
    assert shown["TrainingStartTime"] == START + timedelta(minutes=1)
    assert shown["TrainingEndTime"] == shown["LastModifiedTime"] == START + timedelta(minutes=9)
    assert len(shown["FailureReason"]) == 1024
    assert (shown["TrainingTimeInSeconds"], shown["BillableTimeInSeconds"]) == (100, 30)
    assert shown["ModelArtifacts"] == {"S3ModelArtifacts": "s3://b/out/job/output/model.tar.gz"}
    assert [stage["Status"] for stage in shown["SecondaryStatusTransitions"]][-1] == "Failed"
    assert all("EndTime" in stage for stage in shown["SecondaryStatusTransitions"])


def container(directory, script, **changes):
    algorithm = parameters()["AlgorithmSpecification"] | {"ContainerArguments": [script]}
    cluster = Cluster("arn", parameters(AlgorithmSpecification=algorithm, **changes), ("algo-1",), 1, AWS)
    return Container(cluster, 0, directory)


def wait(instance):
    end = time.monotonic() + 20
    while instance.exit_status is None:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_instance_runs_this_interpreter_in_its_own_directory(tmp_path):
    instance = container(tmp_path / "one", "import sys, os; print(sys.executable, os.getcwd(), os.environ['HOME'])")
    instance.start()
    wait(instance)
    (line,) = instance.new_lines()
    assert line.split() == [sys.executable, str(tmp_path / "one/ml"), str(tmp_path / "one/home")]
    assert instance.exit_status == 0


@pytest.mark.parametrize(("here", "there"), [(None, "passive"), ("active", "active")])
def test_an_instance_inherits_the_openmp_wait_policy_or_waits_passively(tmp_path, monkeypatch, here, there):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if here:
        monkeypatch.setenv("OMP_WAIT_POLICY", here)
    instance = container(tmp_path / "one", "import os; print(os.environ['OMP_WAIT_POLICY'])")
    instance.start()
    wait(instance)
    assert instance.new_lines() == [there]


def test_new_lines_returns_complete_lines(tmp_path):
    script = "import sys\nprint('one\\n\\ntwo\\r\\nthr', end='', flush=True)\nsys.stdin.read()\nprint('ee')"
    instance = container(tmp_path / "one", script)
    instance.start()
    end = time.monotonic() + 20
    seen = []
    while len(seen) < 3:
        assert time.monotonic() < end
        seen += instance.new_lines()
    assert seen == ["one", "two", "three"]
    assert instance.new_lines() == []


def test_the_exit_status_after_a_signal_is_that_of_a_shell(tmp_path):
    instance = container(tmp_path / "one", "import time; print('up'); time.sleep(60)")
    instance.start()
    while not instance.new_lines():
        time.sleep(0.01)
    instance.terminate()
    wait(instance)
    assert instance.exit_status == 143
    instance.terminate()  # has no effect after the end


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's /proc leads to processes in other sessions")
def test_kill_reaches_children_in_their_own_sessions(tmp_path):
    script = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid)
"""
    instance = container(tmp_path / "one", script)
    instance.start()
    wait(instance)
    (child,) = map(int, instance.new_lines())
    os.kill(child, 0)
    instance.kill()
    assert not is_running(child)


def test_an_instance_that_never_started_can_be_killed(tmp_path):
    container(tmp_path / "one", "pass").kill()


def test_the_environment_for_another_process_contains_nothing_of_this_one(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-real-key")
    shown = environment("http://127.0.0.1:5", "us-east-1", KEY)
    assert "a-real-key" not in shown.values()
    assert shown["AWS_ENDPOINT_URL"] == "http://127.0.0.1:5"
    assert {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"} <= shown.keys()


def check(request, *, trusted=True, there=True):
    check_request(request, region="us-east-1", role_is_trusted=lambda _: trusted, has_objects=lambda _: there)


def test_valid_requests_pass():
    check(parameters())
    spot = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}
    check(parameters(EnableManagedSpotTraining=True, StoppingCondition=spot))
    check(parameters(Tags=[{"Key": "Größe", "Value": "a b_c.d:e/f=g+h-i@j"}]))


def channel(name, **options):
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://b/x"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}} | options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"InputDataConfig": [channel("a"), channel("a")]}, "ChannelName .*a, a$"),
        ({"InputDataConfig": [channel("a", CompressionType="Gzip")]}, "a is S3Prefix, File, Gzip"),
        ({"InputDataConfig": [channel("a", DataSource={})]}, "a is None, File, None"),
        (
            {
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 9},
                "ResourceConfig": parameters()["ResourceConfig"] | {"KeepAlivePeriodInSeconds": 60},
            },
            "KeepAlivePeriodInSeconds",
        ),
        (
            {"ResourceConfig": parameters()["ResourceConfig"] | {"InstanceType": "ml.g5.huge"}},
            "ResourceConfig.InstanceType = 'ml.g5.huge'",
        ),
        ({"TrainingJobName": "-" * 63}, "TrainingJobName = '-{63}'"),
        ({"TrainingJobName": "a" + "-" * 62}, "TrainingJobName = 'a-{62}'"),
        ({"TrainingJobName": "a" * 64}, r"TrainingJobName = 'a{64}' .*\b63$"),
    ],
)
def test_invalid_requests_are_refused(changes, message):
    with pytest.raises(ApiError, match=message) as caught:
        check(parameters(**changes))
    assert caught.value.code == "ValidationException"


@pytest.mark.parametrize("name", ["a" + "-" * 40 + "!", "a-" * 30 + "!"])
def test_the_check_of_a_name_does_not_backtrack(name):
    began = time.monotonic()
    with pytest.raises(ApiError):
        validate("GetModelImportJob", {"jobIdentifier": name})
    with pytest.raises(ApiError):
        validate("DescribeTrainingJob", {"TrainingJobName": name}, service="sagemaker")
    assert time.monotonic() - began < 2
