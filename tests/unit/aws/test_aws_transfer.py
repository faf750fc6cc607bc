"""Transfers to an in-memory S3. After a kill at any request, the next run completes them and sends no part twice."""

# ruff: noqa: N803 - the fake uses the argument names of boto3
from __future__ import annotations

import base64
import hashlib
import itertools
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.aws.multipart import MAX_PARTS, MultipartUpload
from sqlquarry.aws.parallel import parallel
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.aws.transfer import Outgoing, Transfer
from sqlquarry.errors import CorruptArtifactError
from sqlquarry.files.locations import S3Location


class Killed(BaseException):
    """The process is killed here."""


class MemoryS3:
    """The part of S3 that a transfer uses. `kill_at` is the number of storing requests before the process is killed."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.uploads: dict[str, tuple[str, dict[str, str], dict[int, bytes]]] = {}
        self.sent: list[tuple[str, int, bytes]] = []
        self.kill_at: int | None = None
        self._lock, self._ids = threading.Lock(), itertools.count()

    def _store(self, key: str, number: int, data: bytes) -> None:
        with self._lock:
            if self.kill_at is not None and len(self.sent) >= self.kill_at:
                raise Killed
            self.sent.append((key, number, data))

    def put_object(self, *, Key: str, Body: bytes, Metadata: Any, ChecksumSHA256: str, **_: Any) -> None:
        assert base64.b64decode(ChecksumSHA256) == hashlib.sha256(Body).digest()
        self._store(Key, 0, Body)
        self.objects[Key] = Body, Metadata

    def create_multipart_upload(self, *, Key: str, Metadata: Any, **_: Any) -> dict[str, str]:
        upload_id = f"u{next(self._ids)}"
        self.uploads[upload_id] = Key, Metadata, {}
        return {"UploadId": upload_id}

    def upload_part(
        self, *, Key: str, UploadId: str, PartNumber: int, Body: BinaryIO, ChecksumCRC32: str, **_: Any
    ) -> Any:
        data = b"".join(iter(lambda: Body.read(7), b""))  # in blocks, as botocore does
        Body.seek(0)  # as botocore does for a retry
        assert Body.read() == data
        assert base64.b64decode(ChecksumCRC32) == zlib.crc32(data).to_bytes(4, "big")
        self._store(Key, PartNumber, data)
        self.uploads[UploadId][2][PartNumber] = data
        return {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}

    def complete_multipart_upload(self, *, Key: str, UploadId: str, MultipartUpload: Any, **_: Any) -> None:
        _, metadata, parts = self.uploads.pop(UploadId)
        numbers = [part["PartNumber"] for part in MultipartUpload["Parts"]]
        assert numbers == list(range(1, len(numbers) + 1))
        self.objects[Key] = b"".join(parts[number] for number in numbers), metadata

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        return {"Metadata": self.objects[Key][1]}

    def copy_object(self, *, Key: str, Metadata: Any, **_: Any) -> None:
        self.objects[Key] = self.objects[Key][0], Metadata

    def get_paginator(self, operation: str) -> Any:
        return _Pages(self, operation)


class _Pages:
    def __init__(self, s3: MemoryS3, operation: str) -> None:
        self._s3, self._operation = s3, operation

    def paginate(self, **options: Any) -> Iterator[dict[str, Any]]:
        assert options["Bucket"] == "b"
        if self._operation == "list_multipart_uploads":
            assert options["Prefix"] == "p/"
            for number, (upload_id, (key, *_)) in enumerate(self._s3.uploads.items()):
                yield {"Uploads": [{"Key": key, "UploadId": upload_id, "Initiated": number}]}
        else:
            for number, data in self._s3.uploads[options["UploadId"]][2].items():
                etag = f'"{hashlib.md5(data).hexdigest()}"'
                yield {"Parts": [{"PartNumber": number, "Size": len(data), "ETag": etag}]}


def prefix(s3: Any) -> S3Prefix:
    return S3Prefix(s3, S3Location("b", "p/"))


def outgoing(directory: Path, contents: list[bytes]) -> list[Outgoing]:
    files = []
    for number, content in enumerate(contents):
        path = directory / f"f{number}"
        path.write_bytes(content)
        files.append(Outgoing(f"f{number}", path, len(content), hashlib.sha256(content).hexdigest()))
    return files


@given(
    contents=st.lists(st.binary(max_size=120), min_size=1, max_size=6),
    part_bytes=st.integers(1, 40),
    threads=st.integers(1, 5),
    kill_at=st.integers(0, 20),
)
def test_killed_at_any_request_and_run_again(
    contents: list[bytes], part_bytes: int, threads: int, kill_at: int
) -> None:
    s3, counted = MemoryS3(), [0]
    with tempfile.TemporaryDirectory() as name:
        files = outgoing(Path(name), contents)

        def send(count: Any = lambda _: None) -> None:
            Transfer(prefix(s3), part_bytes=part_bytes, requests_in_flight=threads, sent=count).send(files)

        s3.kill_at = kill_at
        try:
            send()
        except Killed:
            for thread in threading.enumerate():
                if thread.name == "sqlquarry-parallel":
                    thread.join(5)  # a killed process would have no threads left
            s3.kill_at = None
            missing = [file for file in files if f"p/{file.name}" not in s3.objects]
            Transfer(prefix(s3), part_bytes=part_bytes, requests_in_flight=threads).send(missing)
        assert {key: data for key, (data, _) in s3.objects.items()} == {
            f"p/{file.name}": content for file, content in zip(files, contents, strict=True)
        }
        assert all(meta == {"sha256": hashlib.sha256(data).hexdigest()} for data, meta in s3.objects.values())
        assert s3.uploads == {}
        assert len({(key, number) for key, number, _ in s3.sent}) == len(s3.sent)
        s3.kill_at = None
        send(lambda size: counted.__setitem__(0, counted[0] + size))
        assert counted[0] == sum(map(len, contents))


def test_parts_are_larger_if_there_would_be_too_many(tmp_path: Path) -> None:
    s3, content = MemoryS3(), bytes(MAX_PARTS + 1)
    Transfer(prefix(s3), part_bytes=1, requests_in_flight=1).send(outgoing(tmp_path, [content]))
    assert len(s3.sent) == MAX_PARTS // 2 + 1
    assert s3.objects["p/f0"][0] == content


@pytest.mark.parametrize("size", [3, 300])
def test_a_file_with_another_hash_is_not_completed(tmp_path: Path, size: int) -> None:
    s3, (file,) = MemoryS3(), outgoing(tmp_path, [bytes(size)])
    assert isinstance(file.content, Path)
    file.content.write_bytes(bytes(size - 1) + b"x")
    with pytest.raises(CorruptArtifactError, match=rf"{file.content} .*{file.sha256}.* {file.name} "):
        Transfer(prefix(s3), part_bytes=64).send([file])
    assert s3.objects == {}


class ListedParts:
    """An S3 client with an unfinished upload whose listed parts have the given fields."""

    def __init__(self, *parts: dict[str, Any]) -> None:
        self.parts, self.sent = parts, list[int]()

    def get_paginator(self, operation: str) -> ListedParts:
        assert operation == "list_parts"
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        yield {"Parts": self.parts[:1]}
        yield {"Parts": self.parts[1:]}

    def upload_part(self, *, PartNumber: int, Body: BinaryIO, **target: Any) -> dict[str, str]:
        assert {name: target[name] for name in ("Bucket", "Key", "UploadId")} == {
            "Bucket": "b",
            "Key": "key",
            "UploadId": "u1",
        }
        self.sent.append(PartNumber)
        self.body = Body
        return {"ETag": '"new"'}


CONTENT = b"weights"
CRC32 = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()
MD5 = f'"{hashlib.md5(CONTENT).hexdigest()}"'
KMS_ETAG = '"5f363e0e58a95f06cbe9bbc662c5dfb6"'  # with SSE-KMS, an ETag is not an MD5


@pytest.mark.parametrize(
    ("fields", "is_sent"),
    [
        ({"ETag": KMS_ETAG, "ChecksumCRC32": CRC32}, False),
        ({"ETag": KMS_ETAG, "ChecksumCRC32": "AAAAAA=="}, True),
        ({"ETag": MD5, "ChecksumCRC32": "AAAAAA=="}, True),
        ({"ETag": MD5}, False),
        ({"ETag": KMS_ETAG}, True),
        ({"ETag": KMS_ETAG, "ChecksumCRC32": CRC32, "Size": len(CONTENT) + 1}, True),
        ({"ETag": MD5, "Size": len(CONTENT) + 1}, True),
    ],
)
def test_a_listed_part_is_sent_again_only_if_it_differs(fields: dict[str, Any], is_sent: bool) -> None:
    other = {"PartNumber": 1, "Size": 1, "ETag": '"other"', "ChecksumCRC32": "BBBBBB=="}
    s3 = ListedParts(other, {"PartNumber": 2, "Size": len(CONTENT)} | fields)
    upload = MultipartUpload.resume(s3, "b", "key", "u1")  # type: ignore[arg-type] # a fake
    etag = '"new"' if is_sent else fields["ETag"]
    assert upload.send(2, CONTENT) == {"PartNumber": 2, "ChecksumCRC32": CRC32, "ETag": etag}
    assert s3.sent == [2] * is_sent


def test_a_part_is_read_in_blocks_of_at_least_one_mebibyte() -> None:
    s3, content = ListedParts(), bytes(range(256)) * 10_240  # 2.5 MiB
    MultipartUpload.resume(s3, "b", "key", "u1").send(1, content)  # type: ignore[arg-type] # a fake
    blocks = [bytes(block) for block in iter(lambda: s3.body.read(8192), b"")]
    assert [len(block) for block in blocks] == [1 << 20, 1 << 20, 1 << 19]
    assert b"".join(blocks) == content
    s3.body.seek(0)
    assert len(s3.body.read(2 << 20)) == 2 << 20
    for size in (None, -1):
        s3.body.seek(1)
        assert s3.body.read(size) == content[1:]


def test_a_file_that_cannot_be_read_leaves_no_thread_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = outgoing(tmp_path, [bytes(300)])

    def fail(*_: Any, **__: Any) -> None:
        time.sleep(0.1)  # so that the other threads wait for their turns
        raise PermissionError

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(PermissionError):
        Transfer(prefix(MemoryS3()), part_bytes=64, requests_in_flight=4).send([file])
    for thread in threading.enumerate():
        if thread.name == "sqlquarry-parallel":
            thread.join(5)
            assert not thread.is_alive()


def test_parallel_takes_an_item_only_when_a_thread_is_free() -> None:
    made, finished = [0], [0]

    def items() -> Iterator[int]:
        for number in range(50):
            made[0] += 1
            assert made[0] - finished[0] <= 3
            yield number

    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            finished[0] += 1
        return number

    assert sorted(result for _, result in parallel(work, items(), 3)) == list(range(50))


def test_parallel_raises_the_error_of_the_item_generator() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(parallel(lambda item: item, items(), 2))
