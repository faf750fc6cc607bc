"""Start and end of the emulator: loopback only, one per process, no leftovers, and tested versions of moto only."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from emulator_account import Account, Parrot, clocked, emulators, send, signed, sketch
from sqlquarry.emulator import LocalAWS
from sqlquarry.emulator.faults import ExpiredToken, JobHangs, ModelDeleted, NoText
from sqlquarry.emulator.moto.compatibility import check_moto
from sqlquarry.emulator.moto.operations import (
    BEDROCK_OPERATIONS,
    IAM_OPERATIONS,
    QUOTA_OPERATIONS,
    RUNTIME_OPERATIONS,
    SAGEMAKER_OPERATIONS,
)
from sqlquarry.emulator.storage import temporary_storage
from sqlquarry.errors import ConfigError, EmulatorError, MissingExtraError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return sketch(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture
def start():
    with emulators() as start:
        yield start


def port_of(url):
    return int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)", url)[1])


def test_it_listens_on_one_loopback_address_only(start):
    port = port_of(start().aws.endpoint_url)
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_every_client_goes_to_it_whatever_the_environment_says(monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-3\nendpoint_url = http://127.0.0.1:9\n")
    for name, value in {
        "AWS_PROFILE": "work",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_BEARER_TOKEN_BEDROCK": "a-real-secret",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    sent = []
    with LocalAWS() as aws:
        session = aws.session()
        client = session.client("bedrock")
        client.meta.events.register("before-send.*", lambda request, **_: sent.append(request))
        assert client.list_imported_models()["modelSummaries"] == []
        assert [bucket.name for bucket in session.resource("s3").buckets.all()] == [aws.bucket]
        assert session.client("sts").get_caller_identity()["Account"] in aws.role_arn
        assert (client.meta.endpoint_url, client.meta.region_name) == (aws.endpoint_url, "us-east-1")
    assert b"a-real-secret" not in repr(sent[0].headers).encode()


def test_a_client_for_another_endpoint_or_region_is_refused(start):
    account = start()
    session = account.aws.session()
    with pytest.raises(EmulatorError, match=r"https://s3\.amazonaws\.com"):
        session.client("s3", endpoint_url="https://s3.amazonaws.com")
    assert session.client("s3", endpoint_url=account.aws.endpoint_url).list_buckets()["Buckets"]
    elsewhere = session.client("bedrock", region_name="us-west-2")
    code, message, _ = account.error(elsewhere.list_imported_models)
    assert code == "ValidationException"
    assert "us-east-1" in message
    assert "us-west-2" in message


@pytest.fixture
def storage(monkeypatch, tmp_path):
    """Use a separate temporary directory for the emulators of this test, and return it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_two_emulators_in_sequence_are_independent_and_leave_no_files(start, exported, storage):
    threads = threading.active_count()
    account = start(load_model=Parrot)
    account.upload(exported)
    model = account.imported("m1")
    account.ask(model, prompt="SELECT", max_tokens=1)
    assert len(list(storage.glob("sqlquarry-emulator-*/*"))) == 1
    account.aws.close()
    account.aws.close()
    assert list(storage.iterdir()) == []
    assert threading.active_count() <= threads
    second = start()
    assert second.bedrock.list_imported_models()["modelSummaries"] == []
    assert second.bedrock.list_model_import_jobs()["modelImportJobSummaries"] == []
    assert "Contents" not in second.s3.list_objects_v2(Bucket=second.aws.bucket)


def test_deleting_a_model_removes_its_files(start, exported, storage):
    account = start(load_model=Parrot)
    account.upload(exported)
    account.ask(account.imported("m1"), prompt="SELECT", max_tokens=1)
    (snapshot,) = storage.glob("sqlquarry-emulator-*/*")
    account.bedrock.delete_imported_model(modelIdentifier="m1")
    assert not snapshot.exists()


def make_old(directory):
    os.utime(directory, (0, 0))


def test_files_of_a_killed_emulator_are_removed_but_not_those_of_a_running_one(storage):
    hold = "from sqlquarry.emulator.storage import temporary_storage as t\nwith t() as d: print(d, flush=True); input()"
    command = [sys.executable, "-c", hold]
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": os.environ | {"TMPDIR": str(storage)},
    }
    with subprocess.Popen(command, **pipes) as killed, subprocess.Popen(command, **pipes) as alive:
        left, used = (Path(process.stdout.readline().strip()) for process in (killed, alive))
        killed.kill()
        killed.wait(10)
        (left / "model.safetensors").write_bytes(b"weights")
        with temporary_storage():
            assert left.exists()  # it is too young, so its owner might be about to lock it
        make_old(left)
        make_old(used)
        with temporary_storage() as mine:
            assert set(storage.iterdir()) == {mine, used}
        alive.communicate("\n", timeout=10)
    assert list(storage.iterdir()) == []


