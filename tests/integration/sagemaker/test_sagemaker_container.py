"""Run `python -m sqlquarry.sagemaker.container` with a tiny model, one process, and a folder instead of /opt/ml."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sqlquarry import PromptFormatter, Record
from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.errors import TrainingError
from sqlquarry.sagemaker import bootstrap
from sqlquarry.sagemaker.container import main
from sqlquarry.sagemaker.metrics import Progress
from sqlquarry.training import TrainingConfig

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(24)]
CONFIG: dict[str, Any] = {
    "num_train_epochs": 2,
    "records_per_step": 4,
    "max_length": 320,
    "learning_rate": 3e-3,
    "device": "cpu",
}


def layout(root: Path, base: Path, *, merge: dict[str, str] | None, **changes: Any) -> Path:
    """Write the files that SageMaker writes below /opt/ml before it starts the job."""
    data = root / "input" / "data"
    for name in ("train", "job", "code"):
        (data / name).mkdir(parents=True)
    shutil.copytree(base, data / "model")
    lines = [json.dumps(dataclasses.asdict(record)) + "\n" for record in RECORDS]
    (data / "train" / "train.jsonl").write_text("".join(lines))
    config = dataclasses.asdict(TrainingConfig(**CONFIG | changes))
    (data / "job" / "job.json").write_text(json.dumps({"base_model": None, "config": config, "merge": merge}))
    PromptFormatter().save(data / "job")
    (root / "input" / "config").mkdir()
    (root / "input" / "config" / "resourceconfig.json").write_text('{"hosts": ["algo-1"], "current_host": "algo-1"}')
    shutil.copy(bootstrap.__file__, data / "code")
    return root


def start(root: Path) -> subprocess.Popen[str]:
    """Start the request's entry point with the emulator's root."""
    environment = os.environ | {"SQLQUARRY_ML_ROOT": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(root / "input" / "data" / "code" / "bootstrap.py"), "install", "train"]
    return subprocess.Popen(
        command, env=environment | {"SM_NUM_GPUS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def again(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the same job again in this process, which has already loaded torch."""
    monkeypatch.setenv("SQLQUARRY_ML_ROOT", str(root))
    return main([str(root / "input" / "data" / "job" / "job.json")])


def test_a_job_trains_merges_verifies_and_its_adapter_survives_it(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layout(tmp_path, tiny_llama, merge={"base": "auto"})

    job = start(root)
    output, errors = job.communicate(timeout=240)

    assert job.returncode == 0, errors
    adapter = AdapterCheckpoint.load(root / "model" / "adapter", verify=True)
    merged = MergedModel.load(root / "model" / "merged", verify=True)
    assert merged.prompt_fingerprint == adapter.prompt_fingerprint
    assert merged.merge.base == "dequantized"
    assert merged.merge.verification.agreement.kl < 5e-3
    assert (
        preflight(str(merged.path)).findings == ()
    )  # there is nothing to rewrite, so it is imported unchanged from S3
    steps = [progress.step for line in output.splitlines() if (progress := Progress.parse(line))]
    assert steps == list(range(1, adapter.run.steps + 1))
    assert not (root / "output" / "failure").exists()

    # The job starts again on a new machine, which gets only the checkpoints, and trains nothing.
    shutil.rmtree(root / "model")
    assert again(root, monkeypatch) == 0
    output = capsys.readouterr().out
    assert str(root / "checkpoints" / "adapter") in output
    assert not any(Progress.parse(line) for line in output.splitlines())
    assert AdapterCheckpoint.load(root / "model" / "adapter", verify=True).manifest == adapter.manifest
    assert MergedModel.load(root / "model" / "merged", verify=True).manifest.digest == merged.manifest.digest


def test_sigterm_leaves_a_checkpoint_and_the_next_start_resumes(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layout(tmp_path, tiny_llama, merge=None, num_train_epochs=6)

    job = start(root)
    assert job.stdout is not None
    next(line for line in job.stdout if Progress.parse(line))
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=120)  # the time that SageMaker allows

    assert job.returncode == 143
    assert not (root / "output" / "failure").exists()
    newest = max((root / "checkpoints").glob("step-*"))
    shutil.rmtree(root / "model")
    assert again(root, monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    steps = [progress.step for line in lines if (progress := Progress.parse(line))]
    assert steps[0] == int(newest.name.split("-")[1]) + 1 > 1
    adapter = AdapterCheckpoint.load(root / "model" / "adapter", verify=True)
    assert steps[-1] == adapter.run.steps


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"config": {"num_train_epochs": -1}}, "ConfigError.*num_train_epochs is -1"),
        ({"config": {"epoch": 1}}, "ConfigError.*epoch.*'num_train_epochs'"),
        ({"base_model": "/nowhere"}, "UnsupportedModelError.*'/nowhere'"),
    ],
)
def test_the_failure_file_says_why(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: dict[str, Any], reason: str
) -> None:
    root = layout(tmp_path, tiny_llama, merge=None)
    if "base_model" in damage:
        shutil.rmtree(root / "input" / "data" / "model")
    path = root / "input" / "data" / "job" / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    monkeypatch.setenv("SQLQUARRY_ML_ROOT", str(root))

    assert main([str(path)]) == 1
    assert re.search(reason, (root / "output" / "failure").read_text())


