"""A bucket of another account in the emulator is refused by every operation unless its owner was set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sqlquarry.aws import aws_client, expect_bucket_owners
from sqlquarry.aws.clients import transfer_config
from sqlquarry.data import load_records
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import DataError

THEIRS = "210987654321"
COPY = {"Bucket": "taken", "Key": "key"}
PART = {"Bucket": "taken", "Key": "key", "UploadId": "1"}
REQUESTS: dict[str, Callable[[Any], Any]] = {
    "list": lambda s3: s3.list_objects_v2(Bucket="taken"),
    "pages": lambda s3: list(s3.get_paginator("list_objects_v2").paginate(Bucket="taken")),
    "head": lambda s3: s3.head_object(Bucket="taken", Key="key"),
    "head bucket": lambda s3: s3.head_bucket(Bucket="taken"),
    "location": lambda s3: s3.get_bucket_location(Bucket="taken"),
    "encryption": lambda s3: s3.get_bucket_encryption(Bucket="taken"),
    "get": lambda s3: s3.get_object(Bucket="taken", Key="key"),
    "put": lambda s3: s3.put_object(Bucket="taken", Key="new", Body=b"weights"),
    "delete": lambda s3: s3.delete_object(Bucket="taken", Key="key"),
    "create upload": lambda s3: s3.create_multipart_upload(Bucket="taken", Key="key"),
    "part": lambda s3: s3.upload_part(**PART, PartNumber=1, Body=b"weights"),
    "complete": lambda s3: s3.complete_multipart_upload(**PART, MultipartUpload={"Parts": []}),
    "abort": lambda s3: s3.abort_multipart_upload(**PART),
    "list parts": lambda s3: s3.list_parts(**PART),
    "list uploads": lambda s3: s3.list_multipart_uploads(Bucket="taken"),
    "copy from": lambda s3: s3.copy_object(Bucket="mine", Key="copy", CopySource=COPY),
    "copy to": lambda s3: s3.copy_object(**COPY, CopySource={"Bucket": "mine", "Key": "ours"}),
    "upload": lambda s3: s3.upload_file(__file__, "taken", "new", Config=transfer_config()),
    "download": lambda s3: s3.download_file("taken", "key", "/dev/null", Config=transfer_config()),
}


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    from moto.s3.models import s3_backends

    with LocalAWS() as aws:
        theirs = s3_backends[THEIRS]["aws"]
        theirs.create_bucket("taken", "us-east-1")
        theirs.put_object("taken", "key", b"theirs")
        theirs.put_object("taken", "r.jsonl", b'{"question": "q", "schema": "CREATE TABLE t (a)", "sql": "SELECT 1"}')
        s3 = aws.session().client("s3")
        s3.create_bucket(Bucket="mine")
        for bucket in (aws.bucket, "mine"):
            s3.put_object(Bucket=bucket, Key="ours", Body=b"ours")
        yield aws


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_bucket_of_another_account_is_refused(aws: LocalAWS, request_name: str) -> None:
    s3 = aws_client("s3", aws.session())
    with pytest.raises(Exception, match=r"403|Forbidden|AccessDenied") as caught:
        REQUESTS[request_name](s3)
    account = aws.session().client("sts").get_caller_identity()["Account"]
    assert re.search(rf"\btaken\b.*\b{account}\b", str(caught.value))


def test_own_buckets_pass_and_other_buckets_pass_after_their_owner_is_set(aws: LocalAWS, tmp_path: Path) -> None:
    session = aws.session()
    s3 = aws_client("s3", session)
    assert s3.get_object(Bucket=aws.bucket, Key="ours")["Body"].read() == b"ours"
    expect_bucket_owners({"taken": THEIRS}, session=session)
    s3.download_file("taken", "key", str(tmp_path / "key"), Config=transfer_config())
    assert (tmp_path / "key").read_bytes() == b"theirs"
    s3.copy_object(Bucket=aws.bucket, Key="copy", CopySource=COPY)


def test_a_wrong_owner_is_refused(aws: LocalAWS) -> None:
    session = aws.session()
    expect_bucket_owners({aws.bucket: THEIRS}, session=session)
    with pytest.raises(ClientError, match=f"{aws.bucket} .*{THEIRS}"):
        aws_client("s3", session).head_bucket(Bucket=aws.bucket)


def test_a_public_function_passes_on_the_advice(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=r"expect_bucket_owners\({'taken': "):
        load_records("s3://taken/r.jsonl")
