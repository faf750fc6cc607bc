"""An S3 prefix with a fake client: broken connections, listings and the requests that are sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ResponseStreamingError

from broken_reads import Breaks
from sqlquarry.aws.prefix import S3Prefix, StoredObject
from sqlquarry.errors import MetadataError
from sqlquarry.files.locations import S3Location

CONTENT = bytes(range(250)) * 40


class Client:
    """A bucket with one object. The connection breaks after 1,000 bytes in the first `breaks` responses."""

    def __init__(self, breaks: int = 0) -> None:
        self.breaks, self.spans, self.writes = breaks, list[str](), list[dict[str, Any]]()

    def get_object(self, *, Bucket: str, Key: str, Range: str = "") -> dict[str, Any]:  # noqa: N803 - boto3's
        assert (Bucket, Key) == ("bucket", "p/file.json")
        self.spans.append(Range)
        first, last = (int(number) for number in Range.removeprefix("bytes=").split("-")) if Range else (0, 10**9)
        part = CONTENT[first : last + 1]
        broken = len(self.spans) <= self.breaks
        return {"Body": Breaks(part, 1000 if broken else len(part) + 1), "ContentLength": len(part)}

    def head_object(self, *, Bucket: str, Key: str, **options: str) -> dict[str, Any]:  # noqa: ARG002, N803 - boto3's
        if Key == "p/file.json":
            return {"ContentLength": len(CONTENT), **options}
        code = "403" if Key == "p/secret" else "404"
        raise ClientError({"Error": {"Code": code, "Message": ""}}, "HeadObject")

    def put_object(self, **request: Any) -> dict[str, str]:
        self.writes.append(request)
        return {"ETag": '"new"'}

    def get_paginator(self, operation: str) -> Client:
        assert operation == "list_objects_v2"
        return self

    def paginate(self, *, Bucket: str, Prefix: str, Delimiter: str = "") -> Iterator[dict[str, Any]]:  # noqa: ARG002, N803 - boto3's
        for name in ("", "a", "b", "folder/", "folder/c"):
            if not (Delimiter and Delimiter in name):
                yield {"Contents": [{"Key": Prefix + name, "Size": len(name), "ETag": '"e"'}]}
        yield {}


def prefix(client: Client) -> S3Prefix:
    return S3Prefix(client, S3Location("bucket", "p/"))  # type: ignore[arg-type] # a fake


@pytest.mark.parametrize("breaks", [0, 1, 3])
def test_reads_resume_where_the_connection_broke(breaks: int) -> None:
    client = Client(breaks)
    assert prefix(client).read("file.json") == CONTENT
    end = len(CONTENT) - 1
    assert client.spans == ["", *(f"bytes={1000 * n}-{end}" for n in range(1, breaks + 1))]
    client = Client(breaks)
    assert prefix(client).read_range("file.json", 5, 9000) == CONTENT[5:9005]
    assert client.spans == [f"bytes={5 + 1000 * n}-9004" for n in range(breaks + 1)]


def test_a_connection_that_breaks_four_times_is_an_error() -> None:
    with pytest.raises(ResponseStreamingError):
        prefix(Client(4)).read_range("file.json", 0, len(CONTENT))


def test_a_range_beyond_the_end_is_cut_and_an_empty_range_sends_no_request() -> None:
    client = Client()
    assert prefix(client).read_range("file.json", len(CONTENT) - 3, 10) == CONTENT[-3:]
    assert prefix(client).read_range("file.json", 0, 0) == b""
    assert len(client.spans) == 1


def test_read_refuses_large_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlquarry.files.metadata._LARGEST_BYTES", len(CONTENT) - 1)
    with pytest.raises(MetadataError):
        prefix(Client()).read("file.json")


def test_a_listing_has_no_folders_and_ends_at_its_limit() -> None:
    assert prefix(Client()).objects() == {"a": StoredObject(1, "e"), "b": StoredObject(1, "e")}
    assert list(prefix(Client()).objects(deep=True)) == ["a", "b", "folder/c"]
    assert list(prefix(Client()).objects(deep=True, limit=2)) == ["a", "b"]


def test_head_distinguishes_a_missing_object_from_a_refusal() -> None:
    assert prefix(Client()).head("none") is None
    assert prefix(Client()).head("file.json", with_checksum=True) == {
        "ContentLength": len(CONTENT),
        "ChecksumMode": "ENABLED",
    }
    with pytest.raises(ClientError):
        prefix(Client()).head("secret")


def test_write_sends_the_options_of_the_prefix_and_replace_its_condition() -> None:
    client = Client()
    encrypted = S3Prefix(client, S3Location("bucket", "p/"), {"SSEKMSKeyId": "key"})  # type: ignore[arg-type] # a fake
    encrypted.write("a", b"1")
    assert prefix(client).replace("a", b"2", None) == '"new"'
    prefix(client).replace("a", b"3", '"old"')
    target = {"Bucket": "bucket", "Key": "p/a"}
    assert client.writes == [
        {**target, "Body": b"1", "SSEKMSKeyId": "key"},
        {**target, "Body": b"2", "IfNoneMatch": "*"},
        {**target, "Body": b"3", "IfMatch": '"old"'},
    ]
