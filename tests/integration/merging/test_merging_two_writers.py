"""Test two merges into one output. In a directory the second is refused, and on S3 the first one stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from merging_s3_fakes import write_adapter, write_base
from sqlquarry import AdapterCheckpoint, AdapterMerger
from sqlquarry.errors import ConfigError, MergeError, OutputInUseError
from sqlquarry.files.locks import only_writer
from sqlquarry.merging.output import MergeOutput
from sqlquarry.merging.storage.opening import open_storage
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.merging.update import Update

INPUTS = {"base": "original"}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    folder = tmp_path_factory.mktemp("writers")
    return write_adapter(folder / "adapter", write_base(folder / "base"))


@pytest.fixture
def storage() -> Iterator[Storage]:
    with mock_aws():
        session = boto3.session.Session("testing", "testing", region_name="us-east-1")
        session.client("s3").create_bucket(Bucket="bucket")
        yield open_storage("s3://bucket/out", session)


def begun(storage: Storage) -> MergeOutput:
    output = MergeOutput(storage, "s3://bucket/out")
    assert output.finished(INPUTS) is None
    output.remaining([])
    return output


def test_a_directory_has_one_merge_at_a_time(adapter: AdapterCheckpoint, tmp_path: Path) -> None:
    stock, refused = Update.apply_rows, []

    def merge_again(self: Update, *args: Any) -> Any:
        if not refused:
            with pytest.raises(OutputInUseError) as caught:
                AdapterMerger().merge(adapter, tmp_path / "out")
            refused.append(caught.value)
        return stock(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "apply_rows", merge_again)
        merged = AdapterMerger().merge(adapter, tmp_path / "out")
    assert refused
    with only_writer(tmp_path / "out"):  # a finished merge is only read
        assert AdapterMerger().merge(adapter, tmp_path / "out") == merged
        with pytest.raises(OutputInUseError), only_writer(tmp_path / "out"):
            pass
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*merged.manifest.files, "manifest.json"}


def test_of_two_merges_that_start_together_on_s3_one_is_refused(storage: Storage) -> None:
    late = MergeOutput(storage, "s3://bucket/out")  # both find an empty prefix
    late.finished(INPUTS)
    begun(storage)
    with pytest.raises(OutputInUseError):
        late.remaining([])


def test_a_later_merge_takes_over_and_the_earlier_one_stops(storage: Storage) -> None:
    earlier = begun(storage)
    earlier.remaining([])
    later = begun(storage)  # as after a kill
    with pytest.raises(OutputInUseError):
        earlier.remaining([])
    later.remaining([])
    later.discard()
    with pytest.raises(OutputInUseError):
        earlier.remaining([])
    assert storage.sizes() == {}


def test_a_repeated_request_is_not_taken_for_another_writer(storage: Any) -> None:
    """Send each request twice, as botocore does if the first answer is lost. S3 compares with the first request."""
    stock = storage.prefix.client.put_object

    def twice(**request: Any) -> Any:
        stock(**request)
        return stock(**request)

    output = begun(storage)
    storage.prefix.client.put_object = twice
    output.remaining([])
    output.remaining([])


@pytest.mark.parametrize("output", ["s3://bucket", Path("s3://bucket/"), "s3://", None, 3])
def test_a_whole_bucket_is_not_an_output(adapter: AdapterCheckpoint, output: Any) -> None:
    with pytest.raises(ConfigError):
        AdapterMerger().merge(adapter, output)


@pytest.mark.parametrize("given", [None, "s3://bucket/adapter", Path("adapter")])
def test_a_path_instead_of_an_adapter_is_refused(given: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"AdapterCheckpoint\.load"):
        AdapterMerger().merge(given, tmp_path / "out")


def test_a_directory_that_cannot_be_locked_is_a_merge_error(adapter: AdapterCheckpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MergeError):
        AdapterMerger().merge(adapter, tmp_path / "file" / "out")
