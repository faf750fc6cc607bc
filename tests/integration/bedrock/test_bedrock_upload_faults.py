"""Interrupted uploads send nothing twice and lose nothing."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, NoCredentialsError

from bedrock_scripted import scripted_aws
from sqlquarry.aws.transfer import RETRY_WAITS_S
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.upload import discard_unfinished, upload
from sqlquarry.errors import BedrockError, CorruptArtifactError
from sqlquarry.manifests import Manifest

URI = "s3://models/big"
PART = 64 * 1024
WEIGHTS = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"


class Bucket:
    """moto's bucket with a record of requests and scripted faults."""

    def __init__(self, s3: Any) -> None:
        self.s3 = s3
        self.calls: list[tuple[str, str, Any]] = []
        self.sleeps: list[float] = []
        self.fail: Callable[[str, dict[str, Any]], None] = lambda *_: None
        s3.meta.events.register("before-parameter-build.s3", self._see)

    def _see(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.fail(model.name, params)
        self.calls.append((model.name, params.get("Key", ""), params.get("PartNumber")))

    def upload(self, export: ModelExport, **options: Any) -> int:
        settings = {"part_bytes": PART, "requests_in_flight": 3, "sleep": self.sleeps.append} | options
        return upload(export, URI, s3=self.s3, show_progress=False, **settings)

    def parts(self) -> list[int]:
        """Return the sorted numbers of the parts sent since the last call."""
        sent = sorted(number for name, _, number in self.calls if name == "UploadPart")
        self.calls.clear()
        return sent

    def unfinished(self) -> list[str]:
        return [item["Key"] for item in self.s3.list_multipart_uploads(Bucket="models").get("Uploads", ())]

    def content(self, name: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket="models", Key=f"big/{name}")["Body"].read()
        return content


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    # S3 accepts parts below 5 MiB only as the last part, but the real size would make these tests slow.
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    with scripted_aws() as aws:
        yield Bucket(aws.s3)


def export_of(directory: Path, **contents: bytes) -> ModelExport:
    """Return an export with one large and one small file."""
    files: dict[str, bytes | Path] = {"config.json": b"{}"}
    for name, content in ({WEIGHTS: bytes(range(256)) * 1300} | contents).items():
        (directory / name).write_bytes(content)
        files[name] = directory / name
    read = {name: content if isinstance(content, bytes) else content.read_bytes() for name, content in files.items()}
    entries = {n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in read.items()}
    return ModelExport(files, Manifest("merged-model", entries, {}))


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


def failing_at(number: int, error: BaseException, times: int = 10**6) -> Callable[[str, dict[str, Any]], None]:
    left = [times]

    def fail(name: str, params: dict[str, Any]) -> None:
        if name == "UploadPart" and params["PartNumber"] == number and left[0] > 0:
            left[0] -= 1
            raise error

    return fail


def test_a_large_file_is_sent_in_parts_with_its_hash(bucket: Bucket, tmp_path: Path) -> None:
    export = export_of(tmp_path)
    assert bucket.upload(export) == 1300 * 256 + 2
    assert bucket.parts() == [1, 2, 3, 4, 5, 6]
    assert bucket.content(WEIGHTS) == (tmp_path / WEIGHTS).read_bytes()
    head = bucket.s3.head_object(Bucket="models", Key=f"big/{WEIGHTS}")
    assert head["Metadata"] == {"sha256": export.manifest.files[WEIGHTS]["sha256"]}
    assert bucket.unfinished() == []
    assert bucket.upload(export) == 0


def test_a_short_break_is_waited_out(bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bucket.fail = failing_at(3, ConnectionClosedError(endpoint_url="http://127.0.0.1:1"), times=2)
    with caplog.at_level(logging.WARNING):
        bucket.upload(export_of(tmp_path))
    assert bucket.sleeps == list(RETRY_WAITS_S[:2])
    assert re.search(r"\bConnectionClosedError\b.*\b1 s\b", caplog.text)
    assert bucket.content(WEIGHTS) == (tmp_path / WEIGHTS).read_bytes()


def test_an_upload_resumes_after_a_long_break(bucket: Bucket, tmp_path: Path) -> None:
    export = export_of(tmp_path)
    bucket.fail = failing_at(5, ConnectionClosedError(endpoint_url="http://127.0.0.1:1"))
    with pytest.raises(BedrockError, match=r"model-00001.*Connection was closed.*\b6\b"):
        bucket.upload(export, requests_in_flight=1)
    assert bucket.sleeps == list(RETRY_WAITS_S)
    assert bucket.parts() == [1, 2, 3, 4]
    assert bucket.unfinished() == [f"big/{WEIGHTS}"]
    bucket.fail = lambda *_: None
    assert bucket.upload(export) > 0
    assert bucket.parts() == [5, 6]
    assert bucket.content(WEIGHTS) == (tmp_path / WEIGHTS).read_bytes()
    assert bucket.unfinished() == []


def test_a_killed_run_is_resumed_by_the_next(bucket: Bucket, tmp_path: Path) -> None:
    export = export_of(tmp_path)
    bucket.fail = failing_at(4, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bucket.upload(export, requests_in_flight=1)
    assert bucket.parts() == [1, 2, 3]
    bucket.fail = lambda *_: None
    bucket.upload(export)
    assert bucket.parts() == [4, 5, 6]


def test_parts_of_other_content_are_sent_again_and_the_hash_is_the_new_one(bucket: Bucket, tmp_path: Path) -> None:
    old, new = bytes(PART) * 5 + b"old", bytes(PART) + bytes([1]) * PART + bytes(PART) * 3 + b"new"
    bucket.fail = failing_at(5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bucket.upload(export_of(tmp_path, **{WEIGHTS: old}), requests_in_flight=1)
    bucket.parts()
    bucket.fail = lambda *_: None
    export = export_of(tmp_path, **{WEIGHTS: new})
    bucket.upload(export)
    assert bucket.parts() == [2, 5, 6]
    assert bucket.content(WEIGHTS) == new
    assert bucket.upload(export) == 0  # the metadata has its SHA-256


def test_an_unfinished_upload_is_discarded_only_when_asked(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fail = failing_at(2, refusal("ExpiredToken", "The provided token has expired."))
    with pytest.raises(BedrockError, match=r"token has expired.*aws sso login"):
        bucket.upload(export_of(tmp_path))
    assert bucket.sleeps == []
    assert len(bucket.unfinished()) == 1
    assert discard_unfinished(URI, s3=bucket.s3) == 1
    assert bucket.unfinished() == []


def test_access_denied_on_one_key_names_the_key_and_the_permission(bucket: Bucket, tmp_path: Path) -> None:
    def fail(name: str, params: dict[str, Any]) -> None:
        if params.get("Key", "").endswith(SECOND) and name == "CreateMultipartUpload":
            raise refusal("AccessDenied")

    bucket.fail = fail
    export = export_of(tmp_path, **{SECOND: bytes(PART + 1)})
    grant = rf"s3://models/big/{SECOND} .*s3:PutObject.*arn:aws:s3:::models/big/{SECOND}.*kms:"
    with pytest.raises(BedrockError, match=grant):
        bucket.upload(export, requests_in_flight=1)
    assert bucket.parts() == [1]  # a part of the other file
    bucket.fail = lambda *_: None
    bucket.upload(export)
    assert bucket.parts() == [1, 2, 2, 3, 4, 5, 6]


def test_without_permission_to_list_uploads_files_start_again(bucket: Bucket, tmp_path: Path) -> None:
    def fail(name: str, _: dict[str, Any]) -> None:
        if name == "ListMultipartUploads":
            raise refusal("AccessDenied")

    bucket.fail = fail
    assert bucket.upload(export_of(tmp_path)) > 0


def test_a_file_that_changed_after_hashing_is_never_completed(bucket: Bucket, tmp_path: Path) -> None:
    export = export_of(tmp_path)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    for damaged in (content[:-1], content + b"x", bytes([content[0] ^ 1]) + content[1:]):
        (tmp_path / WEIGHTS).write_bytes(damaged)
        with pytest.raises(CorruptArtifactError, match=rf"model-00001.*{export.manifest.files[WEIGHTS]['sha256']}"):
            bucket.upload(export)
    listed = bucket.s3.list_objects_v2(Bucket="models").get("Contents", ())
    assert [item["Key"] for item in listed] == []


def test_a_wrong_checksum_during_the_upload_is_tried_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fail = failing_at(1, refusal("BadDigest"), times=1)
    bucket.upload(export_of(tmp_path))
    assert bucket.sleeps == [RETRY_WAITS_S[0]]


def test_memory_contains_only_one_part_per_request(bucket: Bucket, tmp_path: Path) -> None:
    holding, most = set[int](), [0]
    lock = threading.Lock()

    def watch(name: str, params: dict[str, Any]) -> None:
        if name == "UploadPart":
            with lock:
                holding.add(params["PartNumber"])
                most[0] = max(most[0], len(holding))

    def done(params: Any = None, **_: Any) -> None:  # noqa: ARG001 - the event's own
        with lock:
            holding.pop() if holding else None

    bucket.fail = watch
    bucket.s3.meta.events.register("after-call.s3.UploadPart", done)
    bucket.upload(export_of(tmp_path, **{WEIGHTS: bytes(PART * 30)}), requests_in_flight=2)
    assert most[0] <= 2


@pytest.mark.parametrize("secret", ["AKIAIOSFODNN7EXAMPLE", "X-Amz-Signature=deadbeef", "X-Amz-Security-Token=FwoG/="])
def test_no_secret_is_in_the_error(bucket: Bucket, tmp_path: Path, secret: str) -> None:
    bucket.fail = failing_at(1, refusal("AccessDenied", f"user at https://x/?{secret}&a=b"))
    with pytest.raises(BedrockError) as caught:
        bucket.upload(export_of(tmp_path))
    assert secret.partition("=")[2] or secret not in str(caught.value)
    assert secret not in str(caught.value)


def test_no_credentials_at_all_are_explained(bucket: Bucket, tmp_path: Path) -> None:
    def fail(name: str, _: dict[str, Any]) -> None:
        if name == "ListObjectsV2":
            raise NoCredentialsError

    bucket.fail = fail
    with pytest.raises(BedrockError, match=r"aws configure|aws sso login"):
        bucket.upload(export_of(tmp_path))
