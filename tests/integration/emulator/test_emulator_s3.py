"""Large uploads are stored in files, with the same results as in moto alone."""

from __future__ import annotations

import hashlib
import os

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator_account import emulators

MIB = 1 << 20


@pytest.fixture(scope="module")
def account():
    with emulators() as start:
        yield start()


@pytest.fixture
def upload(account):
    """Begin an upload and yield its parameters."""
    where = {"Bucket": account.aws.bucket, "Key": "large"}
    yield where | {"UploadId": account.s3.create_multipart_upload(**where, Metadata={"team": "data"})["UploadId"]}
    account.s3.delete_object(**where)


def send(s3, upload, number, content):
    return {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=content)["ETag"]}


def complete(s3, upload, parts):
    return s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


def test_an_object_consists_of_its_parts_in_order_of_their_numbers(account, upload):
    s3, contents = account.s3, [os.urandom(5 * MIB), os.urandom(5 * MIB + 1), b"end"]
    send(s3, upload, 2, b"replaced")
    parts = [send(s3, upload, number, contents[number - 1]) for number in (3, 1, 2)]
    listed = s3.list_parts(**upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(i + 1, len(c)) for i, c in enumerate(contents)]
    answer = complete(s3, upload, sorted(parts, key=lambda part: part["PartNumber"]))
    digests = b"".join(hashlib.md5(content).digest() for content in contents)
    assert answer["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    got = s3.get_object(Bucket=upload["Bucket"], Key="large")
    assert got["Body"].read() == b"".join(contents)
    assert (got["ETag"], got["Metadata"]) == (answer["ETag"], {"team": "data"})
    assert [part["ETag"] for part in parts] == [f'"{hashlib.md5(contents[i]).hexdigest()}"' for i in (2, 0, 1)]


def test_invalid_parts_are_refused_as_in_s3(account, upload):
    s3 = account.s3
    small, end = send(s3, upload, 1, b"small"), send(s3, upload, 2, b"end")
    assert account.error(complete, s3=s3, upload=upload, parts=[small, end])[0] == "EntityTooSmall"
    assert account.error(complete, s3=s3, upload=upload, parts=[small | {"ETag": end["ETag"]}])[0] == "InvalidPart"
    assert account.error(complete, s3=s3, upload=upload, parts=[small | {"PartNumber": 3}])[0] == "InvalidPart"
    with pytest.raises(ClientError):
        send(s3, upload | {"UploadId": "unknown"}, 1, b"x")
    with pytest.raises(ClientError):
        send(s3, upload | {"Bucket": "unknown"}, 1, b"x")
    complete(s3, upload, [small])  # the refused requests have changed nothing
    assert s3.get_object(Bucket=upload["Bucket"], Key="large")["Body"].read() == b"small"


def test_a_part_can_be_copied_from_another_object(account, upload):
    account.s3.put_object(Bucket=upload["Bucket"], Key="source", Body=b"copied")
    source = {"Bucket": upload["Bucket"], "Key": "source"}
    part = account.s3.upload_part_copy(**upload, PartNumber=1, CopySource=source)["CopyPartResult"]
    complete(account.s3, upload, [{"PartNumber": 1, "ETag": part["ETag"]}])
    assert account.s3.get_object(Bucket=upload["Bucket"], Key="large")["Body"].read() == b"copied"


@pytest.mark.parametrize("checksums", ["when_required", "when_supported"])
def test_the_parts_of_an_upload_are_never_loaded_into_memory(account, tmp_path, monkeypatch, checksums):
    from moto.s3.models import FakeKey

    (tmp_path / "weights").write_bytes(content := os.urandom(17 * MIB))
    s3 = account.aws.session().client("s3", config=Config(request_checksum_calculation=checksums))
    with monkeypatch.context() as patch:
        patch.setattr(FakeKey, "value", property(None, FakeKey.value.fset))  # reading it would raise
        s3.upload_file(str(tmp_path / "weights"), account.aws.bucket, "weights", Config=TransferConfig(MIB))
    assert s3.get_object(Bucket=account.aws.bucket, Key="weights")["Body"].read() == content