def test_pipes_and_links_of_other_users_are_not_opened(storage):
    """Anybody can write to /tmp. Opening a pipe would wait for a writer, and a link could lead to the user's files."""
    own = storage / "own"
    own.mkdir()
    make_old(own)
    os.mkfifo(storage / "sqlquarry-emulator-pipe")
    (storage / "sqlquarry-emulator-link").symlink_to(own)
    start = "from sqlquarry.emulator.storage import temporary_storage as t\nwith t(): pass"
    environment = os.environ | {"TMPDIR": str(storage)}
    subprocess.run([sys.executable, "-c", start], env=environment, timeout=20, check=True)
    assert own.is_dir()


def test_a_reset_clears_everything_and_sets_up_the_account_again(exported):
    with clocked(load_model=Parrot, faults=[ModelDeleted()]) as account:
        account.upload(exported)
        model = account.imported("first")
        gone = account.error(account.ask, model=model, prompt="SELECT", max_tokens=1)
        assert gone[::2] == ("ResourceNotFoundException", 404)  # because of the fault
        assert account.bedrock.list_imported_models()["modelSummaries"] == []
        model = account.imported("second")
        assert account.ask(model, prompt="SELECT", max_tokens=1)
        account.aws.faults.add(JobHangs(), ExpiredToken(operation="Get*"), NoText())
        job = account.create("third")
        role, where = account.aws.role_arn, ("POST", "/moto-api/reset")
        assert send(account.aws, *where, headers=signed(account.aws, *where, service="moto"))[0] == 200
        assert account.aws.faults.pending() == []
        assert account.bedrock.list_model_import_jobs()["modelImportJobSummaries"] == []
        assert account.bedrock.list_imported_models()["modelSummaries"] == []
        assert account.error(account.bedrock.list_tags_for_resource, resourceARN=job)[0] == "ResourceNotFoundException"
        assert "Contents" not in account.s3.list_objects_v2(Bucket=account.aws.bucket)
        assert account.aws.role_arn == role
        account.upload(exported)
        assert account.imported("third")


def test_faults_from_the_start_affect_the_first_call():
    with LocalAWS(faults=[ExpiredToken()]) as aws, pytest.raises(ClientError) as caught:
        Account(aws).s3.list_buckets()
    assert caught.value.response["Error"]["Code"] == "ExpiredToken"


def test_a_process_can_run_only_one_emulator(start):
    first = start()
    with pytest.raises(EmulatorError, match=r"\bmoto\b.*\bLocalAWS\b"), LocalAWS():
        pass
    assert first.s3.list_buckets()["Buckets"]  # the first one is not affected


def test_a_start_that_fails_can_be_repeated():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmulatorError, match=rf"\b{port}\b"), LocalAWS(port=port):
            pass
    with LocalAWS() as aws:
        assert aws.endpoint_url


def test_an_emulator_that_is_not_running_cannot_be_used():
    aws = LocalAWS()
    for use in (aws.session, lambda: aws.endpoint_url, lambda: aws.role_arn, aws.environment, aws.reset):
        with pytest.raises(EmulatorError, match=r"with LocalAWS\(\)"):
            use()
    with aws:
        pass
    with pytest.raises(EmulatorError, match=r"with LocalAWS\(\)"):
        aws.session()


def test_every_invalid_option_is_named():
    options = {
        "import_polls": -1,
        "import_s": -2,
        "cold_start_calls": -3,
        "cold_start_s": -4,
        "max_batch": -5,
        "max_loaded_models": -6,
        "port": 70_000,
    }
    with pytest.raises(ConfigError) as caught:
        LocalAWS(**options)
    for name, value in options.items():
        assert re.search(rf"\b{name}\b[^;]* {value}\b", str(caught.value))
    with pytest.raises(ConfigError, match=r"\bcold_start_s\b.*'a while'"):
        LocalAWS(cold_start_s="a while")
    with pytest.raises(ConfigError, match=r"\bfaults\b.*'RoleUnknown'"):
        LocalAWS(faults=["RoleUnknown"])


def test_without_moto_the_error_names_the_pip_command(monkeypatch):
    monkeypatch.setattr("sqlquarry.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sqlquarry\[emulator\]'"):
        LocalAWS()


def test_the_installed_moto_is_supported():
    check_moto()


