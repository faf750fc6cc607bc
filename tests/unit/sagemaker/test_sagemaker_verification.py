"""A job runs and installs only what the launcher sent, verified by digests and hashes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_fakes import RECORDS, TRAINER, Account, launcher
from sqlquarry import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.errors import ConfigError
from sqlquarry.sagemaker import bootstrap, packaging, staging
from sqlquarry.sagemaker.staging import Channel

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:index-AbCdEf"
SHA = "--hash=sha256:" + "0" * 64


def received(account: Account, root: Path) -> list[str]:
    """Launch a job, copy its inputs below `root` as SageMaker does, and return its command without the steps."""
    launcher(account).launch(TRAINER, RECORDS, wait=False)
    (request,) = account.requests
    for channel in request["InputDataConfig"]:
        prefix = channel["DataSource"]["S3DataSource"]["S3Uri"].removeprefix("s3://models/")
        for key in account.objects:
            if key.startswith(prefix):
                path = root / "input/data" / channel["ChannelName"] / key.removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(account.objects[key])
    (root / "output").mkdir()
    algorithm = request["AlgorithmSpecification"]
    words = [*algorithm["ContainerEntrypoint"][1:], *algorithm["ContainerArguments"][:-2]]
    return [sys.executable, *(word.replace("/opt/ml", str(root)) for word in words)]


def ran(command: list[str], root: Path, *steps: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SQLQUARRY_ML_ROOT": str(root)}
    return subprocess.run([*command, *steps], env=environment, capture_output=True, text=True, check=False, cwd=root)


def append(name: str, content: bytes) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (path,) = data.glob(name)
        path.write_bytes(path.read_bytes() + content)

    return change


CHANGES: dict[str, Callable[[Path], Any]] = {
    "the first program": append("code/bootstrap.py", b"\nprint('INJECTED')\n"),
    "the wheel": append("code/*.whl", b"x"),
    "the requirements": append("code/requirements.txt", b"evil==1.0\n"),
    "the job": append("job/job.json", b" "),
    "the prompt": append("job/prompt.json", b" "),
    "the records": append("train/train.jsonl", b"\n"),
    "one wheel more": lambda data: (data / "code/evil-1.0-py3-none-any.whl").write_bytes(b""),
    "a file in a folder": lambda data: ((data / "code/x").mkdir(), (data / "code/x/y.py").write_text("")),
    "a file less": lambda data: (data / "job/prompt.json").unlink(),
    "another name": lambda data: (data / "job/prompt.json").rename(data / "job/prompts.json"),
    "a module beside it": lambda data: (data / "code/json.py").write_text("print('INJECTED')"),
}


def test_a_job_with_unchanged_inputs_runs(tmp_path: Path) -> None:
    command = received(Account(), tmp_path)
    done = ran(command, tmp_path, "install")
    assert (done.returncode, done.stderr) == (0, "")
    assert "emulated" in done.stdout
    assert not (tmp_path / "output/failure").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_whose_inputs_were_changed_on_s3_runs_nothing(change: str, tmp_path: Path) -> None:
    command = received(Account(), tmp_path)
    CHANGES[change](tmp_path / "input/data")
    done = ran(command, tmp_path, "install")
    assert done.returncode == 1
    assert "INJECTED" not in done.stdout
    assert "emulated" not in done.stdout
    assert "S3" in (tmp_path / "output/failure").read_text()


def test_a_file_name_cannot_hide_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    code = tmp_path / "input/data/code"
    code.mkdir(parents=True)
    sent = Channel("code", {"a": b"1", "b": b"2"})
    (code / f"a {hashlib.sha256(b'1').hexdigest()}\nb").write_bytes(b"2")
    with pytest.raises(SystemExit, match=sent.digest):
        bootstrap.verify({"code": sent.digest})


@given(st.dictionaries(st.text("abc.-", min_size=1), st.binary(max_size=9), min_size=1), st.data())
def test_a_digest_differs_for_any_change(files: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(files)))
    digest = Channel("code", files).digest
    assert Channel("code", dict(reversed(files.items()))).digest == digest
    assert Channel("code", files | {name: files[name] + b"x"}).digest != digest
    assert Channel("code", {**files, name + "d": b""}).digest != digest
    assert Channel("code", {key: body for key, body in files.items() if key != name}).digest != digest


def test_an_object_that_was_changed_without_changing_its_size_is_sent_again() -> None:
    account = Account()
    launcher(account).launch(TRAINER, RECORDS, wait=False)
    (key,) = (key for key in account.objects if key.endswith("bootstrap.py"))
    good = account.objects[key]
    account.objects[key] = good[:-1] + b"#"
    account.puts.clear()
    for job in account.jobs.values():
        job["TrainingJobStatus"] = "Failed"
    launcher(account).launch(TRAINER, RECORDS, wait=False)
    assert [put["Key"] for put in account.puts] == [key]
    assert account.objects[key] == good


def test_the_checksum_of_a_file_in_parts_is_that_of_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_PART_BYTES", 5)
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789ab")
    parts = b"".join(hashlib.sha256(part).digest() for part in (b"01234", b"56789", b"ab"))
    # moto does not compute composite checksums, so the private function is compared with S3's documented rule.
    assert staging._expected_checksum(path) == base64.b64encode(hashlib.sha256(parts).digest()).decode() + "-3"
    path.write_bytes(b"0123")
    assert staging._expected_checksum(path) == staging._expected_checksum(b"0123")


def locked(*reporters: str) -> dict[str, str]:
    entries = re.split(r"\n(?=[a-z0-9])", packaging.job_requirements("locked", reporters).strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    return {entry.split("==")[0]: entry.split()[0].split("==")[1] for entry in entries}


def test_the_lock_contains_everything_that_the_container_needs_except_torch() -> None:
    pinned = locked()
    assert {"transformers", "peft", "bitsandbytes", "boto3", "jinja2", "tokenizers", "numpy"} <= set(pinned)
    assert not {"torch", "triton", "sqlquarry", "moto", "pytest", "wandb"} & set(pinned)
    assert not [name for name in pinned if name.startswith("nvidia")]
    assert "wandb" in locked("wandb")
    assert {"tensorboard", "mlflow-skinny"} <= set(locked("tensorboard", "mlflow"))


def test_every_package_that_is_pinned_here_is_in_the_lock() -> None:
    here = {line.split("==")[0] for line in packaging.requirements().splitlines()}
    assert here - set(locked()) <= {"setuptools", "sympy", "mpmath", "networkx"}


def test_the_request_says_whether_hashes_are_required() -> None:
    for choice, word in (("locked", "install"), ("without-hashes", "install-without-hashes")):
        account = Account()
        launcher(account, requirements=choice).launch(TRAINER, RECORDS, wait=False)
        assert account.requests[0]["AlgorithmSpecification"]["ContainerArguments"][-2] == word
        (body,) = (body for key, body in account.objects.items() if key.endswith("requirements.txt"))
        assert (b"--hash" in body) == (choice == "locked")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "numpy\n",
        "numpy==2.4.6\n",
        f"numpy>=2 {SHA}\n",
        f"numpy==2.4.6 {SHA}\nscipy==1.17.1\n",
        f"--index-url https://index.example/simple\nnumpy==2.4.6 {SHA}\n",
        "-e .\n",
        "x @ https://files.example/x.whl\n",
        "numpy==2.4.6 --hash=md5:" + "0" * 32,
        f"-r other.txt\nnumpy==2.4.6 {SHA}",
    ],
)
def test_requirements_without_every_hash_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match="without-hashes"):
        launcher(requirements=path).dry_run(TRAINER, RECORDS)


def test_a_password_in_requirements_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(f"--extra-index-url https://user:hunter2hunter2@index.example/simple\nnumpy==2.4.6 {SHA}\n")
    with pytest.raises(ConfigError, match="PIP_INDEX_URL") as caught:
        launcher(requirements=path).dry_run(TRAINER, RECORDS)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [f"numpy==2.4.6 {SHA}\n", f"# by uv\nnumpy[x]==2.4.6 ; sys_platform == 'x' \\\n    {SHA} \\\n    {SHA}\n"]
)
def test_requirements_of_the_user_are_sent_unchanged(text: str, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(text)
    assert packaging.job_requirements(path) == text


def test_a_reporter_without_a_lock_and_a_missing_file_are_named() -> None:
    with pytest.raises(ConfigError, match="comet"):
        packaging.job_requirements("locked", ["comet"])
    with pytest.raises(ConfigError, match="lokced"):
        launcher(requirements="lokced").dry_run(QLoRAFSDPTrainer("Qwen/Qwen3-8B", config=TrainingConfig()), RECORDS)


class Index(BaseHTTPRequestHandler):
    """A package index that serves one wheel if the password is right."""

    wheel = b""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"reader:hunter2hunter2").decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            return
        name = "quarrytest-1.0-py3-none-any.whl"
        self.send_response(200)
        self.send_header("Content-Type", "application/zip" if self.path.endswith(".whl") else "text/html")
        self.end_headers()
        self.wfile.write(self.wheel if self.path.endswith(".whl") else f'<a href="/{name}">{name}</a>'.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def index() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    thread.join()
    server.server_close()


def small_wheel(path: Path, name: str) -> bytes:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


@pytest.mark.parametrize("altered", [False, True])
def test_pip_gets_the_password_of_a_private_index_and_nobody_else_does(
    altered: bool, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import boto3

    class Secrets:
        def client(self, *_: str, **__: str) -> Secrets:
            return self

        def get_secret_value(self, SecretId: str) -> dict[str, str]:  # noqa: N803 - the API's name
            assert SecretId == ARN
            return {"SecretString": json.dumps({"url": f"http://reader:hunter2hunter2@{index}"})}

    code = tmp_path / "input/data/code"
    code.mkdir(parents=True)
    small_wheel(code / "library-1.0-py3-none-any.whl", "library")
    monkeypatch.setattr(Index, "wheel", small_wheel(tmp_path / "quarrytest-1.0-py3-none-any.whl", "quarrytest"))
    digest = hashlib.sha256(b"another file" if altered else Index.wheel).hexdigest()
    (code / "requirements.txt").write_text(f"quarrytest==1.0 --hash=sha256:{digest}\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "installed"))
    monkeypatch.setenv("SQLQUARRY_SECRET_ARNS", json.dumps({"PIP_INDEX_URL": ARN, "HF_TOKEN": "not asked for"}))
    monkeypatch.delenv("SQLQUARRY_ML_ROOT", raising=False)
    monkeypatch.setattr(boto3.session, "Session", Secrets)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "CODE", code)
    commands: list[list[str]] = []
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **more: (commands.append(command), real(command, **more))[1])

    if altered:
        with pytest.raises(SystemExit, match=r"requirements\.txt.* status 1"):
            bootstrap.install()
    else:
        bootstrap.install()

    assert (tmp_path / "installed/quarrytest.py").exists() == (not altered)
    assert (tmp_path / "installed/library.py").exists() == (not altered)
    output = "".join(capfd.readouterr())
    assert "127.0.0.1" in output
    assert "hunter2" not in output + str(commands)
    assert "PIP_INDEX_URL" not in os.environ


def test_a_secret_of_pip_that_cannot_be_read_is_the_failure_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setenv("SQLQUARRY_SECRET_ARNS", json.dumps({"PIP_INDEX_URL": ARN}))
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SystemExit, match=r"boto3.*PIP_INDEX_URL"):
        bootstrap.install()
    assert "PIP_INDEX_URL" in (tmp_path / "output/failure").read_text()
