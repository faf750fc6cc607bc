"""Downloads of a base model from an S3 prefix (moto), which are cached, resumed and updated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from sqlquarry.aws.download import download_files
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.locations import S3Location

PATTERNS = ("*.json", "*.safetensors")
URI = "s3://models/llama/base"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        for name, body in {"config.json": "{}", "model.safetensors": "weights", "pytorch_model.bin": "pickle"}.items():
            client.put_object(Bucket="models", Key=f"llama/base/{name}", Body=body.encode())
        client.put_object(Bucket="models", Key="llama/base/original/params.json", Body=b"{}")
        yield client


def download_base(uri: str, cache: Path, patterns: tuple[str, ...]) -> Path:
    return download_files(S3Location.parse(uri), UnsupportedModelError, patterns=patterns, cache=cache)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.startswith(".")}


@pytest.mark.usefixtures("bucket")
def test_only_the_files_of_a_base_model_are_copied(tmp_path: Path) -> None:
    directory = download_base(f"{URI}/", tmp_path, PATTERNS)
    assert names(directory) == {"config.json", "model.safetensors"}
    assert (directory / "model.safetensors").read_text() == "weights"
    assert directory.name.startswith("base-")


@pytest.mark.usefixtures("bucket")
def test_complete_files_are_not_copied_again(tmp_path: Path) -> None:
    directory = download_base(URI, tmp_path, PATTERNS)
    before = (directory / "model.safetensors").stat().st_mtime_ns
    (directory / "config.json").unlink()
    assert download_base(URI, tmp_path, PATTERNS) == directory
    assert names(directory) == {"config.json", "model.safetensors"}
    assert (directory / "model.safetensors").stat().st_mtime_ns == before


def test_a_cut_or_changed_file_is_copied_again_and_a_removed_file_is_deleted(bucket: Any, tmp_path: Path) -> None:
    directory = download_base(URI, tmp_path, PATTERNS)
    (directory / "model.safetensors").write_text("wei")
    download_base(URI, tmp_path, PATTERNS)
    assert (directory / "model.safetensors").read_text() == "weights"
    bucket.put_object(Bucket="models", Key="llama/base/model.safetensors", Body=b"WEIGHTS")
    bucket.delete_object(Bucket="models", Key="llama/base/config.json")
    download_base(URI, tmp_path, PATTERNS)
    assert (directory / "model.safetensors").read_text() == "WEIGHTS"
    assert names(directory) == {"model.safetensors"}


@pytest.mark.usefixtures("bucket")
def test_an_empty_prefix_or_missing_bucket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="s3://models/llama/basic"):
        download_base("s3://models/llama/basic", tmp_path, PATTERNS)
    with pytest.raises(UnsupportedModelError, match="NoSuchBucket"):
        download_base("s3://other/llama", tmp_path, PATTERNS)
