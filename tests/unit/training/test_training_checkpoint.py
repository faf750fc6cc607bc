"""Checkpoint files in a directory and in S3: complete, pruned, skipped if damaged, and an error if not writable."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import safetensors.torch
import torch
from moto import mock_aws

from sqlquarry.errors import TrainingError
from sqlquarry.files.digests import sha256_file
from sqlquarry.training.steps.checkpoint import Checkpoints, Snapshot

BUCKET, PREFIX = "bucket", "runs/1/"


class Directory:
    """Checkpoints in a local directory, and direct access to their files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, kept: int = 2) -> Checkpoints:
        return Checkpoints(self.path, kept=kept)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.glob("*"))

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        self.path.mkdir(exist_ok=True)
        (self.path / name).write_bytes(content)


class Prefix:
    """Checkpoints below an S3 prefix, and direct access to their objects."""

    def __init__(self, session: Any) -> None:
        self.session, self.client = session, session.client("s3")
        self.client.create_bucket(Bucket=BUCKET)

    def open(self, kept: int = 2) -> Checkpoints:
        return Checkpoints(f"s3://{BUCKET}/{PREFIX}", kept=kept, session=self.session)

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return sorted(item["Key"].removeprefix(PREFIX) for item in found)

    def read(self, name: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=PREFIX + name)["Body"].read())

    def write(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=PREFIX + name, Body=content)


@pytest.fixture(params=["directory", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Directory | Prefix]:
    if request.param == "directory":
        yield Directory(tmp_path / "c")
        return
    with mock_aws(config={"core": {"mock_credentials": False}}):
        yield Prefix(boto3.session.Session("key", "secret", region_name="us-east-1"))


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"adapter.a": torch.full((3, 2), float(step))}, {"loss_sum": "1.5"})


def saved(checkpoints: Checkpoints, *steps: int) -> Checkpoints:
    for step in steps:
        checkpoints.save(snapshot(step))
    checkpoints.wait()
    return checkpoints


def step_of(name: str) -> int:
    return int(name.split("-")[1])


def test_the_newest_is_returned_and_older_ones_are_removed(store: Directory | Prefix) -> None:
    saved(store.open(kept=2), 1, 2, 30)
    assert [step_of(name) for name in store.names()] == [2, 30]
    checkpoints = store.open()  # as a resumed run opens them
    latest = checkpoints.latest()
    assert latest is not None
    assert (latest.step, latest.facts) == (30, {"loss_sum": "1.5"})
    assert latest.tensors.keys() == {"adapter.a"}
    assert torch.equal(latest.tensors["adapter.a"], torch.full((3, 2), 30.0))
    checkpoints.clear()
    assert store.names() == []
    assert checkpoints.latest() is None


def test_three_are_kept_if_three_are_wanted(store: Directory | Prefix) -> None:
    saved(store.open(kept=3), 1, 2, 3, 4)
    assert [step_of(name) for name in store.names()] == [2, 3, 4]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    store: Directory | Prefix, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(store.open(), 1, 2)
    newest = store.names()[-1]
    content = store.read(newest)
    store.write(newest, {"cut": content[:-1], "changed": content[:-1] + b"x", "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        latest = checkpoints.latest()
    assert latest is not None
    assert latest.step == 1
    assert newest in caplog.text
    assert store.names()[0] not in caplog.text


def test_files_that_are_not_checkpoints_are_ignored_and_kept(store: Directory | Prefix) -> None:
    store.write("notes.txt", b"mine")
    checkpoints = saved(store.open(), 5)
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.step == 5
    checkpoints.clear()
    assert store.names() == ["notes.txt"]


def test_the_name_contains_the_hash_of_the_content(tmp_path: Path) -> None:
    saved(Checkpoints(tmp_path), 12)
    (path,) = tmp_path.iterdir()
    assert path.name == f"step-00000012-{sha256_file(path)[:16]}.safetensors"


def test_the_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / "tmpx").mkdir()
    (tmp_path / "tmpx" / "new.safetensors").write_bytes(b"half")
    assert Checkpoints(tmp_path).latest() is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_in_its_directory_so_that_it_can_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file on another disk could not be moved into place in one step."""
    written: list[Path] = []
    real = safetensors.torch.save_file

    def save_file(tensors: Any, path: Path, **options: Any) -> None:
        written.append(Path(path))
        real(tensors, path, **options)

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)
    saved(Checkpoints(tmp_path / "c"), 1)
    (path,) = written
    assert path.parent.parent == tmp_path / "c"


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_error_for_a_full_disk_has_the_step_of_the_last_valid_checkpoint(
    store: Directory | Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(store.open(), 7)
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", full_disk)
        checkpoints.save(snapshot(8))
        with pytest.raises(TrainingError, match=rf"{checkpoints.place}.*No space left on device.*step 7\b"):
            checkpoints.wait()
    saved(checkpoints, 9)
    assert [step_of(name) for name in store.names()] == [7, 9]


def test_the_error_is_also_raised_if_the_first_checkpoint_cannot_be_written(
    store: Directory | Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = store.open()
    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    checkpoints.save(snapshot(1))
    with pytest.raises(TrainingError, match="No space left on device") as caught:
        checkpoints.save(snapshot(2))  # which waits for the first one
    assert not re.search(r"step \d", str(caught.value))
    assert isinstance(caught.value.__cause__, OSError)
    checkpoints.wait()  # an error is raised only once
