"""The emulator's life: loopback only, one at a time, a clean end, and moto as it was tested."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from sqlquarry.emulator import LocalAWS
from sqlquarry.emulator.moto_bedrock import CONTROL_OPERATIONS, RUNTIME_OPERATIONS, check_moto
from sqlquarry.errors import ConfigError, EmulatorError


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
    with pytest.raises(EmulatorError, match="belongs to the emulator"):
        session.client("s3", endpoint_url="https://s3.amazonaws.com")
    assert session.client("s3", endpoint_url=account.aws.endpoint_url).list_buckets()["Buckets"]
    elsewhere = session.client("bedrock", region_name="us-west-2")
    code, message, _ = account.error(elsewhere.list_imported_models)
    assert code == "ValidationException"
    assert "us-east-1 only" in message


def test_two_in_sequence_are_independent_and_leave_nothing(start, exported):
    before = set(Path(tempfile.gettempdir()).glob("sqlquarry-emulator-*"))
    threads = threading.active_count()
    account = start()
    account.upload(exported)
    model = account.imported("m1")
    account.ask(model, prompt="SELECT", max_tokens=1)
    assert len(set(Path(tempfile.gettempdir()).glob("sqlquarry-emulator-*")) - before) == 1
    account.aws.close()
    account.aws.close()
    assert set(Path(tempfile.gettempdir()).glob("sqlquarry-emulator-*")) <= before
    assert threading.active_count() <= threads
    second = start()
    assert second.bedrock.list_imported_models()["modelSummaries"] == []
    assert second.bedrock.list_model_import_jobs()["modelImportJobSummaries"] == []
    assert "Contents" not in second.s3.list_objects_v2(Bucket=second.aws.bucket)


def test_deleting_a_model_removes_its_files(start, exported):
    account = start()
    account.upload(exported)
    account.ask(account.imported("m1"), prompt="SELECT", max_tokens=1)
    (storage,) = Path(tempfile.gettempdir()).glob("sqlquarry-emulator-*/*")
    account.bedrock.delete_imported_model(modelIdentifier="m1")
    assert not storage.exists()


def test_two_at_once_are_refused(start):
    first = start()
    with pytest.raises(EmulatorError, match="running in this process already"), LocalAWS():
        pass
    assert first.s3.list_buckets()["Buckets"]  # the refusal left the first alone


def test_a_start_that_fails_can_be_repeated():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EmulatorError, match="taken"), LocalAWS(port=taken.getsockname()[1]):
            pass
    with LocalAWS() as aws:
        assert aws.endpoint_url


def test_what_is_not_running_says_so():
    aws = LocalAWS()
    for use in (aws.session, lambda: aws.endpoint_url, lambda: aws.role_arn):
        with pytest.raises(EmulatorError, match="not running"):
            use()
    with aws:
        pass
    with pytest.raises(EmulatorError, match="not running"):
        aws.session()


def test_every_bad_option_is_named():
    with pytest.raises(ConfigError) as caught:
        LocalAWS(import_polls=-1, cold_calls=-1, max_batch=0, max_loaded_models=0, port=70_000)
    for name in ("import_polls", "cold_calls", "max_batch", "max_loaded_models", "port"):
        assert name in str(caught.value)


def test_this_moto_can_carry_the_emulator():
    check_moto()


def test_every_operation_is_one_that_botocore_knows():
    import botocore.session
    from botocore import xform_name

    core = botocore.session.Session()
    for service, operations in (("bedrock", CONTROL_OPERATIONS), ("bedrock-runtime", RUNTIME_OPERATIONS)):
        assert set(operations) <= {xform_name(name) for name in core.get_service_model(service).operation_names}


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("moto.core.responses.BaseResponse", "call_action"),
        ("moto.s3.models", "FakeKey"),
        ("moto.iam.models.IAMBackend", "get_role_by_arn"),
    ],
)
def test_a_changed_moto_is_named(monkeypatch, target, name):
    from pkgutil import resolve_name

    monkeypatch.delattr(resolve_name(target), name)
    with pytest.raises(EmulatorError, match=name), LocalAWS():
        pass


def test_a_renamed_buffer_is_noticed(monkeypatch):
    from moto.s3 import models

    class Key:
        def __init__(self, **_):
            self.lock = threading.Lock()

    monkeypatch.setattr(models, "FakeKey", Key)
    with pytest.raises(EmulatorError, match="_value_buffer"):
        check_moto()


@pytest.mark.parametrize("version", ["5.1.22", "5.3.0", "6.0.0"])
def test_an_untested_version_is_refused(monkeypatch, version):
    monkeypatch.setattr("moto.__version__", version)
    with pytest.raises(EmulatorError, match=rf"moto {re.escape(version)} .* 5\.2\.x"):
        check_moto()


def test_closing_gives_moto_its_own_methods_back(start):
    from moto.bedrock.responses import BedrockResponse

    stock = BedrockResponse.tag_resource
    account = start()
    assert BedrockResponse.tag_resource is not stock
    account.aws.close()
    assert BedrockResponse.tag_resource is stock
    assert not hasattr(BedrockResponse, "create_model_import_job")


def test_the_serve_entry_runs_until_interrupted():
    command = [sys.executable, "-m", "sqlquarry.emulator", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as server:
        said = dict(server.stdout.readline().split() for _ in range(3))
        assert list(said) == ["endpoint", "role", "bucket"]
        socket.create_connection(("127.0.0.1", port_of(said["endpoint"])), timeout=5).close()
        assert said["role"].startswith("arn:aws:iam::")
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


def test_importing_the_emulator_loads_nothing_heavy():
    code = "import sys, sqlquarry.emulator; print([m for m in ('torch', 'moto', 'boto3', 'flask') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
