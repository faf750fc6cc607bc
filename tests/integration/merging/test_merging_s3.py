"""Test merging from S3 to S3 on moto: no use of the local disk, lost connections, and what a second run uploads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

import merging_fakes
from broken_reads import Breaks
from merging_s3_fakes import write_adapter, write_base
from sqlquarry import AdapterCheckpoint, AdapterMerger
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.errors import MergeError, UnsupportedModelError
from sqlquarry.files.locations import S3Location
from sqlquarry.merging.storage import s3 as s3_storage
from sqlquarry.merging.storage.opening import open_storage
from sqlquarry.merging.storage.s3 import S3File, S3Storage
from sqlquarry.merging.update import Update

PART_BYTES = 50_000


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(s3_storage, "PART_BYTES", PART_BYTES)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART_BYTES)  # S3's own is 5 MiB
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        yield client


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("s3") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    return write_adapter(tmp_path_factory.mktemp("s3") / "adapter", base)


@pytest.fixture(scope="module")
def expected(adapter: AdapterCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    merged = AdapterMerger().merge(adapter, tmp_path_factory.mktemp("s3") / "local")
    return {file.name: file.read_bytes() for file in merged.path.iterdir()}


def objects(s3: Any, prefix: str) -> dict[str, bytes]:
    listed = s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", ())
    return {
        item["Key"].removeprefix(prefix): s3.get_object(Bucket="bucket", Key=item["Key"])["Body"].read()
        for item in listed
    }


def unfinished(s3: Any) -> list[Any]:
    return s3.list_multipart_uploads(Bucket="bucket").get("Uploads", [])


def upload(s3: Any, base: Path, prefix: str) -> None:
    for file in base.iterdir():
        s3.put_object(Bucket="bucket", Key=prefix + file.name, Body=file.read_bytes())


def test_s3_to_s3_gives_the_bytes_of_a_local_merge(
    s3: Any, base: Path, adapter: AdapterCheckpoint, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(s3, base, "base/")
    # Fail on any attempt to write to the disk.
    monkeypatch.setattr(Path, "mkdir", lambda *_args, **_kw: pytest.fail("local disk"))
    merger = AdapterMerger(base_model="s3://bucket/base", session=boto3.session.Session())
    merged = merger.merge(adapter, "s3://bucket/merged/")
    assert objects(s3, "merged/") == expected
    assert unfinished(s3) == []
    assert merger.merge(adapter, "s3://bucket/merged") == merged
    assert merged.uri == "s3://bucket/merged"
    assert merged.manifest.digest == AdapterMerger().merge(adapter, "s3://bucket/other").manifest.digest


def failing_uploads(monkeypatch: pytest.MonkeyPatch, allowed: int) -> list[int]:
    """Lose the connection after `allowed` parts, and return the list that collects the numbers of the sent parts."""
    sent: list[int] = []
    stock = boto3.session.Session.client

    def client(self: Any, *args: Any, **options: Any) -> Any:
        made = stock(self, *args, **options)
        if args[0] != "s3":
            return made
        upload_part = made.upload_part

        def counted(**arguments: Any) -> Any:
            if len(sent) >= allowed:
                raise EndpointConnectionError(endpoint_url="http://127.0.0.1")
            sent.append(arguments["PartNumber"])
            return upload_part(**arguments)

        made.upload_part = counted
        return made

    monkeypatch.setattr(boto3.session.Session, "client", client)
    return sent


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_a_lost_connection_leaves_parts_that_are_not_sent_again(
    s3: Any, adapter: AdapterCheckpoint, expected: dict[str, bytes], allowed: int
) -> None:
    parts = sum(-(-len(content) // PART_BYTES) for name, content in expected.items() if name.endswith("safetensors"))
    assert parts == 12
    with pytest.MonkeyPatch.context() as patch:
        failing_uploads(patch, allowed)
        with pytest.raises(
            MergeError, match=r"s3://bucket/out/model-0000\d-of-00003\.safetensors.*http://127\.0\.0\.1"
        ):
            AdapterMerger().merge(adapter, "s3://bucket/out")
    assert "manifest.json" not in objects(s3, "out/")
    assert ".merge.json" in objects(s3, "out/")
    with pytest.MonkeyPatch.context() as patch:
        sent = failing_uploads(patch, 1000)
        AdapterMerger().merge(adapter, "s3://bucket/out")
        assert len(sent) == parts - allowed
    assert objects(s3, "out/") == expected
    assert unfinished(s3) == []


def test_parts_of_other_bytes_are_sent_again(s3: Any, adapter: AdapterCheckpoint, expected: dict[str, bytes]) -> None:
    name = next(name for name in sorted(expected) if name.endswith("safetensors"))
    target = {"Bucket": "bucket", "Key": f"out/{name}"}
    upload_id = s3.create_multipart_upload(**target)["UploadId"]
    s3.upload_part(**target, UploadId=upload_id, PartNumber=1, Body=bytes(PART_BYTES))
    AdapterMerger().merge(adapter, "s3://bucket/out")
    assert objects(s3, "out/") == expected


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_killed_merge_resumes_and_gives_the_same_bytes(
    s3: Any, adapter: AdapterCheckpoint, expected: dict[str, bytes], calls: int
) -> None:
    stock, seen = Update.apply_rows, []

    def dies(self: Update, *args: Any) -> Any:
        seen.append(self)
        if len(seen) > calls:
            raise KeyboardInterrupt
        return stock(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "apply_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            AdapterMerger().merge(adapter, "s3://bucket/out")
    assert "manifest.json" not in objects(s3, "out/")
    AdapterMerger().merge(adapter, "s3://bucket/out")
    assert objects(s3, "out/") == expected
    assert unfinished(s3) == []


def test_another_base_leaves_nothing_on_s3(s3: Any, base: Path, adapter: AdapterCheckpoint) -> None:
    upload(s3, base, "base/")
    s3.put_object(Bucket="bucket", Key="base/config.json", Body=b'{"tie_word_embeddings": false, "other": 1}')
    trained_on = adapter.manifest.provenance["base_model"]["sha256"][:12]
    with pytest.raises(MergeError, match=rf"s3://bucket/base .*{trained_on}"):
        AdapterMerger(base_model="s3://bucket/base").merge(adapter, "s3://bucket/out")
    assert objects(s3, "out/") == {}
    assert unfinished(s3) == []


def test_errors_name_the_broken_location(s3: Any, base: Path, adapter: AdapterCheckpoint) -> None:
    with pytest.raises(MergeError, match=r"s3://bucket/none: .*base_model="):
        AdapterMerger(base_model="s3://bucket/none").merge(adapter, "s3://bucket/out")
    with pytest.raises(MergeError, match=r"s3://absent/out .*NoSuchBucket"):
        AdapterMerger().merge(adapter, "s3://absent/out")
    upload(s3, base, "base/")
    first = min(base.glob("*.safetensors"))
    s3.put_object(Bucket="bucket", Key=f"base/{first.name}", Body=first.read_bytes()[:-100])
    size = first.stat().st_size
    with pytest.raises(MergeError, match=rf"s3://bucket/base/{first.name} .* {size - 100:,} bytes.* {size:,}\b"):
        AdapterMerger(base_model="s3://bucket/base").merge(adapter, "s3://bucket/out")
    s3.delete_object(Bucket="bucket", Key=f"base/{first.name}")
    with pytest.raises(MergeError, match=rf"^s3://bucket/base/{first.name} "):
        AdapterMerger(base_model="s3://bucket/base").merge(adapter, "s3://bucket/out")
    s3.delete_object(Bucket="bucket", Key="base/config.json")
    with pytest.raises(UnsupportedModelError, match=r"^s3://bucket/base/config\.json "):
        AdapterMerger(base_model="s3://bucket/base").merge(adapter, "s3://bucket/out")
    s3.put_object(Bucket="bucket", Key="full/model.bin", Body=b"x")
    with pytest.raises(MergeError, match=r"^s3://bucket/full .*\(model\.bin\)"):
        AdapterMerger().merge(adapter, "s3://bucket/full")
    assert objects(s3, "out/") == {}


@pytest.mark.parametrize("breaks", [0, 1, 3, 4])
def test_a_broken_read_resumes_where_it_stopped(breaks: int) -> None:
    content = torch.arange(5000, dtype=torch.int32).numpy().tobytes()
    spans: list[str] = []

    class Client:
        def get_object(self, *, Bucket: str, Key: str, Range: str) -> dict[str, Any]:  # noqa: ARG002, N803 - boto3's
            spans.append(Range)
            first, last = (int(number) for number in Range.removeprefix("bytes=").split("-"))
            part = content[first : last + 1]
            return {"Body": Breaks(part, 1000 if len(spans) <= breaks else len(part) + 1)}

    view = memoryview(bytearray(len(content) - 10))
    file = S3File(S3Prefix(Client(), S3Location("bucket")), "key", len(content))
    if breaks == 4:
        with pytest.raises(MergeError, match=r"s3://bucket/key .*connection lost"):
            file.read_into(10, view)
        return
    assert file.read_into(10, view) == len(view)
    assert bytes(view) == content[10:]
    assert spans == [f"bytes={10 + 1000 * n}-{len(content) - 1}" for n in range(breaks + 1)]


def test_a_prefix_lists_only_what_is_directly_in_it(s3: Any) -> None:
    for key in ("a", "p/", "p/b", "p/c/d", "pp/e"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"12")
    assert open_storage("s3://bucket/p").sizes() == {"b": 2}
    assert open_storage("s3://bucket").sizes() == {"a": 2}
    assert isinstance(open_storage("s3://bucket/p/"), S3Storage)
    assert str(open_storage("s3://bucket/p/")) == "s3://bucket/p"


def test_resized_tables_on_s3_are_those_of_a_local_merge(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = merging_fakes.base_tensors()
    first = {name: tensors.pop(name) for name in (f"{merging_fakes.Q}.weight", "lm_head.weight")}
    base = merging_fakes.write_base(tmp_path / "base", first, tensors, config={"vocab_size": 50})
    upload(s3, base, "base/")
    random = torch.Generator().manual_seed(3)
    tables = {
        f"base_model.model.{name}.weight": torch.randn(900, 64, generator=random)
        for name in ("lm_head", "model.embed_tokens")
    }
    adapter = merging_fakes.write_adapter(tmp_path / "adapter", base, merging_fakes.lora_tensors() | tables)
    local = AdapterMerger().merge(adapter, tmp_path / "local")
    stock, seen = Update.apply_rows, []

    def dies(self: Update, *args: Any) -> Any:
        seen.append(self)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return stock(self, *args)

    merger = AdapterMerger(base_model="s3://bucket/base")
    with monkeypatch.context() as patch:
        patch.setattr(Update, "apply_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            merger.merge(adapter, "s3://bucket/out")
    assert merger.merge(adapter, "s3://bucket/out").manifest.files == local.manifest.files
    assert objects(s3, "out/") == {file.name: file.read_bytes() for file in local.path.iterdir()}
    assert unfinished(s3) == []