def test_the_first_failure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLQUARRY_ML_ROOT", str(tmp_path))
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "failure").write_text("the cause")

    assert main([str(tmp_path / "missing.json")]) == 1
    assert (tmp_path / "output" / "failure").read_text() == "the cause"


@pytest.mark.parametrize("stored", ["hf_token\n", '{"anything": "hf_token"}'])
def test_variables_come_from_their_secrets(monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    import boto3

    from sqlquarry.sagemaker import container

    arns = {
        "HF_TOKEN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:hub-AbCdEf",
        "WANDB_API_KEY": "arn:aws:secretsmanager:us-east-1:123456789012:secret:wandb-AbCdEf",
    }
    values = dict(zip(arns.values(), (stored, "key"), strict=True))
    asked: list[dict[str, Any]] = []

    class Secrets:
        def client(self, service: str, *, region_name: str, **_: Any) -> Secrets:
            asked.append({"service": service, "region_name": region_name})
            return self

        def get_secret_value(self, SecretId: str) -> dict[str, str]:  # noqa: N803 - the API's name
            return {"SecretString": values[SecretId]}

    monkeypatch.setattr(boto3.session, "Session", Secrets)
    for name in arns:
        monkeypatch.setenv(name, "")
    index = {"PIP_INDEX_URL": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:index-AbCdEf"}
    monkeypatch.setenv("SQLQUARRY_SECRET_ARNS", json.dumps(arns | index))
    container._provide_secrets()  # publicly, only a complete job reads secrets
    assert "PIP_INDEX_URL" not in os.environ  # it was only for the installation
    assert (os.environ["HF_TOKEN"], os.environ["WANDB_API_KEY"]) == ("hf_token", "key")
    assert asked == [
        {"service": "secretsmanager", "region_name": "eu-west-1"},
        {"service": "secretsmanager", "region_name": "us-east-1"},
    ]


def test_the_error_for_an_unreadable_secret_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from botocore.exceptions import ClientError

    from sqlquarry.sagemaker import container

    class Secrets:
        def client(self, *_: str, **__: str) -> Secrets:
            return self

        def get_secret_value(self, **_: str) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetSecretValue")

    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:wandb-AbCdEf"
    monkeypatch.setattr(boto3.session, "Session", Secrets)
    monkeypatch.setenv("SQLQUARRY_SECRET_ARNS", json.dumps({"WANDB_API_KEY": arn}))
    with pytest.raises(TrainingError, match=rf"WANDB_API_KEY.*{arn}.*AccessDeniedException.*secretsmanager:GetSecret"):
        container._provide_secrets()  # publicly, only a complete job reads secrets
