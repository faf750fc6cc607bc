"""A trainer's session reaches its processes but no disk, and only one process trains into a directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from moto import mock_aws

import sqlquarry as sq
from sqlquarry.aws import aws_client, expect_bucket_owners, session_environment
from sqlquarry.errors import ConfigError, OutputInUseError, TrainingError
from sqlquarry.files.locks import only_writer
from sqlquarry.training import launch
from sqlquarry.training.steps.checkpoint import Checkpoints, Snapshot

from conftest import toy_examples

SECRET, TOKEN = "secret-of-the-session", "token-of-the-session"
RECORDS = sq.Records(sq.Record(**example) for example in toy_examples(4))
CONFIG = sq.TrainingConfig(num_train_epochs=1, records_per_step=4, max_length=1024, device="cpu")


def session_of(*, token: str | None = TOKEN, region: str | None = "eu-west-1") -> Any:
    return boto3.session.Session("key-of-the-session", SECRET, token, region_name=region)


@pytest.fixture
def bucket() -> Iterator[Any]:
    with mock_aws(config={"core": {"mock_credentials": False}}):
        session = session_of(region="us-east-1")
        session.client("s3").create_bucket(Bucket="bucket")
        yield session


def test_another_process_gets_keys_region_and_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sqlquarry.aws.owners._by_default", {})  # private, because owners cannot be removed
    session = session_of()
    expect_bucket_owners({"shared": "210987654321", "public": None}, session=session)
    variables = session_environment(session)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    child = boto3.session.Session()
    assert child.get_credentials().get_frozen_credentials() == session.get_credentials().get_frozen_credentials()
    assert child.region_name == "eu-west-1"
    assert not [name for name in variables if "ENDPOINT" in name]  # AWS's own endpoints follow from the region
    client = aws_client("s3")
    sent: list[Any] = []
    client.meta.events.register("before-call.s3", lambda params, **_: sent.append(params["headers"]) or (_ for _ in ()))
    with pytest.raises(Exception):  # noqa: B017 - there is no network, but the headers are created before
        client.head_bucket(Bucket="shared")
    assert sent[0]["x-amz-expected-bucket-owner"] == "210987654321"


def test_an_inherited_token_of_another_key_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another key")
    for name, value in session_environment(session_of(token=None)).items():
        monkeypatch.setenv(name, value)
    assert not boto3.session.Session().get_credentials().get_frozen_credentials().token


def test_without_a_session_the_environment_stays_and_without_credentials_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sqlquarry.aws.owners._by_default", {})  # private, because owners cannot be removed
    assert session_environment(None) == {}
    with pytest.raises(ConfigError):
        session_environment(boto3.session.Session(botocore_session=_without_credentials()))


def _without_credentials() -> Any:
    import botocore.session

    core = botocore.session.Session()
    core.get_credentials = lambda: None
    return core


# Runs instead of torchrun, and writes its environment, its arguments and the files of the job to a file.
PROGRAM = """
import json, os, pathlib, sys
job = pathlib.Path(sys.argv[-1])
texts = [*sys.argv, *(path.read_text() for path in job.parent.rglob("*") if path.is_file())]
found = {"environment": dict(os.environ), "texts": texts, "job": json.loads(job.read_text())}
pathlib.Path(sys.argv[1]).write_text(json.dumps(found))
raise ValueError("stopped here")
"""


def test_keys_are_only_in_the_environment_of_the_processes(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "TORCHRUN", ("-c", PROGRAM, str(tmp_path / "found.json")))
    trainer = sq.QLoRAFSDPTrainer(tiny_llama, config=CONFIG, session=session_of())
    with pytest.raises(TrainingError, match="stopped here") as caught:
        trainer.train(RECORDS, output_dir=tmp_path / "out", checkpoint_dir=Path("s3://bucket/c"), processes=1)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["texts"]) > 4
    assert not [text for text in found["texts"] if SECRET in text or TOKEN in text]
    assert found["job"]["checkpoint_dir"] == "s3://bucket/c"
    assert found["environment"]["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert found["environment"]["AWS_SESSION_TOKEN"] == TOKEN
    assert SECRET not in str(caught.value)


def test_two_trainings_cannot_write_into_one_directory(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = sq.QLoRAFSDPTrainer(tiny_llama, config=CONFIG)
    with only_writer(tmp_path / "out"), pytest.raises(OutputInUseError):
        trainer.train(RECORDS, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_checkpoints_are_found_with_any_spelling_of_their_prefix(bucket: Any) -> None:
    checkpoints = Checkpoints(Path("s3://bucket/runs/1"), session=bucket)
    assert checkpoints.place == "s3://bucket/runs/1"
    for step in (1, 2, 3):
        checkpoints.save(Snapshot(step, {"adapter.a": torch.full((2,), float(step))}, {}))
    checkpoints.wait()
    latest = Checkpoints("s3://bucket/runs/1/", session=bucket).latest()
    assert latest is not None
    assert latest.step == 3
    checkpoints.clear()
    assert "Contents" not in bucket.client("s3").list_objects_v2(Bucket="bucket")


@pytest.mark.parametrize(
    ("place", "kind"), [("s3://absent/runs", TrainingError), ("s3://bucket", ConfigError), ("s3://", ConfigError)]
)
def test_an_s3_location_without_prefix_or_bucket_is_refused(bucket: Any, place: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=place):
        Checkpoints(place, session=bucket).latest()
