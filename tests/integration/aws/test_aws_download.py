"""Downloads of a base model from an S3 prefix (moto), which are cached, resumed and updated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from sqlquarry.aws.download import download_files
from sqlquarry.aws.prefix import S3Prefix
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
def test_another_selection_of_files_has_its_own_directory(tmp_path: Path) -> None:
    every = download_base(URI, tmp_path, PATTERNS)
    before = (every / "model.safetensors").stat().st_mtime_ns
    some = download_base(URI, tmp_path, ("*.json",))
    assert names(some) == {"config.json"}
    assert names(every) == {"config.json", "model.safetensors"}
    assert download_base(URI, tmp_path, PATTERNS) == every
    assert (every / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.usefixtures("bucket")
def test_a_second_download_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, may_end, copied = threading.Event(), threading.Event(), []
    download = S3Prefix.download

    def slow(prefix: S3Prefix, name: str, path: Path) -> None:
        copied.append(name)
        began.set()
        assert may_end.wait(30)
        download(prefix, name, path)

    monkeypatch.setattr(S3Prefix, "download", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(download_base, URI, tmp_path, PATTERNS)
        try:
            assert began.wait(30)
            second = pool.submit(download_base, URI, tmp_path, PATTERNS)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
        finally:
            may_end.set()
        assert first.result(30) == second.result(30)
    assert sorted(copied) == ["config.json", "model.safetensors"]
    assert {path.name for path in first.result().iterdir()} == {".received.json", *copied}


@pytest.mark.usefixtures("bucket")
def test_a_complete_copy_in_a_read_only_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = download_base(URI, tmp_path, PATTERNS)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("fcntl.flock", refuse)
    assert download_base(URI, tmp_path, PATTERNS) == directory


@pytest.mark.usefixtures("bucket")
def test_an_empty_prefix_or_missing_bucket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="s3://models/llama/basic") as caught:
        download_base("s3://models/llama/basic", tmp_path, PATTERNS)
    assert caught.value.__cause__ is None  # the bucket was listed
    with pytest.raises(UnsupportedModelError, match="NoSuchBucket"):
        download_base("s3://other/llama", tmp_path, PATTERNS)