def test_botocore_has_every_emulated_operation():
    import botocore.session
    from botocore import xform_name

    core = botocore.session.Session()
    for service, operations in (
        ("bedrock", BEDROCK_OPERATIONS),
        ("bedrock-runtime", RUNTIME_OPERATIONS),
        ("sagemaker", SAGEMAKER_OPERATIONS),
        ("iam", IAM_OPERATIONS),
        ("service-quotas", QUOTA_OPERATIONS),
    ):
        assert set(operations) <= {xform_name(name) for name in core.get_service_model(service).operation_names}


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("moto.core.responses.BaseResponse", "call_action"),
        ("moto.s3.models", "FakeKey"),
        ("moto.iam.models.IAMBackend", "get_role_by_arn"),
        ("moto.sagemaker.responses", "SageMakerResponse"),
        ("moto.moto_api._internal.models", "MotoAPIBackend"),
        ("moto.core.eventstream.EventStreamEncoder", "encode_message"),
    ],
)
def test_a_changed_moto_is_named(monkeypatch, target, name):
    from pkgutil import resolve_name

    monkeypatch.delattr(resolve_name(target), name)
    with pytest.raises(EmulatorError, match=name), LocalAWS():
        pass


def test_a_missing_attribute_of_moto_is_named(monkeypatch):
    from moto.s3 import models

    class Key:
        def __init__(self, **_):
            self.lock = threading.Lock()

        def dispose(self):
            pass

    monkeypatch.setattr(models, "FakeKey", Key)
    with pytest.raises(EmulatorError, match="_value_buffer"):
        check_moto()


@pytest.mark.parametrize("version", ["5.1.22", "5.3.0", "6.0.0"])
def test_an_untested_version_of_moto_is_refused(monkeypatch, version):
    monkeypatch.setattr("moto.__version__", version)
    with pytest.raises(EmulatorError, match=rf"moto {re.escape(version)}\b.*\b5\.2\.x"):
        check_moto()


def test_closing_restores_motos_own_methods(start):
    from moto.bedrock.responses import BedrockResponse
    from moto.core.responses import BaseResponse
    from moto.moto_api._internal.models import MotoAPIBackend
    from moto.s3.models import FakeKey, FakeMultipart

    def methods():
        changed = BedrockResponse.tag_resource, BaseResponse.call_action, MotoAPIBackend.reset
        return *changed, FakeKey.value, FakeMultipart.complete

    stock = methods()
    account = start()
    assert not set(methods()) & set(stock)
    account.aws.close()
    assert methods() == stock
    assert not hasattr(BedrockResponse, "create_model_import_job")


@pytest.mark.parametrize(
    ("entry", "number"),
    [(("sqlquarry.emulator",), signal.SIGINT), (("sqlquarry.emulator", "--json"), signal.SIGTERM)],
)
def test_the_command_runs_until_it_is_interrupted_and_cleans_up(storage, entry, number):
    command = [sys.executable, "-W", "error", "-m", *entry, "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(storage)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            if "--json" in entry:
                printed = json.loads(server.stdout.readline())
                assert list(printed) == ["endpoint", "role", "bucket", "region", "environment"]
                variables = printed["environment"]
            else:
                lines = [next(server.stdout) for _ in range(11)]
                assert lines[0] == "unset AWS_PROFILE AWS_SESSION_TOKEN AWS_BEARER_TOKEN_BEDROCK\n"
                variables = dict(re.fullmatch(r"export (\w+)=(\S+)\n", line).groups() for line in lines[1:])
                assert variables["SQLQUARRY_EMULATOR_ROLE"].startswith("arn:aws:iam::")
            assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"} <= variables.keys()
            socket.create_connection(("127.0.0.1", port_of(variables["AWS_ENDPOINT_URL"])), timeout=5).close()
            assert len(list(storage.iterdir())) == 1
            server.send_signal(number)
            assert server.wait(20) == 0
        finally:
            server.kill()
    assert list(storage.iterdir()) == []


@pytest.mark.parametrize("length", [b"", b"Content-Length: 9\r\n\r\nhalf"])
def test_the_wait_for_a_client_that_stops_sending_is_limited(start, monkeypatch, length):
    monkeypatch.setattr("sqlquarry.emulator.moto.server._CLIENT_TIMEOUT_S", 0.3)
    account = start()
    made = signed(account.aws, "POST", "/", service="sagemaker", body=b"half-sent")
    head = b"".join(f"{name}: {value}\r\n".encode() for name, value in made.items() if name != "Content-Length")
    port = port_of(account.aws.endpoint_url)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port + head + length)
        answer = connection.makefile("rb").read()  # until the emulator closes it
    assert (b"RequestTimeoutException" in answer) == bool(length)
    assert account.s3.list_buckets()["Buckets"]


def test_importing_the_emulator_loads_no_large_packages():
    code = "import sys, sqlquarry.emulator; print([m for m in ('torch', 'moto', 'boto3', 'flask') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
